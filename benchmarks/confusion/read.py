"""Judge the pilot's answers: every way with its failures by kind. `choose.py` then compares the best ways, from the tables written here.

    python benchmarks/confusion/read.py ANSWERS --words lcb/words.txt --name qwen2.5-coder-0.5b --out docs/studies/confusion/tables

ANSWERS: the pilot's folder, or the table NAME-answers of an earlier reading, whose answers are judged by today's rule. Writes NAME-answers (judged,
without the benchmark's prompts; ways that an earlier reading has stay), NAME-confusion and NAME-confusion_changes (the tables of `lape confusion`: each
way is a condition, the first is `none`; draws of a way are its seeds), and NAME-kl of each way (null where it is infinite). From a table also
NAME-verdicts: how many answers got which kind of failure instead of which.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import polars as pl
from ways import WAYS

from lape.experiments.confusion.answers import GIVEN, read_answers
from lape.experiments.confusion.run import scored
from lape.experiments.confusion.table import rates
from lape.store.run import read_table, write_table

PRIVATE = ("prompt", "reasoning", "reasoning_language")
"""Columns that are not kept: the benchmark's prompts, and what is empty here."""


def divergences(folder: Path) -> pl.DataFrame:
    """The KL divergence of every way, nats a token, on the unedited model's own answers in the right language."""
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.kl.json"))]
    kinds = {"way": pl.String, "language": pl.String, "kl": pl.Float64, "kl_median": pl.Float64, "tokens": pl.Int64}
    found = ordered(pl.DataFrame(rows, schema=kinds), "way")
    masked = pl.col("way").is_in(
        [way.name for way in WAYS if way.mask]
    )  # what it never lets pass is likely for the model
    return found.with_columns(pl.when(masked).then(None).otherwise(name).alias(name) for name in ("kl", "kl_median"))


def whole(judged: pl.DataFrame) -> pl.DataFrame:
    """Without ways that were not asked in every language yet."""
    languages = judged.group_by("condition", maintain_order=True).agg(pl.col("language").n_unique().alias("count"))
    return judged.join(
        languages.filter(count=languages["count"].max()), on="condition", how="semi", maintain_order="left"
    )


def with_earlier(frame: pl.DataFrame, column: str, path: Path) -> pl.DataFrame:
    """With what an earlier reading has of other ways."""
    if not path.is_file():
        return frame
    earlier = read_table(path).filter(~pl.col(column).is_in(frame[column].unique().to_list()))
    return ordered(pl.concat([frame, earlier]), column)


def ordered(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """In the order of the ways; draws of a way one by one or together."""
    order = {name: k for k, way in enumerate(WAYS) for name in (way.name, re.sub(r", seed \d+$", ", drawn", way.name))}
    place = pl.col(column).replace_strict(order, return_dtype=pl.Int64)
    return frame.with_columns(place.alias("order")).sort("order", maintain_order=True).drop("order")


def drawn(frame: pl.DataFrame) -> pl.DataFrame:
    """Draws of a way as seeds of one condition."""
    seed = pl.col("condition").str.extract(r", seed (\d+)$").cast(pl.Int64)
    named = pl.col("condition").str.replace(r", seed \d+$", ", drawn")
    return frame.with_columns(seed.fill_null(0).alias("seed"), named)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--words", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    again = given.answers.is_file()
    if again:
        found = read_table(given.answers)
        kl = read_table(given.answers.with_name(f"{given.name}-kl.parquet"))
    else:
        found = drawn(ordered(read_answers(sorted(given.answers.glob("*.jsonl"))), "condition"))
        kl = divergences(given.answers)
    asked = found.select(name for name in GIVEN if name in found.columns)
    judged = scored(asked, words=given.words, resamples=1)["confused_answers"].drop(PRIVATE)
    verdicts = pl.DataFrame({"before": found["kind"], "now": judged["kind"]}) if again else None
    judged = with_earlier(judged, "condition", given.out / f"{given.name}-answers.parquet")
    kl = with_earlier(kl, "way", given.out / f"{given.name}-kl.parquet")
    judged = whole(judged)
    table, changes = rates(judged.with_columns(pl.lit(None, pl.String).alias(name) for name in PRIVATE))
    kl = kl.filter(pl.col("way").is_in([way.name for way in WAYS])).join(
        judged.select(way=pl.col("condition")).unique(), on="way", how="semi", maintain_order="left"
    )
    tables = {
        "answers": judged,
        "confusion": table,
        "confusion_changes": changes,
        "kl": kl,
    }
    if verdicts is not None:
        tables["verdicts"] = verdicts.group_by("before", "now").agg(pl.len().alias("answers")).sort("before", "now")
    given.out.mkdir(parents=True, exist_ok=True)
    for name, one in tables.items():
        write_table(given.out / f"{given.name}-{name}.parquet", one)
    show(table, kl)


def show(table: pl.DataFrame, kl: pl.DataFrame) -> None:
    whole = table.filter(task="crosslingual", source="all")
    means = {row["way"]: row["kl"] for row in kl.group_by("way").agg(pl.col("kl").mean()).iter_rows(named=True)}
    languages = [one for one in whole["language"].unique(maintain_order=True) if one != "all"]
    print(f"| way | LPR | failing | KL | {' | '.join(languages)} |")
    for row in whole.filter(language="all").iter_rows(named=True):
        each = whole.filter(condition=row["condition"])
        parts = [
            f"{each.filter(language=one)['failing'][0]:.2f}" if len(each.filter(language=one)) else ""
            for one in languages
        ]
        ends = "" if row["failing_low"] is None else f" ({row['failing_low']:.2f}–{row['failing_high']:.2f})"
        near = means.get(re.sub(", drawn$", "", row["condition"]))
        numbers = [f"{row['lpr']:.3f}", f"{row['failing']:.3f}{ends}", "" if near is None else f"{near:.3f}"]
        print(f"| {' | '.join([row['condition'], *numbers, *parts])} |")


if __name__ == "__main__":
    main()
