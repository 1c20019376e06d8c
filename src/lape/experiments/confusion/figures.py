"""The pictures of answers in the wrong language."""

from __future__ import annotations

import numpy as np
import polars as pl

from lape.figures.captions import QUESTIONS, Facts, resamples, span
from lape.figures.dots import dots
from lape.figures.heat import heat
from lape.figures.style import Canvas, Paper, Tables
from lape.measure.answer_failures import KINDS
from lape.measure.language_confusion import ALL


def confusion(tables: Tables, paper: Paper) -> Canvas:
    """The share of answers that fail, a row per condition, task and language."""
    table = _each(tables)
    named = table.with_columns(pl.Series("row", _names(table, paper), pl.String))
    return dots("confusion", ("row",), "failing", "share of answers that fail", least=0.0)({"confusion": named}, paper)


def kinds(tables: Tables, paper: Paper) -> Canvas:
    """The share of answers by how they fail."""
    table = _each(tables)
    there = [kind for kind in KINDS if table[kind].sum() > 0] or list(KINDS)
    values = table.select(there).to_numpy().astype(np.float64)
    return heat(paper, _names(table, paper), [one.replace("_", " ") for one in there], values, "share of answers")


def _each(tables: Tables) -> pl.DataFrame:
    return tables["confusion"].filter((pl.col("source") == ALL) & (pl.col("language") != ALL))


def _names(table: pl.DataFrame, paper: Paper) -> list[str]:
    several = {name: table[name].n_unique() > 1 for name in ("condition", "task")}
    return [
        ", ".join([paper.name(row["language"]), *(row[name] for name, shown in several.items() if shown and row[name])])
        for row in table.iter_rows(named=True)
    ]


def caption(tables: Tables, facts: Facts) -> str:
    """Of the shares."""
    return (
        "Share of answers that fail, by the language that was wanted: nothing is written, in another script or language as a whole or for a sentence, "
        f"repeating itself, or a line or word that the Language Confusion Benchmark does not let pass. n: {span(_each(tables)['answers'])} answers. "
        f"{QUESTIONS.format(resamples=resamples(facts))}"
    )


def kinds_caption(tables: Tables, _facts: Facts) -> str:
    """Of the kinds."""
    return (
        "Share of answers by how they fail, each counted in the first way that holds, from left to right; colours start at 0 and follow the square root. "
        f"n: {span(_each(tables)['answers'])} answers in each row."
    )
