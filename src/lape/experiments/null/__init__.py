"""The null distribution of LAPE's entropy: slices of one language."""

from __future__ import annotations

from lape.experiments.claim import beside
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import Experiment, Need, NoOptions
from lape.experiments.null.run import NULL, null_entropy
from lape.experiments.table import Table
from lape.figures.captions import counted
from lape.figures.dots import dots
from lape.figures.figure import Figure

__all__ = ["EXPERIMENT", "null_entropy"]


def _run(context: Context, _options: NoOptions) -> Tables:
    return {"null": null_entropy(context.neurons, context.stats, seed=context.options.seed)}


def _missing(context: Context, _options: NoOptions) -> str | None:
    """As many slices as languages are made of the folds."""
    count = len(context.languages)
    if context.stats.folds < count:
        return f"{count} languages need as many slices of one language, and the statistics have {context.stats.folds} folds to make them of"
    empty = [k for k in context.languages if not bool(context.stats[k].tokens[:count].all())]
    return f"{', '.join(empty)}: too little text was recorded for {count} slices" if empty else None


EXPERIMENT = Experiment(
    name="null",
    title="The null entropy",
    about="entropies of slices of one language, beside those of the chosen neurons",
    options=NoOptions,
    run=_run,
    tables={
        "null": Table("Entropies over slices of one language, beside those of the chosen neurons over languages.", NULL)
    },
    needs=(Need(_missing),),
    figures=(
        Figure(
            "null",
            "Entropies beside slices of one language",
            ("null",),
            dots("null", ["language"], "share_below", "share below the null's 1st percentile", 0.9),
            counted(
                "null",
                "Share of chosen neurons whose entropy lies below the 1st percentile of entropies over slices of one language, which differ by "
                "chance alone; dotted: "
                "nine in ten.",
                "neurons",
                "neurons",
                "Wilson's 95 % interval over neurons.",
            ),
        ),
    ),
    claims=beside(__file__),
    study="always",
)
