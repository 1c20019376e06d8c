"""What a report says of forcing: every family averaged over pairs, its cost, and answers side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from lape.experiments.context import Tables
from lape.experiments.section import Answer, Answers, Asked, Block, Picture, Rows, Section, interval, number
from lape.experiments.table import Table
from lape.measure.intervals import ENDS

_FAMILIES = (
    "ceiling",
    "neurons",
    "prompt",
    "mask",
    "diffmean",
    "random",
    "other",
    "permuted",
    "source off",
    "target only",
    "none",
)
_SHOWN = ("ceiling", "none", "neurons", "prompt", "random")
"""Families whose sample answers stand side by side."""
_QUESTIONS, _PAIRS = 3, 6
_COSTS = ("cost_source", "cost_target", "cost_third")
_SHARES = ("good", "good_minus_ceiling", "good_over_ceiling", "in_language", "in_language_minus_ceiling")
_PARTS = ("fluent", "on_topic", "mixed")
FAMILIES = Table(
    "Questions in one language, answers wanted in another: shares of the answers (one greedy answer to each question), averaged over pairs, on questions "
    "on which no setting was chosen; less, and over, the share when asked in the target language (the ceiling). Good: in the language, fluent and on "
    "topic, and in no other language for a sentence, a proxy by our definitions. Cost: change of loss on text of the pair's source, its "
    "target and third languages while the edit acts on every token, nats per token. "
    "ceiling: asked in the target language. none: nothing is done. prompt: asked for in the prompt. mask: tokens that are not among the target's frequent "
    "ones forbidden or made less likely. diffmean: the residual stream shifted by the difference of means. random, other, permuted: controls, which edit "
    "random neurons, a third language's neurons, or the same neurons with each other's values.",
    {
        "family": pl.String,
        **{f"{name}{end}": pl.Float64 for name in _SHARES for end in ENDS},
        **dict.fromkeys((*_PARTS, *_COSTS), pl.Float64),
    },
    labels={
        "family": "way",
        "good_minus_ceiling": "good − ceiling",
        "good_over_ceiling": "good ÷ ceiling",
        "in_language_minus_ceiling": "in language − ceiling",
        "cost_source": "cost, source",
        "cost_target": "cost, target",
        "cost_third": "cost, third languages",
    },
    digits=2,
)
TUNED = Table(
    "The same on the pairs on which the settings were chosen (tuned), and on those on which they were not.",
    {
        "family": pl.String,
        "tuned": pl.Boolean,
        "pairs": pl.Int64,
        **{f"{name}{end}": pl.Float64 for name in _SHARES[:3] for end in ENDS},
    },
    labels={"family": "way", "good_minus_ceiling": "good − ceiling", "good_over_ceiling": "good ÷ ceiling"},
    digits=2,
)


def section(tables: Tables) -> Section:
    """The section."""
    about = "Ways of making the model answer in a language other than that of the question."
    if "forcing" not in tables:
        return Section("Steering", about, blocks=(Picture("steering"),) if "forcing_differences" in tables else ())
    rows = _reported(tables["forcing"])
    names = [*(name for name in _FAMILIES if name in rows), *(name for name in rows if name not in _FAMILIES)]
    spent = _costs(tables.get("costs"))
    shown = pl.DataFrame(
        [{name: {**rows[family], **spent.get(family, {})}.get(name) for name in FAMILIES.schema} for family in names],
        schema=FAMILIES.schema,
    )
    pictures = (("forcing", "forcing"), ("steering", "forcing_differences"), ("costs", "costs"))
    apart = tables["forcing_transfer"].select(list(TUNED.schema)) if "forcing_transfer" in tables else None
    blocks: tuple[Block, ...] = (
        Rows("ways of steering", FAMILIES, shown, open=True),
        *(() if apart is None else (Rows("pairs tuned on", TUNED, apart),)),
        *(Picture(name) for name, table in pictures if table in tables),
    )
    if "forced_answers" in tables:
        note = (
            "The first questions of each pair, as they came, whether or not steering worked. A green edge: the identifier calls the answer the "
            "wanted language."
        )
        blocks += (Answers("Answers side by side", note, _sampled(tables["forced_answers"])),)
    return Section("Steering", about, _finding(rows), blocks)


def _reported(table: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Family -> what was reported of it, averaged over all pairs."""
    whole = table.filter("chosen", source="all", target="all", split="report")
    return {row["family"]: row for row in whole.iter_rows(named=True)}


def _costs(table: pl.DataFrame | None) -> dict[str, dict[str, float]]:
    """Family -> the mean change of loss on text of the source, of the target and of third languages."""
    if table is None:
        return {}
    means = table.group_by("family", "role").agg(pl.col("delta_token").mean())
    found: dict[str, dict[str, float]] = {}
    for family, role, cost in means.iter_rows():
        found.setdefault(family, {})[f"cost_{role}"] = cost
    return found


def _sampled(table: pl.DataFrame) -> list[Asked]:
    """A few questions of each pair that was asked first, with the answers of some families."""
    reported = table.filter((pl.col("split") == "report") & pl.col("family").is_in(_SHOWN))
    result = []
    pairs = reported.filter(pl.col("source") != pl.col("target")).select("source", "target").unique(maintain_order=True)
    for source, target in pairs.head(_PAIRS).iter_rows():
        mine = reported.filter((pl.col("target") == target) & pl.col("source").is_in([source, target]))
        for question in mine["question"].unique().sort().head(_QUESTIONS).to_list():
            rows = {row["family"]: row for row in mine.filter(pl.col("question") == question).iter_rows(named=True)}
            answers = [Answer.of(name, rows[name], "language") for name in _SHOWN if name in rows]
            result.append(Asked(question, source, target, answers))
    return result


def _finding(rows: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    if "neurons" not in rows:
        return ()
    ours = rows["neurons"]
    against = [
        f"{name} {number(rows[family]['good'])} {interval(rows[family]['good_low'], rows[family]['good_high'])}"
        for family, name in (
            ("ceiling", "asked in that language"),
            ("prompt", "asked for in the prompt"),
            ("random", "random neurons edited instead"),
        )
        if family in rows
    ]
    share = f"{number(ours['good'])} {interval(ours['good_low'], ours['good_high'])}"
    beside = f"; {'; '.join(against)}." if against else "."
    return (
        f"With language neurons edited, a share of {share} of the answers is in the target language, fluent and on topic (a proxy){beside}",
    )
