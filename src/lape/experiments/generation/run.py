"""Questions of every language answered while one language's neurons are off: which answers stay good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from torch import nn

from lape.data import samples
from lape.errors import OptionError, TextError
from lape.measure.answers import Interview, JudgedOptions
from lape.measure.bench import Bench
from lape.measure.conditions import NONE, Condition, conditions
from lape.measure.grader import MARKS
from lape.measure.methods import Setting
from lape.measure.prompts import Asking
from lape.measure.questions import checked_native, checked_questions
from lape.model.identity import check_made_with
from lape.options import Candidates, NotNegative
from lape.progress import Progress, each, shown
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
`good` (the first three, and neither of the others) are a proxy for a judge's marks: see `lape.measure.answers.DEFINITIONS`.
`calibrated_on`: how many native answers made the bounds of its fluency. `grade`: 1 to 10 from the endpoint, null without one. `energy_ratio`: the set's
written energy over that of the control neurons, null where none were off.
"""


@dataclass(frozen=True)
class SilencedOptions(JudgedOptions):
    """How answers are measured that a model gives while a language's neurons are off."""

    wish: bool = False
    """Ask for an answer in the question's language, in its own words, as the published script does. Default: the bare question."""
    draws: NotNegative = 1
    """Draws of matched control neurons, on the questions of every language."""
    candidates: Candidates = 8
    """Questions among which an answer's own must be likeliest; 0 is all. Each is a pass over a question and the answer, for every
    answer in the language and fluent: on a CPU, 8 take two to four times as long as writing it took."""


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
    wish = Asking(wish="target" if options.wish else "none")
    setting = Setting("silenced", "asked in its own language", asking=wish, ceiling=True)
    interview = Interview(
        Bench(model, tokenizer, stats, None, options, neurons=neurons),
        {"report": {language: asked[language] for language in languages}},
        before,
        languages,
        options,
        {"report": options.candidates},
        plain=setting,
        scale=MARKS,
        folder=folder,
    )
    cells = _cells(model, neurons, stats, languages, options)
    return pl.concat(
        _answers(interview, setting, *cell) for cell in each(cells, "answering with neurons off", progress)
    )


def _languages(asked: Mapping[str, Sequence[str]], stats: ActivationStats, neurons: LanguageNeurons) -> list[str]:
    languages = [language for language in asked if language in stats.languages and language in neurons.sets]
    if not languages:
        raise TextError(
            f"There are questions in {', '.join(asked)}, statistics of {', '.join(stats.languages)} and neurons of {', '.join(neurons)}. "
            "At least one language must have all three."
        )
    return languages


def _cells(
    model: Any, neurons: LanguageNeurons, stats: ActivationStats, languages: Sequence[str], options: SilencedOptions
) -> list[tuple[str, Condition, str]]:
    """Whose neurons are off, under which condition, and the language asked in: all unedited, then each language's neurons off, and their controls."""
    under = [(NONE.name, NONE)]
    for off in languages:
        found, _ = conditions(model, neurons, stats, off, steer=None, draws=options.draws, seed=options.seed)
        under += [(off, condition) for condition in found]
    if len(under) == 1:
        raise OptionError(
            f"None of {', '.join(languages)} has any neurons. Choose more: lape identify RUN --rate 0.02 --overwrite."
        )
    return [(off, condition, language) for off, condition in under for language in languages]


def _answers(interview: Interview, setting: Setting, off: str, condition: Condition, language: str) -> pl.DataFrame:
    """The judged answers to the questions of a language under a condition: `ANSWERS`."""
    control = condition.name == "control"
    name = f"{off}.{language}.{f'control{condition.draw}' if control else 'own'}"
    pair = language, language
    answers = interview.cell(name, "report", setting, pair, under=condition.on(interview.bench.model))
    named = answers.rename({"language": "identified", "graded": "grade"}).with_columns(
        off=pl.lit(off),
        language=pl.lit(language),
        control=pl.lit(control),
        draw=pl.lit(condition.draw, pl.Int64),
        energy_ratio=pl.lit(condition.energy_ratio, pl.Float64),
    )
    return named.select(*ANSWERS)
