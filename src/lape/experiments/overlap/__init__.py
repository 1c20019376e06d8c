"""Which languages share neurons, and whether genealogy, script or shared tokens explain it."""

from __future__ import annotations

import numpy as np
import polars as pl

from lape.experiments.context import Context, Tables
from lape.experiments.experiment import MODEL, PARALLEL, Experiment, NoOptions, default_section
from lape.experiments.overlap.figures import overlap as draw
from lape.experiments.overlap.figures import overlaps
from lape.experiments.overlap.run import OVERLAP, TESTS, overlap_chance, overlap_tests
from lape.experiments.section import Grid, Section, View
from lape.experiments.table import Table
from lape.figures.captions import Facts, selected, sets
from lape.figures.figure import Figure
from lape.values.neurons import LanguageNeurons

__all__ = ["EXPERIMENT", "overlap_chance", "overlap_tests"]


def _run(context: Context, _options: NoOptions) -> Tables:
    counts = {
        language: np.bincount(context.work.corpora[language].tokens).astype(np.int64) for language in context.languages
    }
    tests = [
        overlap_tests(context.neurons, tokens=counts, measure=measure, seed=context.options.seed).with_columns(
            pl.lit(measure).alias("measure")
        )
        for measure in ("jaccard", "over_chance")
    ]
    return {"overlap": overlap_chance(context.neurons), "mantel": pl.concat(tests)}


def _of_neurons(neurons: LanguageNeurons) -> Tables:
    return {"overlap": overlap_chance(neurons)}


def _caption(tables: Tables, facts: Facts) -> str:
    return (
        "Neurons that languages share: above the diagonal their number, below it the Jaccard (shared as a share of those in either), which "
        f"also gives the colour; on the diagonal the size of the language's set. n (neurons): {sets(tables)}. Counts, so without intervals.{selected(facts)}"
    )


def _section(tables: Tables) -> Section:
    grid = (_grid(tables),) if "overlap" in tables else ()
    return default_section(EXPERIMENT, tables, "Neurons that two languages share.", before=grid)


def _grid(tables: Tables) -> Grid:
    shared, alike, names = overlaps(tables)
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


EXPERIMENT = Experiment(
    name="overlap",
    title="Overlap",
    about="which languages share neurons, and whether related ones share more",
    options=NoOptions,
    run=_run,
    tables={
        "overlap": Table("How much the sets of two languages overlap, beside chance.", OVERLAP, command="{identify}"),
        "mantel": Table(
            "Mantel's test: whether languages that are more alike share more neurons.", {**TESTS, "measure": pl.String}
        ),
    },
    needs=(MODEL, PARALLEL),
    figures=(Figure("overlap", "Overlap of sets", ("overlap", "histogram"), draw, _caption),),
    section=_section,
    study="always",
    of_neurons=_of_neurons,
)
