"""Heat maps: the change of loss, the overlap of sets, and answers with neurons off. Each cell says its number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from lape.figures.fonts import BASE
from lape.figures.style import (
    BODY,
    SMALL,
    Axes,
    Canvas,
    NothingToDrawError,
    Paper,
    across,
    blank,
    number,
    short,
    wide,
    wrapped,
)

Grid = tuple[list[str], list[str], Any]
Form = Callable[[float], str]
Cell = Callable[[int, int, Form], tuple[str, bool]]
"""Row, column and how numbers are written -> what stands in a cell, and whether in bold."""
_GAP = 0.35
"""Between languages and controls, in columns."""
_LINE = 0.2
"""Inches a row has at least."""


def grid(table: pl.DataFrame, row: str, column: str, value: str) -> Grid:
    """The names of rows and of columns, and a column of numbers as (rows, columns), nan where there is none."""
    names = table[row].unique(maintain_order=True).to_list()
    columns = table[column].unique(maintain_order=True).to_list()
    values = np.full((len(names), len(columns)), np.nan)
    for a, b, x in table.select(row, column, value).iter_rows():
        values[names.index(a), columns.index(b)] = np.nan if x is None else x
    return names, columns, values


def heat(
    paper: Paper,
    names: Sequence[str],
    columns: Sequence[str],
    values: Any,
    label: str,
    *,
    cell: Cell | None = None,
    apart: int = 0,
    tall: bool = False,
) -> Canvas:
    """A heat map whose cells say their numbers where they have room; colours grow with the root, from 0.

    The last `apart` columns stand a little apart; `tall` rows have room for two lines. Raises NothingToDrawError without any number.
    """
    from matplotlib.colors import PowerNorm

    if not np.isfinite(values).any():
        raise NothingToDrawError

    names, columns = [wrapped(name) for name in names], [wrapped(name) for name in columns]
    room = room_of(paper, names, len(columns) + (_GAP if apart else 0))
    line = 0.3 if tall else 0.22 if any("\n" in name for name in names) else _LINE
    figure, axes = blank(paper, 0.75 + max(line, min(room, 0.34)) * len(names))
    edges = np.arange(len(columns) + 1.0)
    first = len(columns) - apart
    top = max(float(np.nanmax(values, initial=0)), 1e-9)
    norm = PowerNorm(0.5, 0, top)
    for start, stop, shift in ((0, first, 0.0), (first, len(columns), _GAP)):
        if stop > start:
            mesh = axes.pcolormesh(
                edges[start : stop + 1] + shift,
                np.arange(len(names) + 1),
                np.ma.masked_invalid(np.clip(values[:, start:stop], 0, None)),
                cmap="cividis",
                norm=norm,
                edgecolors="white",
                linewidth=0.5,
            )
    middles = edges[:-1] + 0.5 + np.where(np.arange(len(columns)) >= first, _GAP, 0)
    _write(axes, middles, values, mesh, cell or (lambda i, j, form: (form(values[i, j]), False)), room)
    axes.set_yticks(np.arange(len(names)) + 0.5, names)
    axes.set_xticks(middles)
    across(columns, axes, room, apart)
    axes.set_ylim(len(names), 0)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(mesh, ax=axes, orientation="horizontal", aspect=40, pad=0.02, shrink=0.9)
    bar.set_label(label, fontsize=BODY)
    bar.outline.set_visible(False)
    bar.ax.minorticks_off()
    bar.set_ticks(_ticks(top), labels=[f"{tick:g}" for tick in _ticks(top)])
    return figure


def _ticks(top: float) -> list[float]:
    """Round numbers from 0 to `top`, none too near the next where colours grow with the root."""
    round_ones = [0.0, *(k * 10.0**power for power in range(-3, 4) for k in (1, 2, 3, 4, 5, 6, 8))]
    kept: list[float] = []
    for tick in sorted((one for one in round_ones if one <= top), reverse=True):
        if not kept or (kept[-1] / top) ** 0.5 - (tick / top) ** 0.5 > 0.14:
            kept.append(tick)
    return kept[::-1] if not kept[-1] else [0.0, *kept[::-1][1:]]


def room_of(paper: Paper, names: Sequence[str], columns: float) -> float:
    """Inches that a column has, about."""
    return (paper.width - 0.33 - max((wide(name, SMALL + 0.5) for name in names), default=0)) / max(columns, 1)


def _write(axes: Axes, middles: Any, values: Any, mesh: Any, cell: Cell, room: float) -> None:
    """The numbers, each in black or white, whichever is read better on its cell; none where they would touch."""
    for form, between in ((number, 0.05), (short, 0.008)):
        said = {(i, j): cell(i, j, form) for i, j in np.ndindex(values.shape)}
        said = {place: (text, bold) for place, (text, bold) in said.items() if "nan" not in text}
        if _apart(said, room - between):
            break
    else:
        return
    for (i, j), (text, bold) in said.items():
        known = np.isfinite(values[i, j])
        colour = legible(mesh.cmap(mesh.norm(max(values[i, j], 0)))) if known else "black"
        style = {"fontsize": SMALL, "fontweight": "bold" if bold else "normal", "fontfamily": BASE}
        axes.text(middles[j], i + 0.5, text, ha="center", va="center", color=colour, **style)


def _apart(said: Mapping[tuple[int, int], tuple[str, bool]], room: float) -> bool:
    """Whether no text touches the next in its row, where their middles are `room` inches apart."""
    known = {one: wide(one[0], SMALL, "bold" if one[1] else "normal") for one in set(said.values())}
    size = {place: known[one] for place, one in said.items()}
    return all((size[i, j] + size.get((i, j + 1), size[i, j] / 2)) / 2 <= room for i, j in size)


def luminance(colour: Any) -> float:
    """Relative luminance of an RGB colour, as WCAG 2 defines it."""
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3])
    return float(0.2126 * r + 0.7152 * g + 0.0722 * b)


def legible(colour: Any) -> str:
    """Black or white: which of them stands out more against a colour (by 4.5 to 1 at least)."""
    behind = luminance(colour)
    return "black" if (behind + 0.05) / 0.05 >= 1.05 / (behind + 0.05) else "white"
