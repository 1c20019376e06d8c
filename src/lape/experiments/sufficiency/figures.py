"""Pictures of what sets restore, and of what they are needed for."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from lape.experiments.sufficiency.run import PLACES
from lape.figures.dots import interval, rows
from lape.figures.lines import bars
from lape.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    Axes,
    Canvas,
    NothingToDrawError,
    Paper,
    Tables,
    blank,
    ends,
    legend,
)
from lape.measure.controls import MATCHED
from lape.measure.intervals import MEAN

_WIDE = 5.0
"""Inches from which panels stand side by side."""
_SETS, _CONTROLS, _OTHERS = "own set", "controls", "others' sets"


def keeping(tables: Tables, paper: Paper) -> Canvas:
    """A panel for each place in which some set has neurons: what the own set restores, with its interval, beside what else may be left."""
    table = tables["keeping"].drop_nulls("restored")
    places = [place for place in PLACES if place in table["place"]]
    if not places:
        raise NothingToDrawError
    figure, panels = _panels(paper, len(places), table["language"].n_unique())
    for axes, place in zip(panels, places, strict=True):
        _restored(axes, table.filter(place=place), paper)
        axes.set_title(place)
    legend(figure, panels[0])
    return figure


def causes(tables: Tables, paper: Paper) -> Canvas:
    """Three panels: own more than others, less the control's; restored in the first layer, or the fullest where none is in the first; and dose by dose."""
    restored = tables["keeping"].drop_nulls("restored")
    needed = tables["controlled"].filter(control=MATCHED.name).drop_nulls("own_more")
    if not len(restored) or not len(needed):
        raise NothingToDrawError
    place = next(one for one in PLACES if one in restored["place"])
    table = restored.filter(place=place)
    figure, panels = _panels(paper, 3, max(len(table), len(needed)))
    _more(panels[0], needed, paper)
    _restored(panels[1], table, paper)
    panels[1].set_title(f"left alone, {place}")
    _by_dose(panels[2], tables["doses"].filter(language=MEAN))
    legend(figure, panels[1])
    return figure


def _panels(paper: Paper, count: int, languages: int) -> tuple[Canvas, Sequence[Axes]]:
    wide = paper.width >= _WIDE
    high = 1.3 + 0.19 * languages
    shape = {"nrows": 1 if wide else count, "ncols": count if wide else 1, "squeeze": False}
    figure, panels = blank(paper, high if wide else count * high, **shape)
    return figure, list(panels.flat)


def _more(axes: Axes, table: pl.DataFrame, paper: Paper) -> None:
    """How much more the own loss rises than the others', less the same of the control, with its interval; and the control's."""
    for k, row in enumerate(table.iter_rows(named=True)):
        if row["more"] is not None:
            interval(axes, k, *ends(row, "more"), BLUE)
            axes.plot(row["more"], k, "o", color=BLUE, markersize=4, zorder=3)
            axes.plot(row["control_more"], k, "s", color=ORANGE, markersize=3, zorder=3)
    axes.axvline(0, color=GREY, linewidth=0.6)
    rows(axes, [paper.name(row) for row in table["language"]])
    axes.set(xlabel="own − others, less controls' (nats)", title="set off")


def _restored(axes: Axes, table: pl.DataFrame, paper: Paper) -> None:
    for k, row in enumerate(table.iter_rows(named=True)):
        interval(axes, k - 0.15, *ends(row, "restored"), BLUE)
        axes.plot(row["restored"], k - 0.15, "o", color=BLUE, markersize=4, zorder=3)
        for value, mark, colour, at in (("by_control", "s", ORANGE, 0.05), ("by_others", "^", GREEN, 0.25)):
            if row[value] is not None:
                axes.plot(row[value], k + at, mark, color=colour, markersize=3, zorder=3)
    for label, mark, colour in ((_SETS, "o", BLUE), (_CONTROLS, "s", ORANGE), (_OTHERS, "^", GREEN)):
        axes.plot([], [], mark, color=colour, markersize=3.5, label=label)
    axes.axvline(0, color=GREY, linewidth=0.6)
    rows(axes, [f"{paper.name(row['language'])} ({row['neurons']})" for row in table.iter_rows(named=True)])
    axes.set_xlabel("share restored")
    axes.locator_params(axis="x", nbins=5)


def _by_dose(axes: Axes, table: pl.DataFrame) -> None:
    for of, colour in (("set", BLUE), ("matched", ORANGE)):
        one = table.filter(of=of).drop_nulls("own").sort("dose")
        for value, style in (("own", "-"), ("others", ":")):
            axes.errorbar(
                one["dose"],
                one[value],
                bars(one, value),
                color=colour,
                linestyle=style,
                marker="o",
                markersize=3,
                linewidth=0.9,
                capsize=1.5,
            )
    for label, style in (("own", "-"), ("others", ":")):
        axes.plot([], [], color=GREY, linestyle=style, linewidth=0.9, label=label)
    axes.axhline(0, color=GREY, linewidth=0.6)
    axes.set(xlabel="activity taken (%)", ylabel="nats per sentence", title="taken bit by bit")
    axes.set_xticks(table["dose"].unique().sort().to_list())
    axes.legend(frameon=False)
