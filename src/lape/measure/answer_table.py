"""The verdicts on the answers of one cell, as a table: see `answer_quality.py` for each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import polars as pl

from lape.data.language_id import Identifier, base
from lape.data.languages import script
from lape.measure.answer_quality import Band, english_word, in_language, lines_of, on_topic, repetition, written
from lape.measure.bench import Bench
from lape.measure.grader import Grader
from lape.measure.methods import Setting
from lape.measure.questions import Pair

Split: TypeAlias = Literal["development", "report"]

ANSWERS = {
    **dict.fromkeys(("split", "family", "setting", "source", "target"), pl.String),
    "question": pl.Int64,
    "answer": pl.String,
    **dict.fromkeys(("language", "language_second"), pl.String),
    **dict.fromkeys(
        ("in_language", "in_language_second", "fluent", "on_topic", "good", "lpr", "wpr", "empty"), pl.Boolean
    ),
    **dict.fromkeys(("distinct4", "nll"), pl.Float64),
    "graded": pl.Int64,
}
"""A row an answer: `split`, `family` and `setting` of the method, `source` and `target` languages, number of the `question`, `answer`, the `language`
that it seems to be in, by a second identifier `language_second`, and what is judged of it, as `DEFINITIONS` beside this says. `on_topic` is
judged for fluent answers in the language, `wpr` for answers whose every line is, in a language of another script than Latin; elsewhere both are
null. `graded` is null without a grader, and on the development questions.
"""
DEFINITIONS = {
    "in_language": "share of answers that the first identifier calls the target language, among the languages in play and 15 neighbours, "
    "with at least 10 letters (4 in Chinese and Japanese), and kana in Japanese",
    "fluent": "share of the answers in the language whose loss under the unedited model and whose share of repeated character 4-grams both lie "
    "in the central 95 % of the ceiling's answers to the development questions, cut to the same number of tokens: a proxy, whose band is estimated "
    "from these few answers and leaves out more than 5 % of new ones",
    "on_topic": "share of the fluent answers in the language for which the true question, put in the target language, makes the answer likeliest "
    "under the unedited model among `candidates` questions: a proxy, which holds for one answer in `candidates` by chance",
    "good": "share of all answers that are in the language, fluent and on topic by these definitions; one greedy answer is judged for each question",
    "over_ceiling": "the share over that of the ceiling (asked in the target language, unedited) on the same questions, averaged by target",
    "low, high": "95 % percentile bootstrap over questions, resampled jointly over pairs and families",
    "lpr": "share of answers whose every line of at least 5 words (signs in Chinese and Japanese) is called the target language, or that as a "
    "whole is where no line is so long; after the line-level pass rate of Marchisio et al. 2024",
    "wpr": "of those, in scripts other than Latin, the share without a lower-case ASCII word of more than 3 letters; Marchisio et al. look words "
    "up in an English dictionary instead",
    "distinct4": "mean share of distinct character 4-grams",
    "nll": "mean loss of an answer that stands alone, nats per token, unedited model",
    "graded": "mean grade, 0 to 2, that a language model behind an endpoint gave; null where none was asked",
    "agreement": "share of answers that both identifiers name alike",
    "cost": "change of loss on text while the edit acts on every token, nats per token",
}
"""What the columns mean; ours."""


class Judge:
    """Judges the answers of a cell. What counts as fluent in a language must be learnt before, from the ceiling's answers."""

    def __init__(
        self,
        bench: Bench,
        first: Identifier,
        second: Identifier,
        candidates: Mapping[Split, int],
        grader: Grader | None = None,
    ) -> None:
        """`candidates`: among how many questions of a split an answer's own must be likeliest; 0 is all."""
        self._bench, self._first, self._second, self._candidates = bench, first, second, candidates
        self._grader = grader
        self._bands: dict[str, Band] = {}

    def knows(self, target: str) -> bool:
        """Whether it was learnt what counts as fluent in a language."""
        return target in self._bands

    def learn(self, target: str, ceiling: Sequence[str]) -> None:
        """Learn what counts as fluent in a language: what is like the ceiling's answers to the development questions."""
        bench = self._bench
        self._bands[target] = Band(written(bench.model, bench.tokenizer, bench.head, ceiling))

    def verdicts(
        self, split: Split, setting: Setting, pair: Pair, answers: list[str], questions: Sequence[str]
    ) -> pl.DataFrame:
        """The judged answers of a cell: `ANSWERS`. `questions`: all of the split, in the target language."""
        source, target = pair
        bench = self._bench
        first, second = self._first(answers), self._second(answers)
        inside = [in_language(text, guess, target) for text, guess in zip(answers, first, strict=True)]
        alone = written(bench.model, bench.tokenizer, bench.head, answers)
        fluent = [self._bands[target].fluent(one) for one in alone]
        judged = [(k, text) for k, text in enumerate(answers) if inside[k] and fluent[k]]
        rivals = self._candidates[split] or len(questions)
        likeliest = on_topic(bench.model, bench.tokenizer, bench.head, judged, questions, target, rivals)
        topic = {number: verdict for (number, _), verdict in zip(judged, likeliest, strict=True)}
        lines = lines_of(answers, target, self._first)
        clean = [all(guess.language == base(target) for guess in guesses) for guesses in lines]
        count = len(answers)
        grades: list[int | None] = [None] * count
        if self._grader is not None and split == "report":
            grades = self._grader.grades(list(zip(questions, answers, strict=True)), target)
        return pl.DataFrame(
            {
                "split": [split] * count,
                "family": [setting.family] * count,
                "setting": [setting.name] * count,
                "source": [source] * count,
                "target": [target] * count,
                "question": range(count),
                "answer": answers,
                "language": [guess.language for guess in first],
                "language_second": [guess.language for guess in second],
                "in_language": inside,
                "in_language_second": [in_language(t, g, target) for t, g in zip(answers, second, strict=True)],
                "fluent": fluent,
                "on_topic": [topic.get(k) for k in range(count)],
                "good": [bool(topic.get(k)) for k in range(count)],
                "lpr": clean,
                "wpr": [_pure(target, text) if ok else None for text, ok in zip(answers, clean, strict=True)],
                "empty": [not text.strip() for text in answers],
                "distinct4": [1 - repetition(text) for text in answers],
                "nll": [float(one.nll.mean()) if len(one.nll) else None for one in alone],
                "graded": grades,
            },
            schema=ANSWERS,
        )


def _pure(target: str, answer: str) -> bool | None:
    """Whether no English word stands in an answer; None in a Latin script, where it could be a word of the language."""
    return None if script(target) == "Latn" else not english_word(answer)
