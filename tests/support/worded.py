"""Who tells the planted model's words apart, in the place of identifiers of languages that people speak; and prompts in its words."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from typing import Any

import pytest
import torch

from lape.data.language_id import Guess
from lape.experiments.confusion import run as asking
from lape.experiments.confusion import search as searching
from lape.experiments.confusion.prompts import Prompt
from lape.measure.answer_failures import Failing
from lape.measure.language_confusion import Verdict
from support.planted import LANGUAGES, RAISED, planted, planted_tokenizer, word


class PlantedJudge:
    """Answers are in the language whose words they are made of."""

    def __init__(self, languages, *, judge=None):
        pass

    def __call__(self, answers, language):
        verdict = Verdict(1, 0, False, False)
        told = [language_of(one) for one in answers]
        return [Failing(None if one == language else "other_language", verdict, one) for one in told]

    def language_of(self, texts):
        return [None] * len(texts)


def language_of(text):
    count = Counter(one[:2] for one in text.split() if one[:2] in LANGUAGES)
    return count.most_common(1)[0][0] if count else None


def prompts(count=48, **more):
    return [
        Prompt(f"{word('en', k % 20 + 2)} {word('en', k // 20 + 3)}", "fr", "crosslingual", "mine", f"q{k}", **more)
        for k in range(count)
    ]


def judged_by_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are judged by their words in what follows."""
    monkeypatch.setattr(asking, "Failures", PlantedJudge)
    monkeypatch.setattr(asking, "Judge", lambda *_: None)
    told = lambda texts: [Guess(language_of(one), 0.9) for one in texts]  # noqa: E731
    monkeypatch.setattr(searching, "identifier", lambda *_: told)


WISH_LINE = " ".join(word("fr", k) for k in (2, 3, 4, 6, 7, 8))


def wishing_model() -> tuple[Any, Any]:
    """The planted model with a head, 2 of layer 0, that carries the wish: the larger the share of French words in what it is asked, the likelier it writes
    French.
    """
    model, tokenizer = deepcopy(planted()), deepcopy(planted_tokenizer())
    tokenizer.chat_template = "{% for one in messages %}{{ one['content'] }} {% endfor %}"
    attention, own, french = model.model.layers[0].self_attn, slice(32, 48), LANGUAGES.index("fr")
    with torch.no_grad():
        attention.q_proj.weight[own] = 0
        attention.v_proj.weight[own] = 0
        attention.v_proj.weight[32, french] = 1
        attention.o_proj.weight[RAISED[french], 32] = 1
    return model, tokenizer


def wishes(count=48):
    """Every other prompt is long, so that the line is too weak there."""
    for k in range(count):
        last = word("en", 3 + k // 20)  # no prompt is asked twice
        short, long = [word("en", 2 + k % 20), last], [*[word("en", 2 + k % 20)] * 11, last]
        words = [*short, word("fr", 5)] if k % 4 < 2 else [*long, *[word("fr", 5)] * 4]
        yield Prompt(" ".join(words), "fr", "crosslingual", "mine", f"q{k}")
