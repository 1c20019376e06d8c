"""Zeroing or mean-patching: is the damage of switching neurons off that of their activity, or of a value they never have?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from torch import Tensor, nn

from lape.data.corpus import TextOptions
from lape.data.texts import Texts
from lape.errors import TextError
from lape.measure.ablation import Ablations, refuse_recorded
from lape.measure.bootstrap import Floats, Resamples, by_unit
from lape.measure.controlled import controlled, lines_of, sets_and_controls, unedited_lines
from lape.measure.controls import MATCHED
from lape.measure.intervals import ENDS, resampled, selectivity
from lape.measure.result import Result
from lape.options import Tokens, given, not_negative, positive
from lape.progress import Progress, each, shown
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PATCHING: dict[str, Any] = {
    "language": pl.String,
    "neurons": pl.Int64,
    **{f"off_own{end}": pl.Float64 for end in ENDS},
    **resampled("patched_own"),
    **{f"own{end}": pl.Float64 for end in ENDS},
    **{
        f"{how}{name}{end}": pl.Float64
        for name in ("others", "selectivity")
        for how in ("off_", "patched_", "")
        for end in ENDS
    },
    "units": pl.Int64,
}
"""A row per language whose set is changed: `neurons`; the change on the language itself, zeroed (`off_own`) and mean-patched
(`patched_own`), and their difference patched − zeroed (`own`); the same on the others' mean (`off_others`, `patched_others`,
`others`; null where only one language is evaluated) and for `selectivity`, own / (own + others), each with `_low`, `_high`, and what is judged
with `_quantiles`; `units`.
"""
MATRIX: dict[str, Any] = {
    **dict.fromkeys(("off", "language"), pl.String),
    **dict.fromkeys(("zeroed", "patched", "difference", "low", "high"), pl.Float64),
}
"""A row per set changed (`off`) and language evaluated: `zeroed`, `patched`, and `difference` = patched − zeroed with its interval
`low`, `high`.
"""


@dataclass(frozen=True)
class PatchingOptions(TextOptions):
    """How zeroing neurons is compared with setting them to their mean."""

    mean: Literal["all", "others"] = "all"
    """Over which languages: all that were recorded, or all but the one whose set it is."""
    draws: int = 20
    """Draws of matched control neurons, set to their mean on the language itself."""
    elsewhere: int = 4
    """How many of the draws are measured on every other language too."""
    resamples: int = 2000
    """Bootstrap resamples of the units of text behind the 95 % intervals."""
    seed: int = 0
    """Seed of the control draws and the bootstrap."""
    allow_recorded: bool = False
    """Evaluate even text that the neurons were found on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative(self, "draws", "elsewhere")
        positive(self, "resamples")


def patching(
    model: PreTrainedModel | nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    neurons: LanguageNeurons,
    stats: ActivationStats,
    texts: Texts,
    *,
    tokens: Tokens | None = None,
    document: Literal["file", "line"] = "file",
    column: str = "text",
    bos: Literal["auto", "always", "never"] = "auto",
    row_tokens: int = 512,
    batch_tokens: int = 2048,
    one_per_row: bool = False,
    mean: Literal["all", "others"] = "all",
    draws: int = 20,
    elsewhere: int = 4,
    resamples: int = 2000,
    seed: int = 0,
    allow_recorded: bool = False,
    folder: Path | None = None,
    progress: Progress = shown,
) -> Result:
    """Zero ablation beside mean ablation: each language's neurons off, and set to their mean activation over all recorded languages instead.

    With `mean="others"` the mean leaves the set's own language out. The mean over all holds that language's own high activations, so
    it switches the language half on wherever another is read: it costs the others much and the language little. The mean over the
    others is the fairer twin of zero: it is what the neurons do where the language is not read.

    An activation of 0 may be one that a neuron never has, and then zeroing damages by that alone. In a gated MLP the activation is
    the gate's, so that the product with `up` still follows the text.

    `texts`: language tag -> other text than was recorded, parallel, so that a unit is the same in each. `folder`: where losses are
    kept; it must belong to this model, text and options. Gives the tables `patching` (`PATCHING`) and `patched_matrix` (`MATRIX`): changes of the loss
    in nats per token, with 95 % intervals over units of text, paired over both conditions and all languages, null under 20 units; and `patched_controlled`
    (`lape.measure.controlled.CONTROLLED`), the sets at their mean beside `draws` of control neurons at theirs, matched in how much that changes them,
    E[(a − mean)²]·‖w‖² (`lape.measure.ablation.Ablations.moved`), as is `energy_ratio`. Ours; asked by LAPE's critics.

    Raises TextError for languages without text, MismatchError for another model's neurons or statistics, or for text that was recorded.

    Example:
        >>> from lape.experiments.patching.run import patching
        >>> both = {language: texts[language] for language in ("fr", "zh")}
        >>> patching(model, tokenizer, neurons, stats, both, tokens=200, draws=2, elsewhere=1, resamples=50)
        Result of 3 tables
          patching: 2 rows × ... columns
          patched_matrix: 4 rows × 7 columns
          patched_controlled: 2 rows × ... columns
    """
    options = given(PatchingOptions, locals())
    work = Ablations(model, tokenizer, texts, options, folder=folder, progress=progress)
    if not options.allow_recorded:
        refuse_recorded(work.corpora, neurons)
    return patchings(work, neurons, stats, options, progress=progress)


