"""What the captions of the ways of forcing say."""

from __future__ import annotations

import polars as pl

from lape.experiments.forcing.figures import against_ceiling, difference_of
from lape.figures.captions import Facts, resamples, span
from lape.figures.style import Tables
from lape.measure.bootstrap import FEWEST


def forcing_caption(tables: Tables, facts: Facts) -> str:
    """Of families of methods."""
    table = tables["forcing"].filter(source="all", target="all", split="report")
    beside = "over" if against_ceiling(table) == "_over_ceiling" else "less"
    return (
        "Ways of forcing a language: share of answers in the target language, and of good ones (in it, fluent, on topic, and in no other "
        f"language for a sentence, by our definitions: a proxy), {beside} the same share when the question is asked in the target language, averaged by "
        "target. "
        "One greedy answer to each question and setting; "
        "settings were chosen on other questions. "
        f"n: {span(table['questions'])} questions. 95 % bootstrap over questions and pairs"
        f"{resamples(facts)}; none under {FEWEST} questions."
    )


def steering_caption(tables: Tables, facts: Facts) -> str:
    """Of neurons beside other families."""
    report = tables["forcing"].filter(split="report") if "forcing" in tables else pl.DataFrame()
    over = ", both over the ceiling's" if "over" in difference_of(tables["forcing_differences"]) else ""
    n = f" n: {span(report['questions'])} questions." if len(report) else ""
    return (
        "Share of good answers (a proxy; one greedy answer to each question) with neurons edited less that of each other family"
        f"{over}, averaged by target.{n} 95 % paired bootstrap over questions and pairs{resamples(facts)}."
    )


def costs_caption(tables: Tables, _facts: Facts) -> str:
    """Of what edits cost."""
    table = tables["costs"]
    return (
        "What the edits cost where they act on every token of a text: change of loss in nats per token on text of the pair's source, of its target "
        f"and of the other languages, mean over pairs and languages. n: {len(table):,} measurements of {span(table['tokens'])} tokens. "
        "Means, drawn without intervals."
    )
