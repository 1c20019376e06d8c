"""Where the neurons lie: a strip of bars for each language, all on one scale."""

from __future__ import annotations

import polars as pl

from lape.figures.style import BLUE, BODY, SMALL, Axes, Canvas, Paper, Tables, blank, whole

_STRIP = 0.34
"""Inches that a language's strip is high."""


def layers(tables: Tables, paper: Paper) -> Canvas:
    """Neurons of each language in each layer; at the side how many in all, above the fullest layer how many there."""
    table = tables["histogram"].sort("layer")
    languages = tables["histogram"]["language"].unique(maintain_order=True).to_list()
    figure, grid = blank(paper, 0.5 + _STRIP * len(languages), nrows=len(languages), sharex=True, squeeze=False)
    top = max(1, max(table["neurons"].to_list(), default=1))
    for axes, language in zip(grid.flat, languages, strict=True):
        _strip(axes, table.filter(pl.col("language") == language), paper.name(language), top)
    grid[-1, 0].tick_params(axis="x", bottom=True, labelbottom=True)
    grid[-1, 0].set_xlabel("layer (at the side: total neurons)")
    figure.get_layout_engine().set(h_pad=0.01, hspace=0.0)
    return figure


def _strip(axes: Axes, table: pl.DataFrame, name: str, top: int) -> None:
    counts, places = table["neurons"].to_list(), table["layer"].to_list()
    axes.bar(places, counts, width=0.8, color=BLUE)
    axes.set(ylim=(0, 1.45 * top), yticks=[])
    whole(axes.xaxis)
    axes.set_xlim(min(places) - 0.6, max(places) + 0.6)
    axes.tick_params(axis="x", bottom=False, labelbottom=False)
    axes.spines["left"].set_visible(False)
    axes.text(-0.015, 0.3, name, transform=axes.transAxes, ha="right", va="center", fontsize=BODY)
    axes.text(1.015, 0.3, f"{sum(counts):,}", transform=axes.transAxes, ha="left", va="center", fontsize=SMALL + 0.5)
    if any(counts):
        fullest = counts.index(max(counts))
        axes.text(places[fullest], max(counts), str(max(counts)), ha="center", va="bottom", fontsize=SMALL)
