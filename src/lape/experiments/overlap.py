"""Which languages share neurons: how much the sets of two languages overlap, compared with chance."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from lape.detect.stability import chance_jaccard
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import Experiment, NoOptions, default_section
from lape.experiments.section import Grid, Section, View
from lape.experiments.table import Table
from lape.figures.captions import Facts, selected, sets
from lape.figures.figure import Figure
from lape.figures.heat import Form, heat
from lape.figures.style import Canvas, Paper
from lape.values.neurons import LanguageNeurons, jaccard

__all__ = ["EXPERIMENT", "overlap_chance"]

OVERLAP = {
    **dict.fromkeys(("a", "b"), pl.String),
    "shared": pl.Int64,
    **dict.fromkeys(("jaccard", "chance", "over_chance"), pl.Float64),
}
"""Columns of `overlap_chance`."""


def overlap_chance(neurons: LanguageNeurons) -> pl.DataFrame:
    """Measure how much the sets of two languages overlap, compared with chance (ours): one row per unordered pair, in their order.

    `a`, `b`, `shared` (neurons), `jaccard` (0 to 1), `chance` (Jaccard expected of random sets with as many neurons in each
    layer and expert), `over_chance` (jaccard / chance; null where chance is 0: the sets have no layer in common).

    Example:
        >>> from lape.experiments.overlap import overlap_chance
        >>> len(overlap_chance(neurons))
        6
    """
    rows = []
    for a, b in combinations(neurons.sets, 2):
        first, second = neurons.sets[a], neurons.sets[b]
        alike, chance = jaccard(first, second), chance_jaccard(first, second)
        over = alike / chance if chance else None
        rows.append(dict(zip(OVERLAP, (a, b, len(first & second), alike, chance, over), strict=True)))
    return pl.DataFrame(rows, schema=OVERLAP)


def matrices_of(tables: Tables) -> tuple[Any, Any, list[str]]:
    """Neurons shared (on the diagonal, those of the set, where they are known) and Jaccard (nan there), both (languages, languages);
    the languages.
    """
    table, counts = tables["overlap"], tables.get("histogram", pl.DataFrame(schema=["language", "neurons"]))
    sizes = dict(counts.group_by("language").agg(pl.col("neurons").sum()).iter_rows())
    names = list(dict.fromkeys([*table["a"], *table["b"]]))
    shared, alike = (np.full((len(names), len(names)), np.nan) for _ in range(2))
    for a, b, count, share in table.select("a", "b", "shared", "jaccard").iter_rows():
        i, j = names.index(a), names.index(b)
        shared[i, j] = shared[j, i] = count
        alike[i, j] = alike[j, i] = share
    shared[np.diag_indices(len(names))] = [sizes.get(name, np.nan) for name in names]
    np.fill_diagonal(alike, np.nan)
    return shared, alike, names


def draw_overlap(tables: Tables, paper: Paper) -> Canvas:
    """Below the diagonal the Jaccard of two languages' sets, above it the neurons they share, on it the size of a set."""
    shared, alike, names = matrices_of(tables)

    def cell(i: int, j: int, form: Form) -> tuple[str, bool]:
        return (form(alike[i, j]), False) if i > j else (f"{shared[i, j]:.0f}", i == j)

    figure = heat(paper, paper.names(names), paper.names(names), alike, "Jaccard of the two sets", cell=cell)
    figure.axes[0].set_xlabel("above: neurons shared; diagonal: size of the set")
    return figure


def _caption(tables: Tables, facts: Facts) -> str:
    return (
        "Neurons that languages share: above the diagonal their number, below it the Jaccard (shared as a share of those in either), which "
        f"also gives the colour; on the diagonal the size of the language's set. n (neurons): {sets(tables)}. Counts, so without intervals.{selected(facts)}"
    )


def _grid(tables: Tables) -> Grid:
    shared, alike, names = matrices_of(tables)
    np.fill_diagonal(alike, 1.0)
    values = {
        name: [[None if np.isnan(x) else float(x) for x in line] for line in grid]
        for name, grid in (("shared", shared), ("jaccard", alike))
    }
    views = {
        "shared": View("shared neurons", values["shared"], 0),
        "jaccard": View("Jaccard (shared ÷ either)", values["jaccard"]),
    }
    own = "; on the diagonal the size of a language's set" if values["shared"][0][0] is not None else ""
    return Grid("overlap", f"Neurons that two languages share{own}.", "", names, names, views)


def _section(tables: Tables) -> Section:
    return default_section(EXPERIMENT, tables, "Neurons that two languages share.", before=(_grid(tables),))


def _of_neurons(neurons: LanguageNeurons) -> Tables:
    return {"overlap": overlap_chance(neurons)}


def _run(context: Context, _options: NoOptions) -> Tables:
    return _of_neurons(context.neurons)


EXPERIMENT = Experiment(
    name="overlap",
    title="Overlap",
    about="which languages share neurons",
    options=NoOptions,
    run=_run,
    tables={
        "overlap": Table(
            "How much the sets of two languages overlap, beside chance.", OVERLAP, command="lape identify {run}"
        ),
    },
    figures=(Figure("overlap", "Overlap of sets", ("overlap", "histogram"), draw_overlap, _caption),),
    section=_section,
    study="always",
    of_neurons=_of_neurons,
)
