"""One row per language, family or estimate: a value with its interval, beside what it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from lape.figures.style import BLUE, GREY, Axes, Canvas, NothingToDrawError, Paper, Tables, blank, ends


def rows(axes: Axes, names: Sequence[str]) -> None:
    """A row for each name, from the top. Raises NothingToDrawError where there is none."""
    if not names:
        raise NothingToDrawError
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.5)
    axes.set_axisbelow(True)


def interval(axes: Axes, at: float, low: float | None, high: float | None, colour: str = GREY) -> None:
    """A row's interval as a line, if it has one."""
    if low is not None and high is not None:
        axes.plot([low, high], [at, at], color=colour, linewidth=1.4, solid_capstyle="butt", zorder=2)


def dots(
    name: str,
    labels: Sequence[str],
    value: str,
    label: str,
    line: float | None = None,
    least: float | None = None,
    **where: Any,
) -> Callable[[Tables, Paper], Canvas]:
    """A value a row with its interval, named by some columns; a dotted line for what it is compared with.

    Nothing below `least` is shown.
    """

    def make(tables: Tables, paper: Paper) -> Canvas:
        table = tables[name].filter(**where).drop_nulls(value)
        figure, axes = blank(paper, 0.55 + 0.17 * max(len(table), 2))
        for k, row in enumerate(table.iter_rows(named=True)):
            interval(axes, k, *ends(row, value))
            axes.plot(row[value], k, "o", color=BLUE, markersize=3.5, zorder=3)
        if line is not None:
            axes.axvline(line, color=GREY, linewidth=0.8, linestyle=":")
        rows(axes, [_name(row, labels, paper) for row in table.iter_rows(named=True)])
        axes.set_xlabel(label)
        axes.locator_params(axis="x", nbins=6)  # labels such as −0.125 do not run together
        if least is not None:
            _cut(axes, table, value, least)
        return figure

    return make


def _cut(axes: Axes, table: pl.DataFrame, value: str, least: float) -> None:
    """Show nothing below `least` but that something is there."""
    shown = [
        x
        for row in table.iter_rows(named=True)
        for x in (row[value], *ends(row, value))
        if x is not None and x >= least
    ]
    for k, row in enumerate(table.iter_rows(named=True)):
        if row[value] < least:
            axes.plot(least, k, "<", color=BLUE, markersize=4, clip_on=False, zorder=3)
    most = max(shown, default=least)
    axes.set_xlim(least, most + 0.05 * (most - least) if most > least else least + 1)


def _name(row: dict[str, Any], labels: Sequence[str], paper: Paper) -> str:
    said = {"language": paper.name, "passes": "{} passes".format, "size": "groups of {}".format}
    return ", ".join(said.get(column, str)(row[column]) for column in labels if row[column] is not None)
