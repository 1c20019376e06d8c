"""One row a language, family or estimate: a value with its interval, beside what it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from lape.detect.stability import UNION
from lape.figures.style import BLUE, GREEN, GREY, ORANGE, SMALL, Axes, Figure, Paper, Tables, blank, ends, legend

_CONTROLS = (("matched", "s", ORANGE), ("random", "^", GREEN))
_ROLES = (("source", "o", BLUE), ("target", "s", ORANGE), ("third", "^", GREEN))


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(len(names), 1) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.5)
    axes.set_axisbelow(True)


def _interval(axes: Axes, at: float, low: float | None, high: float | None, colour: str = GREY) -> None:
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
) -> Callable[[Tables, Paper], Figure]:
    """A value a row with its interval, named by some columns; a dotted line for what it is compared with.

    Nothing below `least` is shown.
    """

    def make(tables: Tables, paper: Paper) -> Figure:
        table = tables[name].filter(**where).drop_nulls(value)
        figure, axes = blank(paper, 0.55 + 0.17 * max(len(table), 2))
        for k, row in enumerate(table.iter_rows(named=True)):
            _interval(axes, k, *ends(row, value))
            axes.plot(row[value], k, "o", color=BLUE, markersize=3.5, zorder=3)
        if line is not None:
            axes.axvline(line, color=GREY, linewidth=0.8, linestyle=":")
        _rows(axes, [_name(row, labels, paper) for row in table.iter_rows(named=True)])
        axes.set_xlabel(label)
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
    axes.set_xlim(least, max(shown, default=least) + 0.05 * (max(shown, default=least + 1) - least))


def _name(row: dict[str, Any], labels: Sequence[str], paper: Paper) -> str:
    said = {"language": paper.name, "passes": "{} passes".format, "size": "groups of {}".format}
    return ", ".join(said.get(column, str)(row[column]) for column in labels)


def own(tables: Tables, paper: Paper) -> Figure:
    """A language's own neurons off, on its own text: its interval, and the mean and largest draw of both controls."""
    table = tables["perplexity"].filter(pl.col("off") == pl.col("language"))
    figure, axes = blank(paper, 0.95 + 0.26 * len(table))
    few = min(table["units"].to_list(), default=0)
    label = "own" if not table["low"].null_count() else f"own (no interval: {few} units)"
    for k, row in enumerate(table.iter_rows(named=True)):
        _interval(axes, k - 0.2, row["low"], row["high"], BLUE)
        axes.plot(row["delta_token"], k - 0.2, "o", color=BLUE, markersize=4, zorder=3, label=label if not k else None)
        for step, (kind, mark, colour) in enumerate(_CONTROLS):
            mean, largest, at = row[f"{kind}_mean"], row[f"{kind}_max"], k + 0.05 + 0.2 * step
            if mean is not None:
                axes.plot([mean, largest], [at, at], color=colour, linewidth=0.8, zorder=2)
                axes.plot(mean, at, mark, color=colour, markersize=3, zorder=3)
    for kind, mark, colour in _CONTROLS:
        if table[f"{kind}_mean"].count():
            axes.plot(
                [],
                [],
                mark,
                color=colour,
                markersize=3,
                linestyle="-",
                linewidth=0.8,
                label=f"{kind} neurons" if paper.width > 4 else kind,
            )
    axes.axvline(0, color=GREY, linewidth=0.6)
    _rows(axes, [f"{paper.name(row['off'])} ({row['neurons']})" for row in table.iter_rows(named=True)])
    axes.set(xlabel="change of the language's own loss (nats a token)", ylabel="neurons off (how many)")
    legend(figure, axes)
    return figure


def reliability(tables: Tables, paper: Paper) -> Figure:
    """The median Jaccard of the sets of two halves of the text, down to its 5th percentile, beside chance."""
    table = tables["reliability"]
    figure, axes = blank(paper, 0.85 + 0.17 * len(table))
    for k, row in enumerate(table.iter_rows(named=True)):
        if row["median"] is None:
            few = f"{row['neurons']} neurons: too few to say" if row["halvings"] else "the text cannot be halved"
            axes.text(0.02, k, few, va="center", color=GREY, fontsize=SMALL)
            continue
        _interval(axes, k, row["p5"], row["median"])
        axes.plot(row["median"], k, "o", color=BLUE, markersize=3.5, zorder=3)
        axes.plot(row["chance"], k, "|", color=ORANGE, markersize=7, markeredgewidth=1.4, zorder=3)
    axes.plot(
        [],
        [],
        "-o",
        color=GREY,
        markerfacecolor=BLUE,
        markeredgecolor=BLUE,
        markersize=3.5,
        label="median, to the 5th percentile",
    )
    axes.plot([], [], "|", color=ORANGE, markersize=7, markeredgewidth=1.4, label="chance")
    _rows(axes, ["all" if row == UNION else paper.name(row) for row in table["language"]])
    axes.set(xlabel="Jaccard of the sets of two halves of the text", xlim=(-0.02, 1.02))
    legend(figure, axes)
    return figure


def forcing_rows(tables: Tables) -> pl.DataFrame:
    """Every family on the reporting questions, best first."""
    whole = tables["forcing"].filter(source="all", target="all", split="report")
    return whole.sort("good_over_ceiling", descending=True, nulls_last=True)


def forcing(tables: Tables, paper: Paper) -> Figure:
    """Answers in the language, and good ones, each over what asking in that language gives."""
    table = forcing_rows(tables)
    figure, both = blank(paper, 0.65 + 0.17 * len(table), ncols=2, sharey=True)
    for axes, value, label in zip(both, ("in_language", "good"), ("in the language", "good"), strict=True):
        for k, row in enumerate(table.iter_rows(named=True)):
            _interval(axes, k, *ends(row, f"{value}_over_ceiling"))
            if row[f"{value}_over_ceiling"] is not None:
                axes.plot(row[f"{value}_over_ceiling"], k, "o", color=BLUE, markersize=3.5, zorder=3)
        axes.axvline(1, color=GREY, linewidth=0.8, linestyle=":")
        axes.set_title(label)
        _rows(axes, table["family"].to_list())
    figure.supxlabel("share of answers ÷ share when asked in the language", fontsize=7)
    return figure


def cost_rows(tables: Tables) -> pl.DataFrame:
    """Mean change of loss of each family on text of a pair's source, target and the other languages."""
    return tables["costs"].group_by("family", "role", maintain_order=True).agg(pl.col("delta_token").mean())


def costs(tables: Tables, paper: Paper) -> Figure:
    """What each family's edit costs on text, where it acts on every token."""
    table = cost_rows(tables)
    names = table["family"].unique(maintain_order=True).to_list()
    figure, axes = blank(paper, 0.85 + 0.22 * len(names))
    for step, (role, mark, colour) in enumerate(_ROLES):
        one = table.filter(role=role).drop_nulls("delta_token")
        at = [names.index(family) + 0.2 * (step - 1) for family in one["family"]]
        axes.plot(one["delta_token"], at, mark, color=colour, markersize=3.5, linestyle="none", label=role)
    axes.axvline(0, color=GREY, linewidth=0.6)
    _rows(axes, names)
    axes.set_xlabel("change of loss (nats a token)")
    legend(figure, axes)
    return figure
