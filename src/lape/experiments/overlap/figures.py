"""The picture of overlaps: shared neurons above the diagonal, their Jaccard below."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from lape.figures.heat import Form, heat
from lape.figures.style import Canvas, Paper, Tables


def overlap(tables: Tables, paper: Paper) -> Canvas:
    """Below the diagonal the Jaccard of two languages' sets, above it the neurons they share, on it the size of a set."""
    shared, alike, names = overlaps(tables)

    def cell(i: int, j: int, form: Form) -> tuple[str, bool]:
        return (form(alike[i, j]), False) if i > j else (f"{shared[i, j]:.0f}", i == j)

    figure = heat(paper, paper.names(names), paper.names(names), alike, "Jaccard of the two sets", cell=cell)
    figure.axes[0].set_xlabel("above: neurons shared; diagonal: size of the set")
    return figure


def overlaps(tables: Tables) -> tuple[Any, Any, list[str]]:
    """Neurons shared (on the diagonal, those of the set, where they are known) and Jaccard (nan there), both (languages, languages);
    the languages.
    """
    table, counts = tables["overlap"], tables.get("histogram", pl.DataFrame(schema=["language", "neurons"]))
    sizes = dict(counts.group_by("language").agg(pl.col("neurons").sum()).iter_rows())
    names = list(dict.fromkeys([*table["a"], *table["b"]]))
    shared, alike = (np.full((len(names), len(names)), np.nan) for _ in range(2))
    for a, b, count, jaccard in table.select("a", "b", "shared", "jaccard").iter_rows():
        i, j = names.index(a), names.index(b)
        shared[i, j] = shared[j, i] = count
        alike[i, j] = alike[j, i] = jaccard
    shared[np.diag_indices(len(names))] = [sizes.get(name, np.nan) for name in names]
    np.fill_diagonal(alike, np.nan)
    return shared, alike, names
