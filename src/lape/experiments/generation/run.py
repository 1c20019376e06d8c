"""Questions of every language answered while one language's neurons are off: which answers stay good."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from torch import nn

from lape.data import samples
from lape.data.language_id import identifier
from lape.data.languages import tag
from lape.errors import OptionError, TextError
from lape.measure.answer_table import DEFINITIONS as ANSWER_DEFINITIONS
from lape.measure.answer_table import Judge, Split
from lape.measure.bench import Bench
from lape.measure.conditions import NONE, Condition, conditions
from lape.measure.generation import GenerationOptions
from lape.measure.grader import MARKS, grader_of
from lape.measure.methods import Setting
from lape.measure.prompts import Asking
from lape.measure.questions import checked_native, checked_questions
from lape.model.identity import check_made_with, checksum
from lape.options import Candidates, GraderOptions, NotNegative
from lape.progress import Progress, each, shown
from lape.store import files
from lape.store.cells import Cells
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ANSWERS = {
    **dict.fromkeys(("off", "language"), pl.String),
    "control": pl.Boolean,
    **dict.fromkeys(("draw", "question"), pl.Int64),
    **dict.fromkeys(("answer", "identified"), pl.String),
    **dict.fromkeys(("in_language", "fluent", "on_topic", "mixed", "good"), pl.Boolean),
    "foreign": pl.Float64,
    **dict.fromkeys(("calibrated_on", "grade"), pl.Int64),
    "energy_ratio": pl.Float64,
}
"""One row an answer. `off`: whose neurons were off, or none; `language`: of the question; `control`: whether as many matched neurons
were off instead, by `draw`; `question`: its number; `identified`: the language that the answer seems to be in. `in_language`,
`fluent`, `on_topic` (null where one of the others does not hold), `mixed` (with the share `foreign` of its letters in another language) and
`good` (the first three, and neither of the others) are a proxy for a judge's marks: see `lape.measure.answer_table.DEFINITIONS`.
`calibrated_on`: how many native answers made the bounds of its fluency. `grade`: 1 to 10 from the endpoint, null without one. `energy_ratio`: the set's
written energy over that of the control neurons, null where none were off.
"""
DEFINITIONS = {
    **{name: ANSWER_DEFINITIONS[name] for name in ("in_language", "fluent", "on_topic", "mixed", "foreign", "good")},
    "grade": "1 to 10 from a language model behind an endpoint, by `samples/judging.txt`; an empty answer is 1",
}
"""What the columns mean; ours."""


@dataclass(frozen=True)
class SilencedOptions(GenerationOptions, GraderOptions):
    """How answers are measured that a model gives while a language's neurons are off."""

    wish: bool = False
    """Ask for an answer in the question's language, in its own words, as the published script does. Default: the bare question."""
    draws: NotNegative = 1
    """Draws of matched control neurons, on the questions of every language."""
    candidates: Candidates = 8
    """Questions among which an answer's own must be likeliest; 0 is all. Each is a pass over a question and the answer, for every
    answer in the language and fluent: on a CPU, 8 take two to four times as long as writing it took."""
    seed: int = 0
    """Seed of the control draws."""
    identifier: str = "lingua"
    """Which identifier says what language an answer is in: lingua or langid."""
    second: str = "langid"
    """A second identifier: a sentence is in another language, and an Indonesian answer Malay, where both say so."""


def silenced(
    model: PreTrainedModel | nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    neurons: LanguageNeurons,
    stats: ActivationStats,
    questions: Mapping[str, Sequence[str]] | None = None,
    *,
    options: SilencedOptions,
    native: Mapping[str, Sequence[str]] | None = None,
    folder: Path | None = None,
    progress: Progress = shown,
) -> pl.DataFrame:
    """The judged answers to each language's questions with each language's neurons off (zero ablation): `ANSWERS`.

    After Tang et al. 2024, whose answers GPT-4 marked 1 to 10; the verdicts here are a proxy that needs no judge. Languages: those
    with questions, statistics and a place in `neurons`; one whose set is empty is asked but not switched off, and one whose control
    finds too few other neurons has none. `questions`: language -> questions, question i asking the same in every language; default: the
    bundled ones. `native`: others, whose unedited answers bound what is fluent (100 or more are wanted, 19 needed); default: the bundled development
    questions.
    `folder`: where finished cells are kept, so that a killed run goes on. Further: see `SilencedOptions`. Raises TextError for questions that do not
    fit together, MismatchError for another model's statistics or neurons, OptionError where nothing can be switched off.

    Example:
        >>> from lape.data import samples
        >>> from lape.experiments.generation.run import SilencedOptions, silenced
        >>> asked, native = ({k: v[:20] for k, v in samples.questions(part).items() if k == "fr"} for part in ("reporting", "development"))
        >>> few = {"new_tokens": 2, "candidates": 2, "draws": 0}
        >>> table = silenced(model, tokenizer, neurons, stats, asked, native=native, options=SilencedOptions(**few))
        >>> table["off"].unique().sort().to_list()
        ['fr', 'none']
    """
    check_made_with(model, tokenizer, neurons=neurons, statistics=stats)
    asked = checked_questions(samples.questions("reporting") if questions is None else questions)
    languages = _languages(asked, stats, neurons)
    before = checked_native(samples.questions("development") if native is None else native, asked, languages)
    run = _Run(Bench(model, tokenizer, stats, None, options, neurons=neurons), asked, before, languages, options)
    if folder is not None:
        files.same_run(folder, run.described(neurons))
    return run.all(_cells(model, neurons, stats, languages, options), Cells(folder and folder / "cells"), progress)


