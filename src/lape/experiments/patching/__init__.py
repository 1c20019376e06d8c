"""Zero ablation beside mean ablation."""

from __future__ import annotations

from dataclasses import dataclass

from lape.experiments.claim import beside
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import MODEL, PARALLEL, SUMS, Cost, Experiment
from lape.experiments.patching.run import MATRIX, PATCHING, PatchingOptions, patching, patchings
from lape.experiments.table import Table
from lape.figures.captions import sentences
from lape.figures.dots import dots
from lape.figures.figure import Figure
from lape.measure.controlled import CONTROLLED, control_passes
from lape.measure.controls import MATCHED
from lape.options import not_negative

__all__ = ["EXPERIMENT", "patching"]


@dataclass(frozen=True)
class PatchingStudy:
    """What of it a study sets."""

    draws: int = 20
    """Draws of each kind of control neurons, on the language's own text."""
    elsewhere: int = 4
    """How many of the draws are measured on every other language too; random ones never are."""

    def __post_init__(self) -> None:
        not_negative(self, "draws", "elsewhere")


def _run(context: Context, own: PatchingStudy) -> Tables:
    shared = context.options
    options = PatchingOptions(mean="others", **vars(own), resamples=shared.resamples, seed=shared.seed)
    return patchings(context.work, context.neurons, context.stats, options, progress=context.progress)


def _cost(context: Context, options: PatchingStudy) -> Cost:
    """One more condition, since zeroing is measured already, and the controls."""
    languages = len(context.languages)
    drawn = control_passes([MATCHED.name], draws=options.draws, elsewhere=options.elsewhere, others=languages - 1)
    passes = languages * (languages + sum(drawn))
    return Cost(passes, passes * context.options.tokens)


EXPERIMENT = Experiment(
    name="patching",
    title="Zero or mean ablation",
    about="zero ablation beside mean ablation",
    options=PatchingStudy,
    run=_run,
    tables={
        "patching": Table(
            "Change of loss with neurons at 0 and at their mean over the other languages, nats per token.", PATCHING
        ),
        "patched_matrix": Table(
            "Change of loss with neurons at that mean, for every language off and every language evaluated, nats per token.",
            MATRIX,
        ),
        "patched_controlled": Table(
            "Change of loss with a language's set at its mean over the other languages, less that with matched control neurons at theirs, paired: of the "
            "language's own loss (difference, nats per token), and how much more that changes than the mean of the others' does (more, nats per sentence).",
            CONTROLLED,
            key=("language", "control"),
        ),
    },
    needs=(MODEL, PARALLEL, SUMS),
    cost=_cost,
    figures=(
        Figure(
            "patching",
            "Own effect of mean ablation",
            ("patching",),
            dots("patching", ["language"], "patched_own", "own effect of mean ablation (nats per token)", 0.0),
            sentences(
                "patching",
                "Change of a language's own loss, in nats per token, with its neurons set to their mean over the other languages; control neurons so set "
                "stand in the table patched_controlled.",
            ),
        ),
    ),
    claims=beside(__file__),
)
