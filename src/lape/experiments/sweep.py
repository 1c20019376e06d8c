"""More neurons, more effect: LAPE's own and others' effect at several shares of all neurons."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from lape.detect.identify import identify
from lape.experiments.claim import beside
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import MODEL, PARALLEL, Cost, Experiment, matrices
from lape.experiments.table import Table
from lape.figures.captions import sentences
from lape.figures.figure import Figure
from lape.figures.lines import bars, height
from lape.figures.style import Canvas, NothingToDrawError, Paper, blank, legend, series
from lape.measure.effects import effects
from lape.measure.frontier import FRONTIER, GROWTH, frontier, growth
from lape.measure.intervals import MEAN
from lape.options import Options, Rate


@dataclass(frozen=True)
class SweepStudy(Options):
    """What of it a study sets."""

    rates: tuple[Rate, ...] = (0.001, 0.05)
    """Shares of all neurons at which LAPE's own effect is measured, beside the published 1 %."""


def _run(context: Context, options: SweepStudy) -> Tables:
    space, shared = len(context.stats.space), context.options
    sets = {
        ("lape", round(rate * space)): identify(context.stats, reliability=False, rate=rate)
        for rate in sorted({*options.rates, 0.01})
    }
    measured = effects(context.work, sets, context.languages, context.progress)
    table = frontier(measured, context.over, shared.resamples, shared.seed)
    grown = growth(measured, "lape", context.over, shared.resamples, shared.seed)
    return {"sweep": table.with_columns((pl.col("size") / space).alias("rate")), "sweep_growth": grown}


def _cost(context: Context, options: SweepStudy) -> Cost:
    """One condition a rate; the published one is measured already."""
    return matrices(context, len(options.rates))


def _draw(tables: Tables, paper: Paper) -> Canvas:
    """Own and others over the share of neurons kept."""
    figure, axes = blank(paper, height(paper))
    mean = tables["sweep"].filter(pl.col("language") == MEAN).drop_nulls(["own", "others"]).sort("rate")
    if not len(mean):
        raise NothingToDrawError
    for k, value in enumerate(("own", "others")):
        axes.errorbar(100 * mean["rate"], mean[value], bars(mean, value), label=value, capsize=2, **series(k))
    axes.set(xscale="log", xlabel="neurons kept (% of all)", ylabel="change of loss (nats per sentence)")
    axes.set_xticks(100 * mean["rate"], [f"{100 * rate:.2g}" for rate in mean["rate"]])
    axes.minorticks_off()
    legend(figure, axes)
    return figure


EXPERIMENT = Experiment(
    name="sweep",
    title="Set sizes",
    about="own effect and others by number of neurons",
    options=SweepStudy,
    run=_run,
    tables={
        "sweep": Table(
            "LAPE's own effect and others, in nats per sentence, at several shares of all neurons.",
            {**FRONTIER, "rate": pl.Float64},
        ),
        "sweep_growth": Table(
            "The paired change of the mean own effect, in nats per sentence, from one size to a larger one.", GROWTH
        ),
    },
    needs=(MODEL, PARALLEL),
    cost=_cost,
    figures=(
        Figure(
            "sweep",
            "Effect by number of neurons",
            ("sweep",),
            _draw,
            sentences(
                "sweep",
                "Change of loss (nats per sentence, means over languages) at several shares of all neurons kept by LAPE.",
            ),
        ),
    ),
    claims=beside(__file__),
)
