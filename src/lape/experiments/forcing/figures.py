"""Pictures of the ways of forcing a language and what they cost."""

from __future__ import annotations

import polars as pl

from lape.figures.dots import dots, interval, rows
from lape.figures.style import BLUE, GREEN, GREY, ORANGE, Canvas, Paper, Tables, blank, ends, legend

_ROLES = (("source", "o", BLUE), ("target", "s", ORANGE), ("third", "^", GREEN))


def forcing_rows(tables: Tables) -> pl.DataFrame:
    """Every family on the reporting questions, best first."""
    whole = tables["forcing"].filter(source="all", target="all", split="report")
    return whole.sort("good", descending=True, nulls_last=True)


def against_ceiling(table: pl.DataFrame) -> str:
    """How shares stand beside the ceiling's: `_minus_ceiling`, or `_over_ceiling` in what an earlier version measured."""
    return "_over_ceiling" if table["good_minus_ceiling"].is_null().all() else "_minus_ceiling"


def forcing(tables: Tables, paper: Paper) -> Canvas:
    """Answers in the language, and good ones, each less what asking in that language gives."""
    table = forcing_rows(tables)
    of = against_ceiling(table)
    over = of == "_over_ceiling"
    figure, both = blank(paper, 0.65 + 0.17 * len(table), ncols=2, sharey=True)
    for axes, value, label in zip(both, ("in_language", "good"), ("in the language", "good"), strict=True):
        for k, row in enumerate(table.iter_rows(named=True)):
            interval(axes, k, *ends(row, f"{value}{of}"))
            if row[f"{value}{of}"] is not None:
                axes.plot(row[f"{value}{of}"], k, "o", color=BLUE, markersize=3.5, zorder=3)
        axes.axvline(float(over), color=GREY, linewidth=0.8, linestyle=":")
        axes.set_title(label)
        rows(axes, table["family"].to_list())
    figure.supxlabel(f"share of answers {'÷' if over else '−'} share when asked in the language", fontsize=7)
    return figure


def differences(tables: Tables, paper: Paper) -> Canvas:
    """Good answers with neurons edited less those of each other family."""
    measure = difference_of(tables["forcing_differences"])
    label = "share of good answers, neurons − family" + (" (over the ceiling)" if "over" in measure else "")
    return dots("forcing_differences", ["family"], "difference", label, 0.0, measure=measure)(tables, paper)


def difference_of(table: pl.DataFrame) -> str:
    """What is compared: `good`, or `good_over_ceiling` in what an earlier version measured."""
    return "good" if "good" in table["measure"] else "good_over_ceiling"


def cost_rows(tables: Tables) -> pl.DataFrame:
    """Mean change of loss of each family on text of a pair's source, target and the other languages."""
    return tables["costs"].group_by("family", "role", maintain_order=True).agg(pl.col("delta_token").mean())


def costs(tables: Tables, paper: Paper) -> Canvas:
    """What each family's edit costs on text, where it acts on every token."""
    table = cost_rows(tables)
    names = table["family"].unique(maintain_order=True).to_list()
    figure, axes = blank(paper, 0.85 + 0.22 * len(names))
    for step, (role, mark, colour) in enumerate(_ROLES):
        one = table.filter(role=role).drop_nulls("delta_token")
        at = [names.index(family) + 0.2 * (step - 1) for family in one["family"]]
        if at:
            axes.plot(one["delta_token"], at, mark, color=colour, markersize=3.5, linestyle="none", label=role)
    axes.axvline(0, color=GREY, linewidth=0.6)
    rows(axes, names)
    axes.set_xlabel("change of loss (nats per token)")
    legend(figure, axes)
    return figure
