"""What a report says of answers in the wrong language: how many fail, how, and some of them as they came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import polars as pl

from lape.data.language_id import base
from lape.experiments.confusion.prompts import evenly
from lape.experiments.confusion.table import CURES, EDITS, SHIPPED, failing_share
from lape.experiments.context import Tables
from lape.experiments.section import Answer, Answers, Asked, Block, Picture, Rows, Section, number
from lape.experiments.table import Table
from lape.measure.answer_failures import KINDS, MEANT
from lape.measure.intervals import ENDS
from lape.measure.language_confusion import ALL
from lape.signs import many

TITLE = "Answers in the wrong language"
_SHOWN = 3
"""Answers of each kind that are shown."""
KEYS = ("condition", "task", "language")
WORTH_SAYING = 0.01
"""The share of lines that could not be judged from which on it is said first."""
COUNTS: Mapping[str, Any] = {
    **dict.fromkeys(KEYS, pl.String),
    **dict.fromkeys(("answers", "fail"), pl.Int64),
    "written_in": pl.String,
    **dict.fromkeys(KINDS, pl.Int64),
    "slips_into": pl.String,
}
"""A row per condition, task and language: how many answers there are, how many fail, which languages those are in that are in another as a whole, and those
that slip; and how many fail in which way.
"""
RATES_SHOWN = Table(
    "Line and word pass rate of the Language Confusion Benchmark (Marchisio et al. 2024); means over sources, with 95 % bootstrap over questions.",
    {
        **dict.fromkeys(KEYS, pl.String),
        **{f"{rate}{end}": pl.Float64 for rate in ("lpr", "wpr") for end in ENDS},
        **dict.fromkeys(("skipped", "reasoning_right"), pl.Float64),
    },
    labels={"lpr": "LPR", "wpr": "WPR", "reasoning_right": "reasoning in it"},
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
    if not {"confusion", "confused_answers"} <= set(tables):
        return Section(TITLE, about)
    whole = tables["confusion"].filter(source=ALL)
    each = told(whole)
    blocks: list[Block] = [_counted(tables["confused_answers"])]
    if len(changes := tables.get("confusion_changes", pl.DataFrame())):
        blocks.append(_rows("changes", CHANGES_SHOWN, told(changes)))
    blocks += [Picture("confusion"), Picture("confusion_kinds"), _rates_shown(each)]
    if shown := failed(tables["confused_answers"]):
        note = "The first answers of each kind of failure in each language, as they came."
        blocks.append(Answers("Answers that fail", note, shown))
    if len(tables.get("confusion_cures", pl.DataFrame())):
        blocks = [cures_shown(tables), *blocks, side_by_side(tables)]
        return Section(TITLE, about, cured(tables), tuple(blocks))
    return Section(TITLE, about, findings(tables), tuple(blocks))


def _rates_shown(each: pl.DataFrame) -> Rows:
    """The benchmark's rates, with the share of answers that it skips where it skips some."""
    if not each["skipped"].sum():
        return _rows("benchmark", RATES_SHOWN, each.with_columns(skipped=pl.lit(None, pl.Float64)))
    skipped = " Skipped: the share of answers without a line that is long enough for it; no failure by itself."
    return _rows("benchmark", replace(RATES_SHOWN, about=RATES_SHOWN.about + skipped), each)


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
        few = some["failing_low"].null_count() == len(some)
        shares = [
            f"{one['condition']} {number(one['failing'])}{'' if few else ' ' + _ends(one, 'failing')}"
            for one in some.iter_rows(named=True)
        ]
        said.append(
            f"Failing{f', {task}' if task else ''}, on {some['questions'][0]} other questions than it was chosen on: {'; '.join(shares)}"
            f"{' (too few for intervals)' if few else ''}."
        )
    return tuple(said)


def _gain(row: Mapping[str, Any]) -> str:
    if row["gain_low"] == row["gain_high"] == row["gain"]:
        return f"{number(row['gain'])} (the same on every question)"
    return f"{number(row['gain'])} {_ends(row, 'gain')}"


