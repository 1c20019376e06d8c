"""The committed studies: complete, consistent in themselves, and what README and docs say of them."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from lape.analyse.forced import RECORDS
from lape.evaluate.families import TUNED

HERE = Path(__file__).parent.parent
STUDY = json.loads((HERE / "docs/studies/gemma-3-270m/forcing.json").read_text(encoding="utf-8"))
TABLE = pl.DataFrame(STUDY["records"], schema=RECORDS)
WHOLE = {row["family"]: row for row in TABLE.filter(split="report", source="all", target="all").iter_rows(named=True)}


def test_every_family_is_reported_on_all_pairs_and_questions():
    pairs = TABLE.filter((pl.col("source") != "all") & (pl.col("split") == "report"))
    count = pairs.group_by("family").len()
    expected = {"ceiling": 7, **dict.fromkeys((*TUNED, "none", "target only", "source off"), 14)}
    expected |= dict.fromkeys(("random", "other", "permuted"), 14)
    assert dict(count.iter_rows()) == expected
    assert set(pairs["questions"]) == {40}
    assert set(TABLE.filter(split="development")["questions"]) == {24}


def test_every_tuned_family_had_as_many_tries_and_reports_the_best_of_each_target():
    tried = TABLE.filter(pl.col("family").is_in(TUNED), split="development", source="all")
    names = tried.filter(target="all")
    assert set(names.group_by("family").agg(pl.col("setting").n_unique())["setting"]) == {8}
    for (family, target), rows in tried.filter(pl.col("target") != "all").group_by("family", "target"):
        best = rows.sort("good_over_ceiling", "in_language_over_ceiling", descending=True).row(0, named=True)
        chosen = rows.filter("chosen").row(0, named=True)
        assert chosen["good_over_ceiling"] == best["good_over_ceiling"]
        (reported,) = TABLE.filter(split="report", source="all", family=family, target=target)["setting"]
        assert reported == chosen["setting"]


def test_shares_lie_in_their_intervals_and_good_answers_are_in_the_language():
    for row in WHOLE.values():
        for name in ("in_language", "good", "in_language_over_ceiling", "good_over_ceiling"):
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
        assert row["good"] <= row["in_language"]


@pytest.mark.parametrize("page", ["README.md", "docs/steering.md"])
@pytest.mark.parametrize("family", sorted(WHOLE))
def test_the_pages_say_what_the_study_found(page, family):
    row = WHOLE[family]
    cells = [family, f"{row['in_language']:.0%}", f"{row['good']:.0%}"]
    for name in ("in_language_over_ceiling", "good_over_ceiling"):
        cells.append(f"{row[name]:.2f} ({row[f'{name}_low']:.2f}–{row[f'{name}_high']:.2f})")
    assert f"| {' | '.join(cells)} |" in (HERE / page).read_text(encoding="utf-8")