def patchings(
    work: Ablations,
    neurons: LanguageNeurons,
    stats: ActivationStats,
    options: PatchingOptions,
    *,
    progress: Progress = shown,
) -> Result:
    """`patching` on text that is prepared already: zeroed cells that were measured before are not run again."""
    work.check(neurons=neurons, statistics=stats)
    sets = [language for language in neurons if language in work.languages]
    if not sets:
        raise TextError(
            f"There is no text in a language that has neurons. Text: {', '.join(work.languages)}; neurons: {', '.join(neurons)}."
        )
    work.base(progress)
    drawn = Resamples(work.units, options.resamples, options.seed)
    every = stats.overall_mean()
    means = {off: every if options.mean == "all" else stats.others_mean(off) for off in sets}
    changes = _changes(work, neurons, means, drawn, progress)
    summed = _summary(work, neurons, sets, changes, drawn)
    return Result(
        {
            "patching": summed,
            "patched_matrix": _matrix(work.languages, sets, changes, drawn),
            "patched_controlled": _beside_controls(work, neurons, means, options, progress),
        }
    )


def _beside_controls(
    work: Ablations,
    neurons: LanguageNeurons,
    means: Mapping[str, Tensor],
    options: PatchingOptions,
    progress: Progress,
) -> pl.DataFrame:
    """The sets at their mean less their controls at theirs, which are the nearest in how much that changes them."""
    how: dict[str, Any] = {name: getattr(options, name) for name in ("draws", "elsewhere", "seed")}
    moved = {off: work.moved(off, mean) for off, mean in means.items()}
    conditions = sets_and_controls(work, neurons, controls=[MATCHED.name], energies=moved, **how)
    runs = [(one, k) for one in conditions if one.off in means for k in one.languages(work)]
    frames = [
        lines_of(work, condition, language, work.at(condition.neurons, means[condition.off], language))
        for condition, language in each(runs, "setting sets and controls to their mean", progress)
    ]
    lines = pl.concat([*unedited_lines(work), *frames])
    table = controlled(lines, list(means), resamples=options.resamples, seed=options.seed)
    return table.filter(control=MATCHED.name)


def _changes(
    work: Ablations, neurons: LanguageNeurons, means: Mapping[str, Tensor], drawn: Resamples, progress: Progress
) -> dict[str, Floats]:
    """`zeroed` and `patched`: (sets, languages, rows of the resamples) change in nats per token."""
    result = {name: np.zeros((len(means), len(work.languages), len(drawn.weights))) for name in ("zeroed", "patched")}
    cells = [(k, off, j, language) for k, off in enumerate(means) for j, language in enumerate(work.languages)]
    for k, off, j, language in each(cells, "zeroing and patching", progress):
        before, unit = work.unedited(language), work.unit(language)
        tokens = np.maximum(drawn.sums(by_unit(unit, before.tokens, drawn.count)), 1e-9)
        after = {"zeroed": work.off(neurons[off], language), "patched": work.at(neurons[off], means[off], language)}
        for name, loss in after.items():
            result[name][k, j] = drawn.sums(by_unit(unit, loss.nll - before.nll, drawn.count)) / tokens
    return result


def _summary(
    work: Ablations, neurons: LanguageNeurons, sets: Sequence[str], changes: dict[str, Floats], drawn: Resamples
) -> pl.DataFrame:
    rows = []
    for k, off in enumerate(sets):
        at = work.languages.index(off)
        rest = [j for j in range(len(work.languages)) if j != at]
        own = {name: change[k, at] for name, change in changes.items()}
        row: dict[str, Any] = {"language": off, "neurons": len(neurons[off]), "units": work.units}
        row |= _both("own", own["zeroed"], own["patched"], drawn)
        if rest:
            others = {name: change[k, rest].mean(0) for name, change in changes.items()}
            row |= _both("others", others["zeroed"], others["patched"], drawn)
            shares = {name: selectivity(own[name], others[name]) for name in changes}
            row |= _both("selectivity", shares["zeroed"], shares["patched"], drawn)
        rows.append(row)
    return pl.DataFrame(rows, schema=PATCHING)


def _both(name: str, zeroed: Floats, patched: Floats, drawn: Resamples) -> dict[str, Any]:
    """A quantity in both conditions, and its paired difference, with intervals."""
    return (
        drawn.named(f"off_{name}", zeroed)
        | drawn.named(f"patched_{name}", patched, quantiles=name == "own")
        | drawn.named(name, patched - zeroed)
    )


def _matrix(
    languages: Sequence[str], sets: Sequence[str], changes: dict[str, Floats], drawn: Resamples
) -> pl.DataFrame:
    rows = []
    for k, off in enumerate(sets):
        for j, language in enumerate(languages):
            zeroed, patched = changes["zeroed"][k, j], changes["patched"][k, j]
            row = {"off": off, "language": language, "zeroed": float(zeroed[0]), "patched": float(patched[0])}
            rows.append(row | drawn.plain("difference", patched - zeroed))
    return pl.DataFrame(rows, schema=MATRIX)
