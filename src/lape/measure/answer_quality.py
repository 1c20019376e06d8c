"""Proxies for whether an answer is in the language asked for, fluent and on topic: "good" where all three hold. The definitions are ours, and what
judges is a language identifier and the unedited model itself, not a reader.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lape.data.language_id import Guess, Identifier, base
from lape.errors import OptionError
from lape.measure.answer_loss import answer_losses, ids_of
from lape.measure.generation import filler
from lape.measure.prompts import ask
from lape.model.loss import Head

LETTERS = 10
"""An answer with fewer letters is in no language."""
LETTERS_DENSE = 4
"""The same for languages written with a sign a syllable or word."""
DENSE = ("zh", "ja")
CENTRAL = (0.025, 0.975)
"""An answer counts as fluent within the central 95 % of the ceiling's answers. Quantiles of few answers lie inside those of many, so that new answers
of the same kind lie outside more often than 5 % of the time; likelier and less repetitive answers than the band lie outside too.
"""
FEWEST = 8
"""Ceiling answers that must be at least as long for a band to be drawn at a length."""
LINE = 5
"""A line of fewer words (or signs) is not judged by itself; as in the Language Confusion Benchmark."""
_KANA = re.compile(r"[\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff]")
"""Without the signs of that block that part words, which Chinese uses too."""
_LATIN_WORD = re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]+")


def in_language(answer: str, guess: Guess, target: str) -> bool:
    """Whether an answer is in the target language: identified as such, with enough letters, and kana for Japanese."""
    wanted = base(target)
    enough = sum(sign.isalpha() for sign in answer) >= (LETTERS_DENSE if wanted in DENSE else LETTERS)
    return guess.language == wanted and enough and (wanted != "ja" or bool(_KANA.search(answer)))


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


def repetition(answer: str) -> float:
    """Share of an answer's character 4-grams that occurred before in it, 0 to 1; 1 - distinct-4."""
    grams = [answer[at : at + 4] for at in range(len(answer) - 3)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


@dataclass(frozen=True)
class Written:
    """An answer with what the unedited model thinks of it when it stands alone."""

    text: str
    nll: NDArray[np.float64]
    """(tokens,) nats."""
    ends: NDArray[np.int64]
    """(tokens,) where each token ends in the text."""

    @classmethod
    def of(cls, tokenizer: Any, text: str, nll: NDArray[np.float64]) -> Written:
        """From a text and the loss of its tokens, of which the first may have none."""
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        pieces = [len(tokenizer.decode(ids[: at + 1])) for at in range(len(ids))]
        return cls(text, nll, np.array(pieces[len(ids) - len(nll) :], np.int64))

    def at(self, tokens: int) -> tuple[float, float]:
        """(mean loss, repetition) of the first so many tokens."""
        tokens = min(tokens, len(self.nll))
        return float(self.nll[:tokens].mean()), repetition(self.text[: int(self.ends[tokens - 1])])


class Band:
    """Where the loss and the repetition of a language's ceiling answers lie, cut to the same number of tokens."""

    def __init__(self, ceiling: Sequence[Written]) -> None:
        self._ceiling = [one for one in ceiling if len(one.nll)]
        lengths = sorted((len(one.nll) for one in self._ceiling), reverse=True)
        if len(lengths) < FEWEST:
            raise OptionError(
                f"Only {len(lengths)} of the ceiling's answers are not empty; at least {FEWEST} are needed to estimate what counts as fluent. Ask "
                "more questions."
            )
        self._longest = lengths[FEWEST - 1]
        self._bounds: dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}

    def bounds(self, tokens: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The lower and upper (loss, repetition) at a length."""
        if tokens not in self._bounds:
            values = np.array([one.at(tokens) for one in self._ceiling if len(one.nll) >= tokens])
            self._bounds[tokens] = np.quantile(values, CENTRAL[0], axis=0), np.quantile(values, CENTRAL[1], axis=0)
        return self._bounds[tokens]

    def fluent(self, answer: Written) -> bool:
        """Whether an answer's loss and repetition both lie in the band at its length; one longer than most is cut. Nothing else is judged."""
        tokens = min(len(answer.nll), self._longest)
        if not tokens:
            return False
        low, high = self.bounds(tokens)
        values = np.array(answer.at(tokens))
        return bool(((values >= low) & (values <= high)).all())


def written(model: Any, tokenizer: Any, head: Head, answers: Sequence[str]) -> list[Written]:
    """What the model, unedited, thinks of answers that stand alone."""
    pairs = [ids_of(tokenizer, "", answer) for answer in answers]
    if pairs and not pairs[0][0]:  # no BOS: the first token is not scored, the rest follows it
        pairs = [(answer[:1], answer[1:]) for _, answer in pairs]
    losses = answer_losses(model, head, pairs, filler(tokenizer))
    return [Written.of(tokenizer, text, loss) for text, loss in zip(answers, losses, strict=True)]


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
