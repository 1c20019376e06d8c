"""The picture of good answers while languages are off."""

from __future__ import annotations

import polars as pl

from lape.figures.heat import grid, heat
from lape.figures.style import Canvas, Paper, Tables


def generation(tables: Tables, paper: Paper) -> Canvas:
    """Share of good answers: neurons off × language asked in."""
    off, asked, values = grid(tables["generation"].filter(~pl.col("control")), "off", "language", "good")
    figure = heat(paper, paper.names(off), paper.names(asked), values, "share of good answers (a proxy)")
    figure.axes[0].set(xlabel="language asked in", ylabel="neurons off")
    return figure