def _languages(asked: Mapping[str, Sequence[str]], stats: ActivationStats, neurons: LanguageNeurons) -> list[str]:
    languages = [language for language in asked if language in stats.languages and language in neurons.sets]
    if not languages:
        raise TextError(
            f"There are questions in {', '.join(asked)}, statistics of {', '.join(stats.languages)} and neurons of {', '.join(neurons)}. "
            "At least one language must have all three."
        )
    return languages


@dataclasses.dataclass(frozen=True)
class _Cell:
    """The questions of one language under one condition."""

    off: str
    language: str
    condition: Condition

    @property
    def control(self) -> bool:
        return self.condition.name == "control"

    @property
    def name(self) -> str:
        kind = f"control{self.condition.draw}" if self.control else "own"
        return f"{self.off}.{self.language}.{kind}"


def _cells(
    model: Any, neurons: LanguageNeurons, stats: ActivationStats, languages: Sequence[str], options: SilencedOptions
) -> list[_Cell]:
    """What is run: everything unedited, and each language's neurons, or their controls, off on every language."""
    cells = [_Cell(NONE.name, language, NONE) for language in languages]
    for off in languages:
        found, _ = conditions(model, neurons, stats, off, steer=None, draws=options.draws, seed=options.seed)
        for condition in found:
            cells += [_Cell(off, language, condition) for language in languages]
    if len(cells) == len(languages):
        raise OptionError(
            f"None of {', '.join(languages)} has any neurons. Choose more: lape identify RUN --rate 0.02 --overwrite."
        )
    return cells


class _Run:
    """One measurement: cells, each judged when its answers are there."""

    def __init__(
        self,
        bench: Bench,
        asked: dict[str, list[str]],
        native: dict[str, list[str]],
        languages: Sequence[str],
        options: SilencedOptions,
    ) -> None:
        self.bench, self.options, self.native = bench, options, native
        self.asked = {language: asked[language] for language in languages}
        first, second = (identifier(name, languages) for name in (options.identifier, options.second))
        candidates: dict[Split, int] = {"report": options.candidates, "development": options.candidates}
        self.judge = Judge(bench, first, second, candidates, grader_of(options, MARKS))
        wish = Asking(wish="target" if options.wish else "none")
        self.setting = Setting("silenced", "asked in its own language", asking=wish, ceiling=True)

    def described(self, neurons: LanguageNeurons) -> dict[str, Any]:
        """What finished cells depend on: a folder with cells of another run is refused."""
        return {
            "options": dataclasses.asdict(self.options),
            "questions": self.asked,
            "native": self.native,
            "statistics": self.bench.stats.manifest,
            "model": checksum(self.bench.model),
            "neurons": {tag(language): found.flat.tolist() for language, found in neurons.items()},
        }

    def all(self, todo: Sequence[_Cell], cells: Cells, progress: Progress) -> pl.DataFrame:
        """Every cell, from the folder where it is there already."""
        return pl.concat(
            cells.table(one.name, partial(self._judged, one, cells)).with_columns(
                energy_ratio=pl.lit(one.condition.energy_ratio, pl.Float64)
            )
            for one in each(todo, "answering with neurons off", progress)
        )

    def _learnt(self, language: str) -> pl.DataFrame:
        """The unedited answers to the native questions."""
        return pl.DataFrame({"answer": self._answers(NONE, self.native, language)})

    def _answers(self, condition: Condition, questions: Mapping[str, Sequence[str]], language: str) -> list[str]:
        with condition.on(self.bench.model):
            return self.bench.answers(self.setting, questions, language, language)

    def _judged(self, cell: _Cell, cells: Cells) -> pl.DataFrame:
        language = cell.language
        if not self.judge.knows(language):
            known = cells.table(f"native.{language}", partial(self._learnt, language))
            self.judge.learn(language, known["answer"].to_list())
        answers = self._answers(cell.condition, self.asked, language)
        found = self.judge.verdicts("report", self.setting, (language, language), answers, self.asked[language])
        named = found.rename({"language": "identified", "graded": "grade"}).with_columns(
            off=pl.lit(cell.off),
            language=pl.lit(language),
            control=pl.lit(cell.control),
            draw=pl.lit(cell.condition.draw, pl.Int64),
        )
        return named.select([name for name in ANSWERS if name != "energy_ratio"])  # of the condition, not of an answer
