"""Lines and points: ways of choosing, sizes of sets, layers, amounts of text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from lape.figures.style import GREY, SMALL, Axes, Figure, Paper, Tables, blank, legend, series, whole
from lape.measure.intervals import MEAN

_ROUND = (0, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


def _height(paper: Paper) -> float:
    return min(0.72 * paper.width + 0.5, 4.2)


def _bars(table: pl.DataFrame, value: str) -> Any:
    """Error bars below and above a column, or None where it has no interval."""
    if table[f"{value}_low"].null_count():
        return None
    middle = table[value].to_numpy()
    bars = np.stack([middle - table[f"{value}_low"].to_numpy(), table[f"{value}_high"].to_numpy() - middle])
    return np.maximum(bars, 0.0)


def frontier(tables: Tables, paper: Paper) -> Figure:
    """Others against own, a line for each way of choosing over its sizes."""
    figure, axes = blank(paper, _height(paper) + 0.5)
    mean = tables["frontier"].filter(pl.col("language") == MEAN).drop_nulls("own").sort("size")
    for k, method in enumerate(mean["method"].unique(maintain_order=True)):
        one = mean.filter(pl.col("method") == method)
        style = series(k) | {"capsize": 1.5, "elinewidth": 0.5}
        axes.errorbar(one["own"], one["others"], _bars(one, "others"), _bars(one, "own"), label=method, **style)
    axes.set_yscale("symlog", linthresh=0.1)  # a way that wrecks every language must not flatten the others
    others = mean["others"].drop_nulls().to_numpy()
    top = 1.5 * max(0.1, *others)
    axes.set_yticks(*zip(*((tick, f"{tick:g}") for tick in _ROUND if tick <= top), strict=True))
    axes.set_ylim(min(0.0, *others), top)
    axes.minorticks_off()
    axes.set_xlabel("own language's change of loss (nats a token)")
    axes.set_ylabel("mean change of the others")
    legend(figure, axes)
    return figure


def sweep(tables: Tables, paper: Paper) -> Figure:
    """Own and others over the share of neurons kept."""
    figure, axes = blank(paper, _height(paper))
    mean = tables["sweep"].filter(pl.col("language") == MEAN).sort("rate")
    for k, value in enumerate(("own", "others")):
        axes.errorbar(100 * mean["rate"], mean[value], _bars(mean, value), label=value, capsize=2, **series(k))
    axes.set(xscale="log", xlabel="neurons kept (% of all)", ylabel="change of loss (nats a token)")
    axes.set_xticks(100 * mean["rate"], [f"{100 * rate:.2g}" for rate in mean["rate"]])
    axes.minorticks_off()
    legend(figure, axes)
    return figure


def by_layer(value: str, label: str, chance: str | None = None) -> Callable[[Tables, Paper], Figure]:
    """A line for each target language over the layers, and a dotted one for chance."""

    def make(tables: Tables, paper: Paper) -> Figure:
        figure, axes = blank(paper, _height(paper) + 0.4)
        table = tables["dominance"].sort("layer")
        _languages(axes, table, "layer", value, paper)
        if chance is not None:
            axes.axhline(table[chance][0], color=GREY, linewidth=0.8, linestyle=":")
        axes.set(xlabel="layer", ylabel=label)
        whole(axes.xaxis)
        legend(figure, axes, "target")
        return figure

    return make


def amount(tables: Tables, paper: Paper) -> Figure:
    """How alike the sets of two halves are, over the tokens in each."""
    figure, axes = blank(paper, _height(paper) + 0.4)
    table = tables["amount"].drop_nulls("median").sort("tokens")
    _languages(axes, table, "tokens", "median", paper)
    axes.set(xscale="log", xlabel="tokens a language in each half", ylabel="Jaccard of the halves' sets")
    axes.set_ylim(top=1.0)
    sizes = table["tokens"].unique().sort().to_list()
    kept = sizes[:: -(-len(sizes) // 5)] if sizes else []
    axes.set_xticks(kept, [f"{size:,}" for size in kept])
    axes.minorticks_off()
    legend(figure, axes)
    return figure


def _languages(axes: Axes, table: pl.DataFrame, x: str, y: str, paper: Paper) -> None:
    for k, language in enumerate(table["language"].unique(maintain_order=True)):
        one = table.filter(pl.col("language") == language)
        axes.plot(one[x], one[y], label=paper.name(language), **series(k))


def resource(tables: Tables, paper: Paper) -> Figure:
    """The own effect against the bits of a parallel sentence, a point a language."""
    figure, axes = blank(paper, _height(paper))
    for k, row in enumerate(tables["resource"].iter_rows(named=True)):
        axes.plot(row["bits_per_sentence"], row["own_per_sentence"], label=paper.name(row["language"]), **series(k))
    axes.margins(0.08)
    axes.set(xlabel="bits a parallel sentence, nothing off", ylabel="own effect (nats a sentence)")
    _annotate(figure, axes, tables["resource"], paper)
    return figure


def _annotate(figure: Figure, axes: Axes, table: pl.DataFrame, paper: Paper) -> None:
    """A name at each point, at the first of eight places where it touches no other name or point."""
    figure.draw_without_rendering()
    points = table.select("bits_per_sentence", "own_per_sentence").to_numpy()
    taken = [box for at in points for box in [_around(axes.transData.transform(at), 4)]]
    for language, at in zip(table["language"], points, strict=True):
        for dx, dy, ha, va in _PLACES:
            text = axes.annotate(
                paper.name(language),
                at,
                xytext=(dx, dy),
                textcoords="offset points",
                fontsize=SMALL + 0.5,
                ha=ha,
                va=va,
            )
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in taken) and axes.bbox.padded(2).containsx(box.x1):
                break
            text.remove()
        else:
            text = axes.annotate(
                paper.name(language), at, xytext=(4, 3), textcoords="offset points", fontsize=SMALL + 0.5
            )
            box = text.get_window_extent()
        taken.append(box)


_PLACES = (
    (4, 3, "left", "bottom"),
    (4, -3, "left", "top"),
    (-4, 3, "right", "bottom"),
    (-4, -3, "right", "top"),
    (0, 5, "center", "bottom"),
    (0, -5, "center", "top"),
    (6, 0, "left", "center"),
    (-6, 0, "right", "center"),
)


def _around(at: Any, pixels: float) -> Any:
    from matplotlib.transforms import Bbox

    return Bbox.from_extents(at[0] - pixels, at[1] - pixels, at[0] + pixels, at[1] + pixels)
