"""Ask a model, judge what it answers, and count shares of the answers: what every measurement of answers is made of.

A row of a table of answers is one answer: the conversation that it belongs to, its turn and part, the language that was wanted, the text, and how it fails.
What judges an answer is in the other `answer_*.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import polars as pl

from lape.data.language_id import alike, identifier
from lape.data.languages import script
from lape.measure.answer_fluency import Bounds, Written, repetition, written
from lape.measure.answer_quality import english_word, in_language, lines_of, on_topic
from lape.measure.answer_spans import foreign, mixed, spans
from lape.measure.bench import Bench
from lape.measure.bootstrap import FEWEST, Floats, Resamples
from lape.measure.generation import GenerationOptions
from lape.measure.grader import GRADES, Scale, grader_of
from lape.measure.methods import CEILING, Setting
from lape.measure.questions import Pair
from lape.model.identity import checksum
from lape.options import GraderOptions
from lape.store import files
from lape.store.cells import Cells

Split: TypeAlias = Literal["development", "report"]
Questions: TypeAlias = Mapping[str, Sequence[str]]
"""Language -> questions; question i asks the same in every language."""

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


@dataclass(frozen=True)
class JudgedOptions(GenerationOptions, GraderOptions):
    """How answers are generated and judged."""

    seed: int = 0
    """Seed of the controls and of the bootstrap."""
    identifier: str = "lingua"
    """Which identifier says what language an answer is in: lingua or langid."""
    second: str = "langid"
    """A second identifier: a sentence is in another language, and an Indonesian answer Malay, where both say so."""


class Interview:
    """Asks a model questions under settings, and judges its answers; what is finished is kept in a folder."""

    def __init__(
        self,
        bench: Bench,
        questions: Mapping[Split, Questions],
        native: Questions,
        languages: Sequence[str],
        options: JudgedOptions,
        candidates: Mapping[Split, int],
        *,
        plain: Setting = CEILING,
        scale: Scale = GRADES,
        folder: Path | None = None,
        **state: Any,
    ) -> None:
        """`native`: other questions, whose unedited answers bound what is fluent, asked as `plain` says. `languages`: those that the identifiers tell apart.
        `candidates`: among how many questions of a split an answer's own must be likeliest; 0 is all. `scale`: the grader's. `folder`: where finished cells
        are kept; `state`: what else they depend on. Raises FileError for a folder with the cells of another run.
        """
        self.bench, self.questions, self.native, self.candidates = bench, questions, native, candidates
        self.first, self.second = (identifier(name, languages) for name in (options.identifier, options.second))
        self._plain, self._grader = plain, grader_of(options, scale)
        self._bounds: dict[str, Bounds] = {}
        if folder is not None:
            files.same_run(folder, {**self._state(options), **state})
        self.cells = Cells(folder and folder / "cells")

    def _state(self, options: JudgedOptions) -> dict[str, Any]:
        """What finished cells depend on."""
        return {
            "options": dataclasses.asdict(options),
            "questions": self.questions,
            "native": self.native,
            "statistics": self.bench.stats.manifest,
            "model": checksum(self.bench.model),
            "neurons": {language: neurons.flat.tolist() for language, neurons in self.bench.sets("lape").items()},
        }

    def cell(self, name: str, split: Split, setting: Setting, pair: Pair, **how: Any) -> pl.DataFrame:
        """The judged answers to a split's questions, from the folder or asked now: `ANSWERS`. `how`: see `ask`."""
        return self.cells.table(name, partial(self.ask, split, setting, pair, **how))

    def ask(
        self,
        split: Split,
        setting: Setting,
        pair: Pair,
        *,
        examples: Sequence[Sequence[tuple[str, str]]] = (),
        under: AbstractContextManager[object] | None = None,
    ) -> pl.DataFrame:
        """The judged answers to a split's questions: `ANSWERS`. `examples`: see `Bench.answers`. `under`: entered while the model answers."""
        self._bounds_of(pair[1])
        with under or nullcontext():
            answers = self.bench.answers(setting, self.questions[split], *pair, examples)
        return self.judge(split, setting, pair, answers)

    def _bounds_of(self, target: str) -> Bounds:
        """What counts as fluent in a language, learned from the unedited model's answers to the native questions."""
        if target not in self._bounds:
            native = self.cells.table(
                f"native.{target}",
                lambda: pl.DataFrame({"answer": self.bench.answers(self._plain, self.native, target, target)}),
            )
            self._bounds[target] = Bounds(self._alone(native["answer"].to_list()))
        return self._bounds[target]

    def _alone(self, answers: Sequence[str]) -> list[Written]:
        return written(self.bench.model, self.bench.tokenizer, self.bench.head, answers)

    def judge(self, split: Split, setting: Setting, pair: Pair, answers: Sequence[str]) -> pl.DataFrame:
        """Answers to a split's questions with what is judged of them: `ANSWERS`."""
        source, target = pair
        bench, questions, bounds = self.bench, self.questions[split][target], self._bounds_of(target)
        first, second = self.first(answers), self.second(answers)
        guesses = list(zip(answers, first, second, strict=True))
        inside = [in_language(text, one, target, other) for text, one, other in guesses]
        alone = self._alone(answers)
        fluent = [bounds.fluent(one) for one in alone]
        judged = [(k, text) for k, text in enumerate(answers) if inside[k] and fluent[k]]
        rivals = self.candidates[split] or len(questions)
        likeliest = on_topic(bench.model, bench.tokenizer, bench.head, judged, questions, target, rivals)
        topic = {number: verdict for (number, _), verdict in zip(judged, likeliest, strict=True)}
        lines = lines_of(answers, target, self.first)
        clean = [all(guess.language in alike(target) for guess in guesses) for guesses in lines]
        elsewhere = spans(answers, target, self.first, self.second)
        impure = [mixed(text, found) for text, found in zip(answers, elsewhere, strict=True)]
        grades = None
        if self._grader is not None and split == "report":
            grades = self._grader.grades(list(zip(questions, answers, strict=True)), target)
        return pl.DataFrame(
            {
                "split": split,
                "family": setting.family,
                "setting": setting.name,
                "source": source,
                "target": target,
                "question": range(len(answers)),
                "answer": answers,
                "language": [guess.language for guess in first],
                "language_second": [guess.language for guess in second],
                "in_language": inside,
                "in_language_second": [in_language(text, other, target, one) for text, one, other in guesses],
                "fluent": fluent,
                "on_topic": [topic.get(k) for k in range(len(answers))],
                "mixed": impure,
                "good": [bool(topic.get(k)) and not impure[k] for k in range(len(answers))],
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


ANY = pl.col("question").is_not_null()
"""Every answer."""


class Tally:
    """Shares of answers, each with the resamples of the questions behind its interval: the same resamples for all groups of answers."""

    def __init__(self, questions: Sequence[Hashable], resamples: int, seed: int, *, fewest: int = FEWEST) -> None:
        """`fewest`: questions that a share needs for an interval."""
        self._at = {question: at for at, question in enumerate(questions)}
        self._fewest = fewest
        self.drawn = Resamples(len(questions), resamples, seed)

    def share(self, answers: pl.DataFrame, holds: pl.Expr, of: pl.Expr = ANY) -> Floats:
        """(rows,) Σ holds / Σ of over answers, as `Resamples.ratio` gives it. What is null does not hold; `of`: which answers count."""
        each = answers.group_by("question", maintain_order=True).agg(
            amount=(holds.cast(pl.Float64) * of).sum(), size=of.cast(pl.Float64).sum()
        )
        at = np.array([self._at[question] for question in each["question"]], np.int64)
        return self.drawn.ratio(each["amount"].to_numpy(), each["size"].to_numpy(), at=at, fewest=self._fewest)
