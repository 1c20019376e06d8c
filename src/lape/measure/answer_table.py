"""The verdicts on the answers of one cell, as a table: see the other `answer_*.py` for each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import polars as pl

from lape.data.language_id import Identifier, alike
from lape.data.languages import script
from lape.measure.answer_fluency import Bounds, repetition, written
from lape.measure.answer_quality import english_word, in_language, lines_of, on_topic
from lape.measure.answer_spans import foreign, mixed, spans
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
        (
            *("in_language", "in_language_second", "fluent", "on_topic", "mixed", "good"),
            *("lpr_after_lcb", "wpr_after_lcb", "empty"),
        ),
        pl.Boolean,
    ),
    **dict.fromkeys(("foreign", "distinct4", "nll"), pl.Float64),
    **dict.fromkeys(("calibrated_on", "graded"), pl.Int64),
}
"""A row an answer: `split`, `family` and `setting` of the method, `source` and `target` languages, number of the `question`, `answer`, the `language`
that it seems to be in, by a second identifier `language_second`, and what is judged of it, as `DEFINITIONS` beside this says. `on_topic` is
judged for fluent answers in the language, `wpr_after_lcb` for answers whose every line is, in a language of another script than Latin; elsewhere both
are null. `calibrated_on`: how many native answers made the bounds of its fluency, 0 for an empty one. `graded` is null without a grader, and on
the development questions.
"""
DEFINITIONS = {
    "in_language": "share of answers that the first identifier calls the target language, among the languages in play and 15 neighbours, "
    "with at least 10 letters (4 in Chinese and Japanese), and kana in Japanese; Malay counts as Indonesian, and the reverse, unless both identifiers say it",
    "fluent": "share of the answers in the language whose loss under the unedited model and whose share of repeated character 4-grams are both at most "
    "bounds from native answers (the unedited model's, to other questions in the language), cut to the same number of tokens: a proxy. One-sided; by "
    "conformal prediction a fresh native answer is fluent with a probability of .95 or more, where 39 or more native answers made the bounds",
    "on_topic": "share of the fluent answers in the language for which the true question, put in the target language, makes the answer likeliest "
    "under the unedited model among `candidates` questions: a proxy, which holds for one answer in `candidates` by chance",
    "foreign": "mean share of the letters of the answers in the language that lie in spans of another one: runs in another script, exactly, and "
    "sentences or clauses in the same script that both identifiers call another language",
    "mixed": "share of the answers in the language of which a whole sentence, or a tenth of the letters, is in another one",
    "good": "share of all answers that are in the language, fluent and on topic by these definitions, and not mixed: a proxy; one greedy "
    "answer is judged for each question",
    "minus_ceiling": "the share less that of the ceiling (asked in the target language, unedited) on the same questions, averaged by target",
    "over_ceiling": "the share over that of the ceiling, averaged by target",
    "low, high": "95 % bootstrap over questions and pairs, each resampled and their weights multiplied; over questions alone for a single pair",
    "lpr_after_lcb": "share of answers whose every line of at least 5 words (signs in Chinese and Japanese) is called the target language, or that as a "
    "whole is where no line is so long; after the line-level pass rate of Marchisio et al. 2024, not theirs",
    "wpr_after_lcb": "of those, in scripts other than Latin, the share without a lower-case ASCII word of more than 3 letters; Marchisio et al. look words "
    "up in an English dictionary instead",
    "distinct4": "mean share of distinct character 4-grams",
    "nll": "mean loss of an answer that stands alone, nats per token, unedited model",
    "graded": "mean grade, 0 to 2, that a language model behind an endpoint gave; null where none was asked",
    "agreement": "share of answers that both identifiers name alike",
    "cost": "change of loss on text while the edit acts on every token, nats per token",
}
"""What the columns mean; ours."""


class Judge:
    """Judges the answers of a cell. What counts as fluent in a language must be learnt before, from native answers."""

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
        self._bounds: dict[str, Bounds] = {}

    def knows(self, target: str) -> bool:
        """Whether it was learnt what counts as fluent in a language."""
        return target in self._bounds

    def learn(self, target: str, native: Sequence[str]) -> None:
        """Learn what counts as fluent in a language from the unedited model's answers to questions in it, other ones than are reported."""
        bench = self._bench
        self._bounds[target] = Bounds(written(bench.model, bench.tokenizer, bench.head, native))

    def verdicts(
        self, split: Split, setting: Setting, pair: Pair, answers: list[str], questions: Sequence[str]
    ) -> pl.DataFrame:
        """The judged answers of a cell: `ANSWERS`. `questions`: all of the split, in the target language."""
        source, target = pair
        bench = self._bench
        first, second = self._first(answers), self._second(answers)
        guesses = list(zip(answers, first, second, strict=True))
        inside = [in_language(text, one, target, other) for text, one, other in guesses]
        alone = written(bench.model, bench.tokenizer, bench.head, answers)
        bounds = self._bounds[target]
        fluent = [bounds.fluent(one) for one in alone]
        judged = [(k, text) for k, text in enumerate(answers) if inside[k] and fluent[k]]
        rivals = self._candidates[split] or len(questions)
        likeliest = on_topic(bench.model, bench.tokenizer, bench.head, judged, questions, target, rivals)
        topic = {number: verdict for (number, _), verdict in zip(judged, likeliest, strict=True)}
        lines = lines_of(answers, target, self._first)
        clean = [all(guess.language in alike(target) for guess in guesses) for guesses in lines]
        elsewhere = spans(answers, target, self._first, self._second)
        impure = [mixed(text, found) for text, found in zip(answers, elsewhere, strict=True)]
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
                "in_language_second": [in_language(text, other, target, one) for text, one, other in guesses],
                "fluent": fluent,
                "on_topic": [topic.get(k) for k in range(count)],
                "mixed": impure,
                "good": [bool(topic.get(k)) and not impure[k] for k in range(count)],
                "lpr_after_lcb": clean,
                "wpr_after_lcb": [_pure(target, text) if ok else None for text, ok in zip(answers, clean, strict=True)],
                "empty": [not text.strip() for text in answers],
                "foreign": [foreign(text, found) for text, found in zip(answers, elsewhere, strict=True)],
                "distinct4": [1 - repetition(text) for text in answers],
                "nll": [float(one.nll.mean()) if len(one.nll) else None for one in alone],
                "calibrated_on": [bounds.calibrated_on(one) for one in alone],
                "graded": grades,
            },
            schema=ANSWERS,
        )


def _pure(target: str, answer: str) -> bool | None:
    """Whether no English word stands in an answer; None in a Latin script, where it could be a word of the language."""
    return None if script(target) == "Latn" else not english_word(answer)
