"""What the pilot's answers say: every way with its failures by kind, beside the best that is not neurons, with intervals over questions.

    python benchmarks/confusion/read.py ANSWERS --words lcb/words.txt --out docs/studies/confusion/qwen2.5-coder-0.5b

Writes the tables `confusion` and `confusion_changes` of `lape confusion` (each way is a condition, the first is `none`), `kl` of each way, and `chosen`: on
one half of the cross-lingual questions the best way with neurons and the best without are chosen for each language, by failures and then by KL, among
those within `--bound` nats of KL divergence (ways that change the prompt too are not bound); on the other half both are reported, with their paired
difference; and the halves change places.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from ways import WAYS

from lape.experiments.confusion.answers import read_answers
from lape.experiments.confusion.run import scored
from lape.measure.bootstrap import Resamples
from lape.store.run import write_table

RIVALS = ("none", "prompt", "output", "residual", "head")
FAMILY = {way.name: way.family for way in WAYS}


def divergences(folder: Path) -> pl.DataFrame:
    """The KL divergence of every way, nats a token, on the unedited model's own answers in the right language."""
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.kl.json"))]
    return pl.DataFrame(
        rows,
        schema={"way": pl.String, "language": pl.String, "kl": pl.Float64, "kl_median": pl.Float64, "tokens": pl.Int64},
    )


def chosen(judged: pl.DataFrame, kl: pl.DataFrame, bound: float) -> pl.DataFrame:
    """The best with and without neurons, chosen on one half of the questions and reported on the other."""
    cross = judged.filter(task="crosslingual").with_columns(pl.col("kind").is_not_null().alias("failing"))
    names = sorted(cross["question"].unique())
    halves = {one: k % 2 for k, one in enumerate(names)}
    cross = cross.with_columns(pl.col("question").replace_strict(halves).alias("half"))
    near = {(row["way"], row["language"]): row["kl"] for row in kl.iter_rows(named=True)}
    rows = []
    for language in cross["language"].unique(maintain_order=True):
        mine = cross.filter(language=language)
        shares = mine.group_by("condition", "half").agg(pl.col("failing").mean(), pl.len())
        for half in (0, 1):
            best = {}
            for side, families in (("neurons", ("neurons",)), ("rival", RIVALS)):
                tried = []
                for row in shares.filter(half=half).iter_rows(named=True):
                    way, divergence = row["condition"], near.get((row["condition"], language), 0.0)
                    edits = FAMILY[way] not in ("none", "prompt")
                    if FAMILY[way] in families and "control" not in way and not (edits and divergence > bound):
                        tried.append((row["failing"], divergence, way))
                best[side] = min(tried)[2] if tried else None
            if None in best.values():
                continue
            row = {"language": language, "chosen_on": half, **best}
            rows.append(row | reported(mine.filter(half=1 - half), best["neurons"], best["rival"]))
    return pl.DataFrame(rows)


def reported(answers: pl.DataFrame, ours: str, theirs: str) -> dict[str, Any]:
    """Failures of both, and their paired difference, over questions."""
    wide = answers.filter(pl.col("condition").is_in([ours, theirs, "none"])).pivot(
        "condition", index="question", values="failing"
    )
    drawn = Resamples(len(wide), 2000, 0)
    a, b = (wide[name].cast(pl.Float64).to_numpy() for name in (ours, theirs))
    row: dict[str, Any] = {"questions": len(wide), "none_failing": float(wide["none"].mean())}  # type: ignore[arg-type]
    row |= {"neurons_failing": float(np.mean(a)), "rival_failing": float(np.mean(b))}
    return row | drawn.named("difference", drawn.weights @ (a - b) / len(wide))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--words", type=Path)
    parser.add_argument("--bound", type=float, default=0.1)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    order = {way.name: k for k, way in enumerate(WAYS)}
    found = read_answers(sorted(given.answers.glob("*.jsonl")))
    found = (
        found.with_columns(pl.col("condition").replace_strict(order, return_dtype=pl.Int64).alias("order"))
        .sort("order", maintain_order=True)
        .drop("order")
    )
    result = scored(found, words=given.words)
    kl = divergences(given.answers)
    given.out.mkdir(parents=True, exist_ok=True)
    best = chosen(result["confused_answers"], kl, given.bound)
    tables = {
        "confusion": result["confusion"],
        "confusion_changes": result["confusion_changes"],
        "kl": kl,
        "chosen": best,
    }
    for name, table in tables.items():
        write_table(given.out / f"{name}.parquet", table)
    show(result["confusion"], kl, best)


def show(table: pl.DataFrame, kl: pl.DataFrame, best: pl.DataFrame) -> None:
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
        near = means.get(row["condition"])
        numbers = [f"{row['lpr']:.3f}", f"{row['failing']:.3f}{ends}", "" if near is None else f"{near:.3f}"]
        print(f"| {' | '.join([row['condition'], *numbers, *parts])} |")
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=200, float_precision=3):
        print(best)


if __name__ == "__main__":
    main()
