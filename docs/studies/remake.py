"""Intervals of committed tables made anew by the rules of today, from what is committed: `python docs/studies/remake.py`.

Means over languages (advantages, dissociated, forcing) get Student's t over the languages' values, where the studies had drawn languages with the text.
Answers (drops, tasks) are read again, with Student's t over the draws of control neurons. Sets of two languages get the energy ratio of
their controls, from `controlled`. `more` of studies that measured a single draw on the other languages loses its interval. Values stay as they are:
a table that would get another is refused. Losses by sentence and draw are not committed, so intervals of `controlled`, `dissociated` (each pair),
`keeping` and `patched_controlled` stay those of their day: percentiles over text and draws, which with 3 and 4 draws cover .77 and .83 where the draws
dominate, and .93 where they vary as much as the text does.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.special import ndtri, stdtrit

from lape.experiments.claim import read
from lape.experiments.frontier.table import enough
from lape.experiments.generation.table import drops
from lape.experiments.harness.run import HarnessOptions
from lape.experiments.harness.run import table_of as tasks_of
from lape.measure.controlled import likeness
from lape.measure.intervals import LEVELS, Estimate, over_languages, p_at, pseudo_values
from lape.store.files import write_json
from lape.study.claims import judge

STUDIES = Path(__file__).parent
MAIN = "en"
SAME = 2e-4
"""By how much a value may differ from the one that is there: forcing.json has four digits."""
ONE_ELSEWHERE = ("gemma-3-270m-rows", "gemma-3-270m-controls/seed-1", "selection-finalists/off")
"""Studies of a single draw of control neurons on the other languages."""


def main() -> None:
    for path in sorted(STUDIES.rglob("advantages.parquet")):
        write(path, advantages(pl.read_parquet(path)))
    for path in sorted(STUDIES.rglob("dissociated.parquet")):
        write(path, dissociated(pl.read_parquet(path), pl.read_parquet(path.with_name("controlled.parquet"))))
    for study in ONE_ELSEWHERE:
        path = STUDIES / study / "tables/controlled.parquet"
        write(path, pl.read_parquet(path).with_columns(more_low=None, more_high=None, more_quantiles=None))
    folder = STUDIES / "gemma-3-270m/tables"
    answers = pl.read_parquet(folder / "answers.parquet")
    over = [language for language in answers["language"].unique() if language != MAIN]
    write(folder / "drops.parquet", drops(answers, over=over))
    folder = STUDIES / "xquad-qwen2.5-coder-0.5b/reading/tables"
    asked, documents = (pl.read_parquet(folder / f"{name}.parquet") for name in ("tasks", "documents"))
    write(folder / "tasks.parquet", tasks_of(asked, documents, HarnessOptions()))
    path = STUDIES / "forcing/forcing.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    forcing(record)
    write_json(path, record)
    for path in sorted(STUDIES.rglob("claims.md")):
        verdicts(path.parent)


def write(path: Path, made: pl.DataFrame) -> None:
    """Replace a table whose values stay."""
    there = pl.read_parquet(path)
    made = made.cast({name: dtype for name, dtype in there.schema.items() if name in made.columns})
    for name in there.columns:
        if not name.endswith(("low", "high", "quantiles", "p", "p_holm")) and name in made.columns:
            same = (
                made[name].is_close(there[name], abs_tol=1e-6)
                if made[name].dtype.is_float()
                else made[name] == there[name]
            )
            assert (same.fill_null(value=False) | there[name].is_null()).all(), (path, name)
    made.write_parquet(path)
    print(path.relative_to(STUDIES))


def advantages(table: pl.DataFrame) -> pl.DataFrame:
    """The rows of the mean over languages."""
    languages = [language for language in table["language"].unique() if language not in (MAIN, "mean")]
    rows = []
    for row in table.iter_rows(named=True):
        if row["language"] == "mean":
            known = table.filter(
                pl.col("language").is_in(languages), **{name: row[name] for name in ("method", "against", "at")}
            ).drop_nulls("difference")
            means = {name: over_languages(known[name].to_numpy()) for name in ("difference", "worst_difference")}
            if not enough(len(known), len(languages)):
                means = {name: Estimate(mean.value) for name, mean in means.items()}
            row |= means["difference"].plain("difference", quantiles=True)
            row |= means["worst_difference"].named("worst_difference", quantiles=True)
            quantiles = means["difference"].quantiles
            row["p"] = row["p_holm"] = None if quantiles is None else p_at(quantiles, 0.0)
        rows.append(row)
    return pl.DataFrame(rows, schema=table.schema)


def dissociated(table: pl.DataFrame, controlled: pl.DataFrame) -> pl.DataFrame:
    """The row of the mean over pairs, whose languages are left out in turn, and the energy ratios of all."""
    ratios = dict(controlled.filter(control="matched").select("language", "energy_ratio").iter_rows())
    pairs = table.filter(pl.col("language") != "mean").drop_nulls("difference")
    languages = pl.concat([pairs["language"], pairs["other"]]).unique(maintain_order=True).to_list()
    rows = []
    for row in table.iter_rows(named=True):
        named = languages if row["language"] == "mean" else [row["language"], row["other"]]
        row |= {"energy_ratio": None, "unlike": None, **likeness(max(ratios[language] for language in named))}
        if row["language"] == "mean":
            without = [
                pairs.filter(pl.all_horizontal(pl.col("language", "other") != one))["difference"].mean()
                for one in languages
            ]
            row |= over_languages(pseudo_values(pairs["difference"].mean(), np.array(without))).plain(
                "difference", quantiles=True
            )
        rows.append(row)
    return pl.DataFrame(rows, schema={**table.schema, "energy_ratio": pl.Float64, "unlike": pl.String})


def widened(name: str, table: pl.DataFrame, elsewhere: int) -> pl.DataFrame:
    """A table whose percentiles over text and draws are as wide as they can be, were all of their spread the draws': Student's t of few draws.

    How much of the spread is the draws' cannot be told from what is committed.
    """
    if name not in ("controlled", "patched_controlled", "dissociated", "keeping"):
        return table
    rows = []
    for row in table.iter_rows(named=True):
        for value in ("difference", "more", "weaker", "over_control"):
            there = row.get(f"{value}_quantiles")
            if there is not None:
                draws = elsewhere if value == "more" else row["draws"]
                spread = _spread(there)
                ends = row[value] + spread * stdtrit(draws - 1, np.array(LEVELS))
                row |= Estimate.of(row[value], ends).named(value, quantiles=True)
        rows.append(row)
    return pl.DataFrame(rows, schema=table.schema)


def _spread(quantiles: list[float | None]) -> float:
    """The standard deviation of a normal distribution that has such quantiles at `LEVELS`."""
    known = [
        (ndtri(level), one)
        for level, one in zip(LEVELS, quantiles, strict=True)
        if one is not None and 0.01 <= level <= 0.99
    ]
    z, values = np.array(known).T
    return float(z @ values / (z @ z))


def verdicts(study: Path) -> None:
    """Judge a study's claims by its tables as they are now, in run.json; what was not run, and what no table is committed of, stays so.

    claims.md stays as lape 8b941f4 wrote it on 2026-12-03, with the same verdicts.
    """
    record = json.loads((study / "run.json").read_text(encoding="utf-8"))
    there = {one["name"]: one for one in record["claims"]}
    if any("standing" not in one for one in record["claims"]):
        return  # the first edition's, which does not stand
    tables = {path.stem: pl.read_parquet(path) for path in (study / "tables").glob("*.parquet")}
    elsewhere = min(record["options"]["draws"], record["options"].get("elsewhere", 1))
    widest = {name: widened(name, frame, elsewhere) for name, frame in tables.items()}
    over = [language for language in record["recorded_tokens"] if language != MAIN]
    toml = next(path for path in (study / "claims.toml", study.parent / "claims.toml") if path.is_file())
    for claim in read(toml):
        old = there[claim.name]
        if old["verdict"] == "not run" or claim.table not in tables:
            continue
        made, least = (judge(claim, given, {}, over) for given in (tables, widest))
        if made.verdict != least.verdict:
            lost = least.members.filter(pl.col("verdict") != made.members["verdict"])
            ends = ", ".join(f"{row['member']} {row['low']:.3f} to {row['high']:.3f}" for row in lost.to_dicts())
            why = f"were all of the spread the draws', which are few, {ends}"
            members = made.members.with_columns(least.members["verdict"])
            made = replace(made, verdict=least.verdict, members=members, why=why)
        was = [(one["member"], one["value"]) for one in old["members"]]
        now = made.members.select("member", "value").rows()
        assert [member for member, _ in was] == [member for member, _ in now], (study, claim.name)
        assert np.allclose([value for _, value in was], [value for _, value in now]), (study, claim.name)
        if old["verdict"] != made.verdict:
            print(f"{study.relative_to(STUDIES)}: {claim.name}: {old['verdict']} -> {made.verdict}")
        old |= {"verdict": made.verdict, "members": made.members.to_dicts(), "why": made.why, "unlike": made.unlike}
    write_json(study / "run.json", record)


def forcing(record: dict[str, Any]) -> None:
    """Averages over pairs, whose targets are left out in turn."""
    records = record["records"]
    for row in records:
        if row["target"] != "all":
            continue
        pairs = [one for one in records if "all" not in (one["source"], one["target"]) and _alike(one, row)]
        for name in [name.removesuffix("_low") for name in row if name.endswith("_low")]:
            row |= _rounded(
                name, _over_targets({(one["source"], one["target"]): one[name] for one in pairs}, name), row[name]
            )
    reported = [one for one in records if one["split"] == "report" and "all" not in (one["source"], one["target"])]
    for row in record["differences"]:
        name = row["measure"]
        ours, theirs = (
            {(one["source"], one["target"]): one[name] for one in reported if one["family"] == family}
            for family in ("neurons", row["family"])
        )
        apart = {pair: ours[pair] - theirs[pair] for pair in theirs if None not in (ours[pair], theirs[pair])}
        ends = _rounded("", _over_targets(apart, name, by_target=True), row["difference"])
        row |= {"low": ends["_low"], "high": ends["_high"]}


def _alike(pair: dict[str, Any], mean: dict[str, Any]) -> bool:
    """Whether a pair is one of those that a row averages over; on the reporting questions a family has one setting for each target."""
    same = all(pair[name] == mean[name] for name in ("family", "split"))
    return same and (mean["split"] == "report" or pair["setting"] == mean["setting"])


def _over_targets(pairs: dict[tuple[str, str], float | None], name: str, *, by_target: bool = False) -> Estimate:
    """The mean over pairs, of what is compared with the ceiling first within each target."""
    known = {pair: value for pair, value in pairs.items() if value is not None}
    targets = list(dict.fromkeys(target for _, target in known))

    def mean(targets: list[str]) -> float:
        of = [[value for (_, target), value in known.items() if target == one] for one in targets]
        if by_target or name.endswith("ceiling"):
            return float(np.mean([np.mean(values) for values in of]))
        return float(np.mean(np.concatenate(of)))

    left_out = [mean([target for target in targets if target != one]) for one in targets]
    return over_languages(pseudo_values(mean(targets), np.array(left_out)))


def _rounded(name: str, mean: Estimate, there: float) -> dict[str, float | None]:
    value, low, high = mean.interval
    assert value is not None
    assert abs(value - there) < SAME, (name, value, there)
    return {
        f"{name}_low": None if low is None else round(low, 4),
        f"{name}_high": None if high is None else round(high, 4),
    }


if __name__ == "__main__":
    main()
