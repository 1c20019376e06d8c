"""The committed studies: complete and consistent in themselves. What README and docs say of them: tests/docs/test_ledger.py."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest

from lape.experiments import experiments, frontier
from lape.experiments.claim import beside, read
from lape.experiments.forcing.table import RECORDS
from lape.measure.methods import TUNED
from lape.study.claims import judge

HERE = Path(__file__).parents[2]
STUDY = json.loads((HERE / "docs/studies/forcing/forcing.json").read_text(encoding="utf-8"))
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


# Studies of claims

STUDIES = sorted(
    str(page.parent.relative_to(HERE / "docs/studies")) for page in (HERE / "docs/studies").rglob("claims.toml")
)


def tables_of(study: str) -> dict[str, pl.DataFrame]:
    found = {path.stem: pl.read_parquet(path) for path in (HERE / "docs/studies" / study / "tables").glob("*.parquet")}
    assert found, study
    return found


@pytest.mark.parametrize("study", STUDIES)
def test_the_page_of_claims_says_the_verdicts_of_run_json(study):
    """They were given by the tables and the rule of the day that the page names: docs/studies/remake.py."""
    folder = HERE / "docs/studies" / study
    kept = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    page = (folder / "claims.md").read_text(encoding="utf-8")
    said = {one["name"]: one["verdict"] for one in kept["claims"]}
    claims = read(folder / "claims.toml")
    assert {claim.name for claim in claims} == set(said)
    for claim in claims:
        assert f"| {claim.says} | **{said[claim.name]}** |" in page


@pytest.mark.parametrize("study", STUDIES)
def test_every_figure_is_there_twice(study):
    folder = HERE / "docs/studies" / study
    for figure in (figure for one in experiments().values() for figure in one.figures):
        if figure.possible(tables_of(study)):
            assert {path.suffix for path in (folder / "figures").glob(f"{figure.name}.*")} == {".pdf", ".svg"}, (
                figure.name
            )


@pytest.mark.parametrize("study", STUDIES)
def test_no_study_names_a_place_of_the_machine_it_was_made_on(study):
    for path in (HERE / "docs/studies" / study).rglob("*"):
        if path.suffix in (".json", ".md", ".toml"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"(?<![\w.])/(work|home|root|tmp|usr)/", text), path


SECTION = (HERE / "docs/results.md").read_text(encoding="utf-8").split("## The claims, judged")[1].split("\n## ")[0]
ROWS = {
    line.split(" | ")[0].removeprefix("| "): line.strip("| ").split(" | ")
    for line in SECTION.splitlines()
    if line.startswith("| ")
}
"""What a claim says -> the cells of its row."""
COLUMNS = (
    (1, "gemma-3-270m"),
    (1, "selection-finalists/documents"),
    (2, "gemma-3-270m-reversed"),
    (3, "smollm2-135m"),
    (4, "qwen2.5-coder-0.5b"),
    (4, "xquad-qwen2.5-coder-0.5b"),
    (5, "qwen2.5-coder-1.5b"),
)
COMPARED = [
    (column, study)
    for column, study in (*COLUMNS, (3, "pv-smollm2"), (6, "selection-finalists/flores"), (7, "selection-choice"))
    if (HERE / "docs/studies" / study / "tables/advantages.parquet").is_file()
]


@pytest.mark.parametrize(("column", "study"), COLUMNS)
def test_the_page_of_results_says_every_verdict_of_a_study_of_its_table(column, study):
    """In whole rows, which tests/docs/test_ledger.py compares; here: that no claim that was judged is left out, and that bold is what is confirmatory."""
    folder = HERE / "docs/studies" / study
    claims = {one.name: one for one in read(folder / "claims.toml")}
    for one in json.loads((folder / "run.json").read_text(encoding="utf-8"))["claims"]:
        if one["verdict"] != "not run" and claims[one["name"]].table != "advantages":  # those are judged anew, below
            said = ROWS[claims[one["name"]].says][column]
            assert said.strip("*").startswith(one["verdict"])
            assert one["standing"]["kind"] == "confirmatory" or not said.startswith("**")


@pytest.mark.parametrize(("column", "study"), COMPARED)
def test_the_page_of_results_judges_every_method_of_a_study_in_each_language(column, study):
    table = tables_of(study)["advantages"]
    over = [language for language in table["language"].unique(maintain_order=True) if language not in ("en", "mean")]
    today = {one.name: one for one in read(beside(frontier.__file__)) if one.table == "advantages"}
    was = [one for one in read(HERE / "docs/studies" / study / "claims.toml") if one.table == "advantages"]
    about = {
        method
        for one in was
        for method in ([one.where["against"]] if isinstance(one.where["against"], str) else one.where["against"])
    }
    assert about <= {one.where["against"] for one in today.values()}, "a method of which its study judged a claim"
    for claim in today.values():
        if claim.where["against"] in set(table["against"]):
            verdict = judge(claim, {"advantages": table}, {}, over).verdict
            assert ROWS[claim.says][column].startswith(verdict)