def _ends(row: Mapping[str, Any], name: str) -> str:
    """The ends of an interval in brackets, or that there is none."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "(too few questions for an interval)" if low is None else f"({number(low)} to {number(high)})"


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
                row["identified"] == base(row["language"]),
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


def _counted(judged: pl.DataFrame) -> Rows:
    """How many answers fail in each language, which language these are in, and in which of the ways that occur."""
    kinds = [kind for kind in KINDS if (judged["kind"] == kind).any()]
    whole = pl.col("kind").is_in(["other_script", "other_language"])
    rows = [
        {
            **dict(zip(KEYS, key, strict=True)),
            "answers": len(some),
            "fail": some["kind"].count(),
            "written_in": _languages(some.filter(whole)["identified"]),
            **{kind: int((some["kind"] == kind).sum()) for kind in kinds},
            "slips_into": _languages(some.filter(kind="slipped")["span_language"]),
        }
        for key, some in judged.group_by(KEYS, maintain_order=True)
    ]
    meant = "".join(f" {kind.replace('_', ' ').capitalize()}: {MEANT[kind]}." for kind in kinds)
    about = f"Each answer that fails is counted in one way.{meant}" if kinds else ""
    labels = {"written_in": "written in", "slips_into": "slips into"}
    return _rows(
        "answers by the language that was wanted",
        Table(about, COUNTS, labels=labels),
        pl.DataFrame(rows, schema=COUNTS),
    )


def _languages(found: pl.Series) -> str | None:
    """How often each language was found, such as "en 3, zh 1"; None where there is none."""
    counts = Counter(one or "unclear" for one in found)
    return ", ".join(f"{language} {count}" for language, count in counts.most_common()) or None


def findings(tables: Tables) -> tuple[str, ...]:
    """A sentence for each condition and task: how many answers fail, where most do, and how far seeds differ."""
    judged, whole = tables["confused_answers"], tables["confusion"].filter(source=ALL, language=ALL)
    said = []
    for (condition, task), some in judged.group_by("condition", "task", maintain_order=True):
        where = ", ".join(_telling(judged, {"condition": condition, "task": task}))
        failing, answers, low, high = failing_share(some)
        share = "too few for an interval"
        if low is not None and high is not None:
            share = f"{_percent(failing / answers)}, 95 % interval {_percent(low)} to {_percent(high)}"
        most = _most(some) if failing and some["language"].n_unique() > 1 else ""
        floor = whole.filter(condition=condition, task=task)["failing_floor"].to_list()
        noise = f"; between seeds the share differs by {number(floor[0])}" if floor and floor[0] is not None else ""
        verb = "fails" if failing == 1 else "fail"
        said.append(
            f"{where}{': ' if where else ''}{failing:,} of {many(answers, 'answer')} {verb} ({share}){most}{noise}."
        )
    if unjudged_share(tables) > WORTH_SAYING:
        left_out = len(tables["unjudged_lines"])
        said[0] += f" {left_out:,} of {many(left_out + len(judged), 'line')} could not be judged."
    return tuple(said)


def _telling(judged: pl.DataFrame, row: Mapping[str, Any]) -> list[str]:
    """The condition and task of a row, as far as there are several of them."""
    return [str(row[name]) for name in ("condition", "task") if row[name] and judged[name].n_unique() > 1]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _most(judged: pl.DataFrame) -> str:
    """The language in which most answers fail."""
    counts = judged.group_by("language", maintain_order=True).agg(
        pl.col("kind").count().alias("fail"), pl.len().alias("answers")
    )
    row = counts.sort("fail", descending=True, maintain_order=True).row(0, named=True)
    return f", most in {row['language']}: {row['fail']:,} of {row['answers']:,}"


def unjudged_share(tables: Tables) -> float:
    """The share of lines that could not be judged."""
    left_out = len(tables.get("unjudged_lines", ()))
    return left_out / (left_out + len(tables["confused_answers"]))


def failed(judged: pl.DataFrame) -> list[Asked]:
    """Some answers of each kind of failure in each language, of the first condition that has them."""
    first = judged.filter(pl.col("kind").is_not_null()).group_by("language", "kind", maintain_order=True).head(_SHOWN)
    shown = []
    for number_, row in enumerate(first.sort("language", maintain_order=True).iter_rows(named=True)):
        slip = f": {row['span']}" if row["kind"] == "slipped" else ""
        condition = ", ".join([*_telling(judged, row), f"{row['kind'].replace('_', ' ')}{slip}"])
        answer = Answer(condition, row["identified"], row["identified"] == base(row["language"]), None, row["answer"])
        shown.append(Asked(number_, row["prompt"] or row["source"], row["language"], (answer,)))
    return shown
