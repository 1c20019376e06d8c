"""The picture of the frontier."""

from __future__ import annotations

import polars as pl

from lape.figures.lines import bars, height
from lape.figures.style import Canvas, Paper, Tables, blank, legend, series
from lape.measure.intervals import MEAN

_ROUND = (0, 1, 2, 5, 10, 20, 50, 100, 200)


def frontier(tables: Tables, paper: Paper) -> Canvas:
    """Others against own, a line for each selection method over its sizes."""
    figure, axes = blank(paper, height(paper) + 0.5)
    mean = tables["frontier"].filter(pl.col("language") == MEAN).drop_nulls(["own", "others"]).sort("size")
    for k, method in enumerate(mean["method"].unique(maintain_order=True)):
        one = mean.filter(pl.col("method") == method)
        style = series(k) | {"capsize": 1.5, "elinewidth": 0.5}
        axes.errorbar(one["own"], one["others"], bars(one, "others"), bars(one, "own"), label=method, **style)
    axes.set_yscale("symlog", linthresh=1.0)  # a way that wrecks every language must not flatten the others
    others = mean["others"].to_list()
    top = 1.5 * max([1.0, *others])
    axes.set_yticks(*zip(*((tick, f"{tick:g}") for tick in _ROUND if tick <= top), strict=True))
    axes.set_ylim(min([0.0, *others]), top)
    axes.minorticks_off()
    axes.set_xlabel("own language's change of loss (nats per sentence)")
    axes.set_ylabel("mean change of the others' loss (nats per sentence)")
    legend(figure, axes)
    return figure
