"""Zero ablation beside mean ablation."""

from __future__ import annotations

from lape.experiments.claim import beside
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import MODEL, PARALLEL, SUMS, Cost, Experiment, NoOptions, matrices
from lape.experiments.patching.run import MATRIX, PATCHING, PatchingOptions, patching, patchings
from lape.experiments.table import Table
from lape.figures.captions import sentences
from lape.figures.dots import dots
from lape.figures.figure import Figure

__all__ = ["EXPERIMENT", "patching"]


def _run(context: Context, _options: NoOptions) -> Tables:
    options = PatchingOptions(mean="others", resamples=context.options.resamples, seed=context.options.seed)
    return patchings(context.work, context.neurons, context.stats, options, progress=context.progress)


def _cost(context: Context, _options: NoOptions) -> Cost:
    """One more condition; zeroing is measured already."""
    return matrices(context, 1)


EXPERIMENT = Experiment(
    name="patching",
    title="Zero or mean ablation",
    about="zero ablation beside mean ablation",
    options=NoOptions,
    run=_run,
    tables={
        "patching": Table(
            "Change of loss with neurons at 0 and at their mean over the other languages, nats per token.", PATCHING
        ),
        "patched_matrix": Table(
            "Change of loss with neurons at that mean, for every language off and every language evaluated, nats per token.",
            MATRIX,
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
                "Change of a language's own loss, in nats per token, with its neurons set to their mean over the other languages; without a control.",
            ),
        ),
    ),
    claims=beside(__file__),
)
