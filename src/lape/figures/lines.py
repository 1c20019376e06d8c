"""Lines and points: selection methods, sizes of sets, layers, amounts of text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from lape.figures.style import GREY, Axes, Canvas, Paper, Tables, blank, legend, series, whole


def height(paper: Paper) -> float:
    """Inches that a figure of lines is high."""
    return min(0.72 * paper.width + 0.5, 4.2)


def bars(table: pl.DataFrame, value: str) -> Any:
    """Error bars below and above a column, or None where it has no interval."""
    if table[f"{value}_low"].null_count():
        return None
    middle = table[value].to_numpy()
    beyond = np.stack([middle - table[f"{value}_low"].to_numpy(), table[f"{value}_high"].to_numpy() - middle])
    return np.maximum(beyond, 0.0)


def by_layer(name: str, value: str, label: str, chance: str | None = None) -> Callable[[Tables, Paper], Canvas]:
    """A line for each target language over the layers, and a dotted one for chance."""

    def make(tables: Tables, paper: Paper) -> Canvas:
        figure, axes = blank(paper, height(paper) + 0.4)
        table = tables[name].drop_nulls(value).sort("layer")
        languages(axes, table, "layer", value, paper)
        if chance is not None and len(table):
            axes.axhline(table[chance][0], color=GREY, linewidth=0.8, linestyle=":")
        axes.set(xlabel="layer", ylabel=label)
        whole(axes.xaxis)
        legend(figure, axes, "target")
        return figure

    return make


def languages(axes: Axes, table: pl.DataFrame, x: str, y: str, paper: Paper) -> None:
    """A line for each language."""
    for k, language in enumerate(table["language"].unique(maintain_order=True)):
        one = table.filter(pl.col("language") == language)
        axes.plot(one[x], one[y], label=paper.name(language), **series(k))
