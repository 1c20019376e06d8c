"""Proxies for whether an answer is in the language asked for and on topic; fluency and spans of other languages have modules of their own.
The definitions are ours, and what judges is language identifiers and the unedited model itself, not a reader.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from lape.data.language_id import Guess, Identifier, alike, base
from lape.measure.answer_loss import answer_losses, ids_of
from lape.measure.generation import filler
from lape.measure.prompts import ask
from lape.model.loss import Head

LETTERS = 10
"""An answer with fewer letters is in no language."""
LETTERS_DENSE = 4
"""The same for languages written with a sign a syllable or word."""
DENSE = ("zh", "ja")
LINE = 5
"""A line of fewer words (or signs) is not judged by itself; as in the Language Confusion Benchmark."""
_KANA = re.compile(r"[\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff]")
"""Without the signs of that block that part words, which Chinese uses too."""
_LATIN_WORD = re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]+")


def in_language(answer: str, guess: Guess, target: str, second: Guess | None = None) -> bool:
    """Whether an answer is in the target language: identified as such, with enough letters, and kana for Japanese.

    `guess`: the identifier's that decides. Where it names a language that is taken for the target's (Malay for Indonesian, or the reverse: `ALIKE`), the
    answer is in the language unless `second`, another identifier's, names it too.
    """
    wanted = base(target)
    enough = sum(sign.isalpha() for sign in answer) >= (LETTERS_DENSE if wanted in DENSE else LETTERS)
    objects = second is None or second.language == guess.language
    named = guess.language == wanted or (guess.language in alike(wanted) and not objects)
    return named and enough and (wanted != "ja" or bool(_KANA.search(answer)))


def judged_lines(answer: str, target: str) -> list[str]:
    """The lines that are judged one by one: those of at least five words, or signs; where there is none, the whole answer."""
    size = (
        (lambda line: sum(sign.isalpha() for sign in line))
        if base(target) in DENSE
        else (lambda line: len(line.split()))
    )
    lines = [line for line in answer.split("\n") if size(line) >= LINE]
    return lines or [answer]


def english_word(answer: str) -> bool:
    """Whether an answer in another script holds a lower-case Latin word of more than three letters.

    The Language Confusion Benchmark looks words up in an English dictionary; here every such word counts.
    """
    return any(len(word) > 3 and word.isascii() and word.islower() for word in _LATIN_WORD.findall(answer))


def rivals(number: int, questions: int, candidates: int) -> list[int]:
    """The questions an answer might be to: the true one first, then those that follow it, round the list."""
    return [(number + step) % questions for step in range(min(candidates, questions))]


def on_topic(
    model: Any,
    tokenizer: Any,
    head: Head,
    answers: Sequence[tuple[int, str]],
    questions: Sequence[str],
    target: str,
    candidates: int,
) -> list[bool]:
    """Whether the true question makes the answer likeliest among its `rivals`, all put in the target language.

    `answers`: (number of its question, text). log P(answer | question) is the unedited model's; chance is 1 / candidates.
    """
    prompts = [ask(tokenizer, question, source=target, target=target) for question in questions]
    numbers = [rivals(number, len(questions), candidates) for number, _ in answers]
    pairs = [
        ids_of(tokenizer, prompts[rival], text)
        for (_, text), some in zip(answers, numbers, strict=True)
        for rival in some
    ]
    losses = answer_losses(model, head, pairs, filler(tokenizer))
    totals = iter([float(loss.sum()) if len(loss) else np.inf for loss in losses])
    result = []
    for some in numbers:
        first, *rest = [next(totals) for _ in some]
        result.append(bool(np.isfinite(first) and first < min(rest, default=np.inf)))
    return result


def lines_of(answers: Sequence[str], target: str, identify: Identifier) -> list[list[Guess]]:
    """A guess for every judged line of every answer."""
    split = [judged_lines(answer, target) for answer in answers]
    guesses = iter(identify([line for lines in split for line in lines]))
    return [[next(guesses) for _ in lines] for lines in split]
