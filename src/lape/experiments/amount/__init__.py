"""How much text the sets need, and how far they come out again from half of it."""

from __future__ import annotations

import polars as pl

from lape.detect.identify import method_named
from lape.detect.stability import RELIABILITY, UNION, reliability, split_halves
from lape.experiments.amount.figures import amount as draw_amount
from lape.experiments.amount.figures import reliability as draw_reliability
from lape.experiments.amount.run import AMOUNT, amount
from lape.experiments.claim import beside
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import Experiment, NoOptions, default_section
from lape.experiments.section import Section, number
from lape.experiments.table import Table
from lape.figures.captions import Facts, plain, sizes, span
from lape.figures.figure import Figure

__all__ = ["EXPERIMENT", "amount"]


def _run(context: Context, _options: NoOptions) -> Tables:
    """The reliability curve, and the reliability of the sets themselves."""
    halves = split_halves(context.stats, method_named("lape"), progress=context.progress)
    return {
        "amount": amount(context.stats, method_named("lape"), seed=context.options.seed),
        "reliability": reliability(context.neurons, halves),
    }


def _caption(tables: Tables, _facts: Facts) -> str:
    table = tables["reliability"]
    named = table.select("language", "neurons").iter_rows()
    return (
        f"How alike the sets found in two halves of the text are: median Jaccard over {span(table['halvings'])} halvings (dot), down to its 5th "
        "percentile over them (line; a spread, not a confidence interval), and the Jaccard expected of random sets with as many neurons in each "
        f"layer (bar). None for sets under 20 neurons. This is stability, not validity. n (neurons): {sizes(named)}."
    )


def _section(tables: Tables) -> Section:
    return default_section(EXPERIMENT, tables, findings=_finding(tables.get("reliability")))


def _finding(table: pl.DataFrame | None) -> tuple[str, ...]:
    known = None if table is None else table.filter(pl.col("median").is_not_null() & (pl.col("language") != UNION))
    if known is None or not len(known):
        return ()
    least = known.sort("median").row(0, named=True)
    return (
        f"Sets found in two halves of the text agree: median Jaccard {number(least['median'])} or more (5th percentile {number(least['p5'])}, by chance "
        f"{number(least['chance'])}, in {least['language']}, where they agree least). This is stability, not validity.",
    )


EXPERIMENT = Experiment(
    name="amount",
    title="Amount of text",
    about="how much text the sets need",
    options=NoOptions,
    run=_run,
    tables={
        "amount": Table(
            "Jaccard of the sets found in two disjoint groups of folds, by the tokens in each: the median over halvings, and the spread from the 5th "
            "to the 95th percentile over them, which is no confidence interval.",
            AMOUNT,
            ends="spread (5th–95th percentile over halvings)",
            added=("halvings",),
        ),
        "reliability": Table(
            "How alike the sets of two halves of the text are, beside chance.",
            RELIABILITY,
            file="neurons.reliability.parquet",
            command="lape identify {run}",
        ),
    },
    figures=(
        Figure("reliability", "Reliability", ("reliability",), draw_reliability, _caption),
        Figure(
            "amount",
            "How much text sets need",
            ("amount",),
            draw_amount,
            plain(
                "amount",
                "Median Jaccard of the sets found in two halves of the text, by the tokens per language in each; sets of 20 neurons or more.",
            ),
        ),
    ),
    section=_section,
    claims=beside(__file__),
    study="always",
)
