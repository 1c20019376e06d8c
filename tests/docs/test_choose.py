"""benchmarks/confusion/choose.py: the comparison of the best ways depends on no order of the questions, and its table is what the committed answers give."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import polars as pl
import pytest

from support.pages import ROOT

TABLES = ROOT / "docs/studies/confusion/tables"
ANSWERS = pl.read_parquet(TABLES / "qwen2.5-coder-0.5b-answers.parquet")
KL = pl.read_parquet(TABLES / "qwen2.5-coder-0.5b-kl.parquet")


@pytest.fixture(scope="module")
def choose():
    folder = str(ROOT / "benchmarks/confusion")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("choose")
    finally:
        sys.path.remove(folder)


def whole(choose: Any, answers: pl.DataFrame, measure: str, halvings: int = 300, **given: Any) -> dict[str, Any]:
    """The row over all languages of edits and others."""
    failures = choose.Failures(answers, KL, 0.1, choose.MEASURES[measure])
    rows = choose.Halvings(failures, halvings, given.get("resamples", 100), 3).rows("edits", "others", measure)
    return next(row for row in rows if row["language"] == "all")


@pytest.mark.parametrize("measure", ["wrong", "failing"])
def test_the_committed_table_is_what_the_committed_answers_give(choose, measure):
    """With other halvings: no split decides."""
    found = whole(choose, ANSWERS, measure)
    table = pl.read_parquet(TABLES / "qwen2.5-coder-0.5b-chosen.parquet")
    (kept,) = table.filter(side="edits", rival="others", measure=measure, language="all").iter_rows(named=True)
    for name in ("none", "line", "failing", "rival_failing"):
        assert found[name] == pytest.approx(kept[name], abs=0.005), name
    assert found["difference_low"] == pytest.approx(kept["difference_low"], abs=0.02)
    assert kept["halvings"] >= 1000


def test_how_questions_are_called_decides_nothing(choose):
    """Their names as text put 'okapi 10' before 'okapi 2': one split by turns in that order had halved the ratio."""
    numbered = ANSWERS.with_columns(
        pl.col("question").str.replace(r"\d+", pl.col("question").str.extract(r"(\d+)").str.zfill(3))
    )
    assert numbered["question"].n_unique() == ANSWERS["question"].n_unique()
    one, other = (whole(choose, answers, "failing")["ratio"] for answers in (ANSWERS, numbered))
    assert one == pytest.approx(other, abs=0.04)


def test_ways_that_are_all_alike_are_not_told_apart(choose):
    """Whatever a side may choose from, and however the languages differ."""
    alike = ANSWERS.filter(condition="none").drop("condition")
    ways = ANSWERS.select("condition").unique(maintain_order=True)
    found = whole(choose, ways.join(alike, how="cross"), "failing", resamples=50)
    assert found["failing"] == found["rival_failing"] == pytest.approx(found["none"])
    assert (found["difference_low"], found["difference_high"], found["ratio"]) == (0, 0, 1)


def test_rephrasings_of_a_question_stay_together_and_count_as_one(choose):
    again = pl.concat([ANSWERS, ANSWERS.filter(pl.col("question").is_in(["okapi 1", "okapi 2"]))])
    failures = choose.Failures(again, KL, 0.1, None)
    assert len(failures.questions) == 80
    assert whole(choose, again, "failing")["failing"] == whole(choose, ANSWERS, "failing")["failing"]


def test_rivals_may_have_the_line_wherever_edits_may(choose):
    names = {way.name: way for way in choose.WAYS}
    assert any(names[way].line and names[way].family == "residual" for way in choose.SIDES["others"])
    for side in ("edits without the line", "others without the line"):
        assert not any(names[way].line for way in choose.SIDES[side])


def test_right_as_a_whole_is_counted_from_the_answers(choose):
    kept = pl.read_parquet(TABLES / "qwen2.5-coder-0.5b-rule.parquet")
    assert kept.equals(choose.right_as_a_whole(ANSWERS))
    by_hand = [
        row
        for row in ANSWERS.iter_rows(named=True)
        if row["kind"] in ("line", "word") and row["identified"] == row["language"] and not row["script_switched"]
    ]
    assert kept["right_as_a_whole"].sum() == len(by_hand)
    (moon,) = (row for row in by_hand if row["condition"] == "off en" and "照亮了整个世界" in row["answer"])
    assert (moon["kind"], moon["identified"]) == ("line", "zh")
