"""How all figures look: their size, colours that colour-blind readers tell apart, and marks that do without colour."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import polars as pl

from lape.figures.fonts import BASE

Canvas: TypeAlias = Any
Axes: TypeAlias = Any
Tables: TypeAlias = Mapping[str, pl.DataFrame]
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#7F7F7F")
"""Okabe and Ito's palette; grey in the place of its yellow, which is too light for a line on white."""
MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
DASHES = (
    "-",
    "--",
    "-.",
    ":",
    (0, (5, 1)),
    (0, (3, 1, 1, 1)),
    (0, (1, 1)),
    (0, (5, 3, 1, 3)),
    (0, (7, 2)),
    (0, (2, 2)),
)
BLUE, ORANGE, GREEN, GREY = COLOURS[4], COLOURS[5], COLOURS[3], "#595959"
"""Of single series, and of what stands in the background."""
SMALL, BODY = 6.0, 7.0
"""Points: numbers in cells and ticks, and everything else. Nothing is smaller."""
_LONG = 11
"""Letters of a name that is not broken."""
STYLE: dict[str, Any] = {
    "font.size": BODY,
    "axes.labelsize": BODY,
    "axes.titlesize": BODY,
    "xtick.labelsize": SMALL + 0.5,
    "ytick.labelsize": SMALL + 0.5,
    "legend.fontsize": SMALL + 0.5,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "savefig.bbox": None,
    "savefig.dpi": 300,
    "svg.hashsalt": "lape",
    "svg.fonttype": "none",
}


class NothingToDrawError(Exception):
    """A figure's tables are there and none of their rows has a value for it: raised by what draws lines, rows and heat maps."""


@dataclass(frozen=True)
class Paper:
    """The place that a figure has, and what it calls languages."""

    width: float = 3.3
    """Inches."""
    name: Callable[[str], str] = str
    """Language tag -> what is written; its tag itself, unless told otherwise."""

    def names(self, languages: Iterable[str]) -> list[str]:
        """What several languages are called."""
        return [self.name(language) for language in languages]


def blank(paper: Paper, height: float, **options: Any) -> tuple[Canvas, Any]:
    """A figure as wide as the paper, and its axes (see `Figure.subplots`)."""
    from matplotlib.figure import Figure as Empty

    figure: Canvas = Empty(figsize=(paper.width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.04, h_pad=0.04, wspace=0.02, hspace=0.02)
    return figure, figure.subplots(**options)


def series(k: int) -> dict[str, Any]:
    """The k-th line of a figure: 80 of them differ in colour or mark."""
    n, again = k % len(COLOURS), k // len(COLOURS)  # a colour that comes again has another mark
    return {
        "color": COLOURS[n],
        "marker": MARKS[(k + again) % len(MARKS)],
        "linestyle": DASHES[k % len(DASHES)],
        "markersize": 3,
        "linewidth": 0.9,
    }


def inside(figure: Canvas) -> Canvas:
    """The figure, with nothing beyond its edges: ticks stay as they are now, and labels longer than their axes end where these do.

    Ticks that are chosen anew for each width of the axes, while the width follows their labels, may never settle.
    """
    figure.draw_without_rendering()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            if not hasattr(axis.get_major_locator(), "locs"):
                axis.set_ticks([tick for tick in axis.get_majorticklocs() if low <= tick <= high])
        if axes.xaxis.label.get_window_extent().x1 > figure.bbox.x1:
            axes.xaxis.label.set(horizontalalignment="right", x=1.0)
        if axes.yaxis.label.get_window_extent().y1 > figure.bbox.y1:
            axes.yaxis.label.set(horizontalalignment="right", y=1.0)
    return figure


def legend(figure: Canvas, axes: Axes, title: str | None = None) -> None:
    """What the lines are, below the axes, in as many columns as the width holds. Raises NothingToDrawError where there is none."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        raise NothingToDrawError
    longest = max(wide(label, SMALL + 0.5) for label in labels)
    columns = max(1, min(len(labels), int(figure.get_figwidth() / (0.42 + longest))))
    rows = -(-len(labels) // columns)
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=-(-len(labels) // rows),
        title=title,
        columnspacing=1,
        handlelength=2.2,
    )


def whole(axis: Any) -> None:
    """Ticks at whole numbers alone."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def ends(row: Mapping[str, Any], value: str) -> tuple[float | None, float | None]:
    """A value's interval: in `VALUE_low` and `VALUE_high`, else in `low` and `high`."""
    own = f"{value}_low" in row
    return (row[f"{value}_low"], row[f"{value}_high"]) if own else (row.get("low"), row.get("high"))


def number(value: float, digits: int = 2) -> str:
    """A number as it is printed, with a minus and without a negative nought."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if not float(text) else text.replace("-", "−")


def short(value: float) -> str:
    """A number in three letters, and a minus: .03, 1.8, 12."""
    size = abs(value)
    text = f"{size:.2f}".removeprefix("0") if size < 0.995 else f"{size:.1f}" if size < 9.95 else f"{size:.0f}"
    return f"−{text}" if value < 0 and float(text) else text


@lru_cache(maxsize=4096)
def wide(text: str, size: float, weight: str = "normal") -> float:
    """Inches that a text takes, its longest line."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(BASE if weight == "bold" else None, size=size, weight=weight)
    return max(
        (
            float(TextPath((0, 0), line, prop=font).get_extents().width) / 72
            for line in text.split("\n")
            if line.strip()
        ),
        default=0.0,
    )


def wrapped(name: str) -> str:
    """A long name of several words in two lines."""
    spaces = [at for at, letter in enumerate(name) if letter == " "]
    if len(name) <= _LONG or not spaces:
        return name
    at = min(spaces, key=lambda at: abs(2 * at - len(name)))
    return f"{name[:at]}\n{name[at + 1 :]}"


def across(names: Sequence[str], axes: Axes, room: float, apart: int = 0) -> None:
    """Names below columns that are `room` inches apart, slanted where some would touch the next; the last `apart` by themselves."""
    first = len(names) - apart
    crowded = [any(wide(name, SMALL + 0.5) > 0.9 * room for name in group) for group in (names[:first], names[first:])]
    slanted = [crowded[k >= first] for k in range(len(names))]
    one_line = [name.replace("\n", " ") if slant else name for name, slant in zip(names, slanted, strict=True)]
    axes.set_xticks(axes.get_xticks(), one_line)
    for text, slant in zip(axes.get_xticklabels(), slanted, strict=True):
        if slant:
            text.set(rotation=50, ha="right", rotation_mode="anchor")
