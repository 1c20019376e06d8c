"""What a report says of answers in the wrong language: how many fail, how, and some of them as they came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import polars as pl

from lape.data.language_id import base
from lape.experiments.confusion.prompts import evenly
from lape.experiments.confusion.table import CURES, EDITS, SHIPPED
from lape.experiments.context import Tables
from lape.experiments.section import Answer, Answers, Asked, Block, Picture, Rows, Section, interval, number
from lape.experiments.table import Table
from lape.measure.answer_failures import KINDS, MEANT
from lape.measure.intervals import ENDS
from lape.measure.language_confusion import ALL
from lape.signs import many

TITLE = "Answers in the wrong language"
_SHOWN = 3
"""Answers of each kind that are shown."""
KEYS = ("condition", "task", "language")
RATES_SHOWN = Table(
    "LPR and WPR: line and word pass rate of the Language Confusion Benchmark (Marchisio et al. 2024). Failing: the share of answers that fail in any way. "
    "Means over sources; 95 % bootstrap over questions.",
    {
        **dict.fromkeys(KEYS, pl.String),
        "answers": pl.Int64,
        **{f"{rate}{end}": pl.Float64 for rate in ("lpr", "wpr", "failing") for end in ENDS},
    },
    labels={"lpr": "LPR", "wpr": "WPR"},
)
_RULES = "; ".join(f"{kind.replace('_', ' ')}: {meant}" for kind, meant in MEANT.items())
KINDS_SHOWN = Table(
    f"Shares of all answers by how they fail, each in the first way that holds. {_RULES}. Skipped: no line is long enough for the benchmark, "
    "which passes over it; no failure by itself.",
    {**dict.fromkeys(KEYS, pl.String), **dict.fromkeys((*KINDS, "skipped", "reasoning_right"), pl.Float64)},
    labels={"reasoning_right": "reasoning in it"},
    digits=2,
)
CHANGES_SHOWN = Table(
    "What changes from the first condition, paired over questions.",
    {
        **dict.fromkeys(("condition", "than", "task", "language"), pl.String),
        **{f"{rate}_change{end}": pl.Float64 for rate in ("lpr", "failing") for end in ENDS},
    },
    labels={"lpr_change": "LPR", "failing_change": "failing"},
)
CURES_SHOWN = Table(
    "What was tried as a cure. Wrong at first: mean probability that the first eight tokens are in another language. KL: from the unedited model on its own "
    "right answers, nats a token; kept KL: the largest on what is kept. Failing: on the half of the questions that is chosen on; reported: on the other.",
    {
        "setting": pl.String,
        **{
            name: kind
            for name, kind in CURES.items()
            if kind != pl.Boolean and name not in ("family", "setting", "sets", "strength", "head", "factor")
        },
        "verdict": pl.String,
    },
    labels={
        "wrong_mass": "wrong at first",
        "kl": "KL",
        "kept_kl": "kept KL",
        "kept_worst": "of",
        "reported_failing": "reported",
    },
    digits=3,
)
_SIDE_BY_SIDE = 12
"""Questions whose answers are shown side by side."""


def section(tables: Tables) -> Section:
    """The section."""
    about = "How often answers are in another language than the one asked for, and what else goes wrong with them."
    if "confusion" not in tables:
        return Section(TITLE, about)
    whole = tables["confusion"].filter(source=ALL)
    each = told(whole)
    blocks: list[Block] = [
        _rows("rates", RATES_SHOWN, each),
        _rows("failures by kind", KINDS_SHOWN, each),
        Picture("confusion"),
        Picture("confusion_kinds"),
    ]
    if len(changes := tables.get("confusion_changes", pl.DataFrame())):
        blocks.insert(1, _rows("changes", CHANGES_SHOWN, told(changes)))
    if "confused_answers" in tables and (shown := failed(tables["confused_answers"])):
        note = "The first answers of each kind of failure in each language, as they came."
        blocks.append(Answers("Answers that fail", note, shown))
    if len(tables.get("confusion_cures", pl.DataFrame())):
        blocks = [cures_shown(tables), *blocks, side_by_side(tables)]
        return Section(TITLE, about, cured(tables), tuple(blocks))
    return Section(TITLE, about, findings(whole), tuple(blocks))


def cures_shown(tables: Tables) -> Rows:
    """What was tried as a cure: what answered, then what was screened alone."""
    verdict = (
        pl.when("used")
        .then(pl.lit("to be used"))
        .when("chosen")
        .then(pl.lit("best of its kind"))
        .when(~pl.col("within"))
        .then(pl.lit("too far"))
    )
    frame = (
        tables["confusion_cures"]
        .sort(pl.col("failing").is_null(), maintain_order=True)
        .with_columns(verdict=verdict.otherwise(pl.lit("")))
    )
    return _rows("what was tried", CURES_SHOWN, frame)


def cured(tables: Tables) -> tuple[str, ...]:
    """What to use, and what it does on the half of the questions that nothing but whether to use it was decided on."""
    tried, whole = (
        tables["confusion_cures"],
        tables["confusion"].filter(pl.col("source") == ALL, pl.col("language") != ALL),
    )
    row = tried.filter("used").row(0, named=True)
    edits = tried.filter(EDITS)
    rest = {
        "prompt": "Use the prompt: nothing beat it.",
        "none": "Use the model as it is: nothing that was tried fails less.",
    }
    if row["family"] in SHIPPED:
        what = "the adapter and the line in the prompt" if row["line"] else "the adapter"
        said = [
            f"Use {what} ({row['setting']}): beside what needs no adapter it changes the share that fails by {_gain(row)}."
        ]
    else:
        said = [f"{rest[row['family']]} {_why_not(edits)}"]
    for (task,), some in whole.group_by("task", maintain_order=True):
        shares = [
            f"{one['condition']} {number(one['failing'])} {interval(one['failing_low'], one['failing_high'])}"
            for one in some.iter_rows(named=True)
        ]
        said.append(
            f"Failing{f', {task}' if task else ''}, on {some['questions'][0]} other questions than it was chosen on: {'; '.join(shares)}."
        )
    return tuple(said)


def _gain(row: Mapping[str, Any]) -> str:
    return f"{number(row['gain'])} {interval(row['gain_low'], row['gain_high'])}"


def _why_not(edits: pl.DataFrame) -> str:
    """Why no edit is used."""
    best = edits.filter("chosen").sort("failing", maintain_order=True)
    if not len(best):
        return f"None of {many(len(edits), 'edit')} stayed within the bounds on the KL divergence."
    row = best.row(0, named=True)
    if row["gain_high"] is not None and row["gain_high"] < 0:
        return f"The best edit ({row['setting']}) fails less on the other half ({_gain(row)}), but not where it was chosen, so that this may be chance."
    return f"The best edit ({row['setting']}) changes the share that fails by {_gain(row)} on other questions: not less by more than chance."


def into(tables: Tables, language: str) -> tuple[str, ...]:
    """How many answers are in a language that is to be avoided, as a whole or in a stretch."""
    there = (pl.col("identified") == base(language)) | (pl.col("span_language") == base(language))
    shares = (
        tables["confused_answers"]
        .group_by("condition", maintain_order=True)
        .agg(there.fill_null(False).mean().alias("share"))
    )
    return (
        f"In {base(language)}, whole or in part: {'; '.join(f'{name} {number(share)}' for name, share in shares.iter_rows())}.",
    )


def side_by_side(tables: Tables) -> Answers:
    """Answers to the same question under each condition: of questions whose answers fail in some, evenly spread."""
    judged = tables["confused_answers"]
    asked: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in judged.iter_rows(named=True):
        asked.setdefault((row["task"], row["question"], row["prompt"] or ""), []).append(row)
    differing = [(key, rows) for key, rows in asked.items() if any(row["kind"] for row in rows)]
    shown = []
    for number_, ((_, _, prompt), rows) in enumerate(evenly(differing, _SIDE_BY_SIDE)):
        answers = tuple(
            Answer(
                ", ".join(filter(None, (row["condition"], (row["kind"] or "").replace("_", " ")))),
                row["identified"],
                row["identified"] == row["language"],
                None,
                row["answer"],
            )
            for row in rows
        )
        shown.append(Asked(number_, prompt, rows[0]["language"], answers))
    return Answers(
        "Answers side by side",
        "Of the questions that are failed under some condition, evenly spread; as they came.",
        shown,
    )


def told(whole: pl.DataFrame) -> pl.DataFrame:
    """The rows that are shown: without one for the mean of a single language."""
    several = whole.filter(pl.col("language") != ALL).group_by("condition", "task").agg(pl.len().alias("several"))
    kept = whole.join(several, on=["condition", "task"], maintain_order="left")
    return kept.filter((pl.col("language") != ALL) | (pl.col("several") > 1)).drop("several")


def _rows(name: str, table: Table, frame: pl.DataFrame) -> Rows:
    """A table without the columns that say nothing: those in which every row has the same word, and those that are empty."""
    dull: set[str] = {
        one for one in ("condition", "than", "task") if one in frame.columns and frame[one].n_unique() == 1
    }
    dull |= {one for one in table.schema if frame[one].null_count() == len(frame)}
    ends = {end for one in dull for end in table.interval(one)}
    shown = replace(table, shown=tuple(one for one in table.schema if one not in dull | ends))
    return Rows(name, shown, frame.select(*table.schema), open=True)


def findings(whole: pl.DataFrame) -> tuple[str, ...]:
    """A sentence for each condition and task: how many fail, how that compares with noise, and where it is worst."""
    said = []
    for (condition, task), some in whole.group_by("condition", "task", maintain_order=True):
        mean = some.filter(language=ALL).row(0, named=True)
        each = some.filter(pl.col("language") != ALL).sort("failing", descending=True)
        worst = each.row(0, named=True)
        where = ", ".join(filter(None, (str(condition), str(task))))
        floor = mean["failing_floor"]
        noise = "" if floor is None else f"; between seeds it differs by {number(floor)}"
        beside = (
            f", most in {worst['language']} ({number(worst['failing'])})" if len(each) > 1 and worst["failing"] else ""
        )
        named = worst["language"] if len(each) == 1 else f"{len(each)} languages"
        begun = f"{where if condition else where.capitalize()}: a share" if where else "A share"
        failing = f"{number(mean['failing'])} {interval(mean['failing_low'], mean['failing_high'])}"
        passing = f"{number(mean['lpr'])} {interval(mean['lpr_low'], mean['lpr_high'])}"
        said.append(
            f"{begun} of {failing} of {mean['answers']:,} answers wanted in {named} fails{beside}; LPR {passing}{noise}."
        )
    return tuple(said)


def failed(judged: pl.DataFrame) -> list[Asked]:
    """Some answers of each kind of failure in each language, of the first condition that has them."""
    first = judged.filter(pl.col("kind").is_not_null()).group_by("language", "kind", maintain_order=True).head(_SHOWN)
    shown = []
    for number_, row in enumerate(first.sort("language", maintain_order=True).iter_rows(named=True)):
        slip = f": {row['span']}" if row["kind"] == "slipped" else ""
        condition = ", ".join(filter(None, (row["condition"], row["task"], f"{row['kind'].replace('_', ' ')}{slip}")))
        answer = Answer(condition, row["identified"], row["identified"] == row["language"], None, row["answer"])
        shown.append(Asked(number_, row["prompt"] or row["source"], row["language"], (answer,)))
    return shown
