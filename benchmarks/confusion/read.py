"""What the pilot's answers say: every way with its failures by kind, and neurons beside the best that is not neurons, chosen on other questions.

    python benchmarks/confusion/read.py ANSWERS --words lcb/words.txt --name qwen2.5-coder-0.5b --out docs/studies/confusion/tables

ANSWERS: the pilot's folder. Writes NAME-answers (judged, without the benchmark's prompts; ways that an earlier reading has stay), NAME-confusion and
NAME-confusion_changes (the tables of `lape confusion`: each way is a condition, the first is `none`; draws of a way are its seeds), NAME-kl of each
way (null where it is infinite), and NAME-chosen (`CHOSEN`).
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from ways import WAYS

from lape.experiments.confusion.answers import read_answers
from lape.experiments.confusion.run import scored
from lape.experiments.confusion.table import rates
from lape.measure.bootstrap import Resamples
from lape.measure.intervals import ENDS
from lape.store.run import read_table, write_table

FAMILY = {way.name: way.family for way in WAYS}
ROOM = 0.12
"""A rival that fails less than this leaves no room."""
PRIVATE = ("prompt", "reasoning", "reasoning_language")
"""Columns that are not kept: the benchmark's prompts, and what is empty here."""
SCALED = [way.name for way in WAYS if way.name.startswith(("head ×", "line + head ×"))]
"""Ways with the head scaled, alone or with neurons."""
EDITS = [way.name for way in WAYS if way.family in ("neurons", "neurons and head") or way.name in SCALED]
"""What `lape fix` tries."""
LATER = ("line + add × .35", "line + head × 1.5 + add × .25")
"""Edits that were measured when all others had been read."""
SIDES: Mapping[str, Sequence[str]] = {
    "neurons": [way.name for way in WAYS if way.family == "neurons"],
    "neurons alone": [way.name for way in WAYS if way.family == "neurons" and not way.line],
    "head": [way.name for way in WAYS if way.name in SCALED and way.family == "head"],
    "edits": EDITS,
    "edits at first": [name for name in EDITS if name not in LATER],
    "one other": [
        way.name
        for way in WAYS
        if way.family in ("none", "prompt") or (way.family in ("output", "residual") and not way.line)
    ],
    "one rival": [
        way.name
        for way in WAYS
        if way.family not in ("neurons", "neurons and head", "noise")
        and "control" not in way.name
        and (way.family in ("none", "prompt") or not way.line)
    ],
    "prompt": [way.name for way in WAYS if way.family in ("none", "prompt")],
    "any rival": [
        way.name
        for way in WAYS
        if way.family not in ("neurons", "neurons and head", "noise") and "control" not in way.name
    ],
}
"""Who is compared: neurons with the line or without; `edits`: neurons, the head, both; `at first`, without the `LATER` ones; rivals one
at a time, or the line together with another one; `one other`: rivals one at a time, without heads.
"""
PAIRS = (
    ("edits", "one other"),
    ("edits at first", "one other"),
    ("neurons", "one rival"),
    ("head", "prompt"),
    ("neurons", "any rival"),
    ("neurons alone", "one rival"),
)
CHOSEN = {
    **dict.fromkeys(("side", "rival", "language"), pl.String),
    "questions": pl.Int64,
    **dict.fromkeys(("ways", "rivals"), pl.String),
    **{
        f"{name}{end}": pl.Float64
        for name in ("none", "failing", "rival_failing", "difference", "ratio")
        for end in ENDS
    },
}
"""A row per pair of sides and language, the mean of all languages, and of those with `room` (where the rival fails in .12 or more). On each half of the
cross-lingual questions the best way of a side is chosen for each language by failures, then by KL divergence, among those within the bound (ways that change
the prompt alone are not bound); `ways` and `rivals` name the two. `failing` and the others are shares on the half that the choice was not made on, both halves
together.
"""


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


class Halves:
    """Cross-lingual answers that fail, by way, language and question; questions in two halves by turns."""

    def __init__(self, judged: pl.DataFrame, kl: pl.DataFrame, bound: float) -> None:
        cross = judged.filter(pl.col("condition").is_in([*FAMILY]), task="crosslingual")
        self.questions = sorted(cross["question"].unique())
        self.half = np.arange(len(self.questions)) % 2
        self.near = {
            (row["way"], row["language"]): np.inf if row["kl"] is None else row["kl"]
            for row in kl.iter_rows(named=True)
        }
        self.bound = bound
        self.fails: dict[tuple[str, str], np.ndarray[Any, Any]] = {}
        place = {name: k for k, name in enumerate(self.questions)}
        for (way, language), some in cross.group_by("condition", "language", maintain_order=True):
            fails = np.full(len(self.questions), np.nan)
            fails[[place[one] for one in some["question"]]] = some["kind"].is_not_null()
            self.fails[str(way), str(language)] = fails
        self.languages = list(dict.fromkeys(language for _, language in self.fails))

    def best(self, side: str, language: str, half: int) -> str | None:
        """The way of a side that fails least on a half."""
        tried = []
        for way in SIDES[side]:
            if (way, language) not in self.fails:
                continue
            divergence = self.near.get((way, language), 0.0)
            edits = FAMILY[way] not in ("none", "prompt")
            if not (edits and divergence > self.bound):
                tried.append((float(np.mean(self.fails[way, language][self.half == half])), divergence, way))
        return min(tried)[2] if tried else None

    def held_out(self, side: str, language: str) -> tuple[np.ndarray[Any, Any], str] | None:
        """Which answers of a side fail, each question under the way that was chosen on the other half."""
        ways = [self.best(side, language, half) for half in (0, 1)]
        if None in ways:
            return None
        fails = np.where(self.half == 1, *(self.fails[str(way), language] for way in ways))
        return fails, "; ".join(map(str, dict.fromkeys(ways)))

    def rows(self) -> Iterator[dict[str, Any]]:
        resamples = Resamples(len(self.questions), 2000, 0)
        for side, rival in PAIRS:
            known = {}
            for language in self.languages:
                ours, theirs = self.held_out(side, language), self.held_out(rival, language)
                if ours and theirs:
                    known[language] = ours, theirs
            groups = {language: [language] for language in known}
            room = [language for language, (_, theirs) in known.items() if theirs[0].mean() >= ROOM]
            for name, languages in {**groups, "all": [*known], "room": room}.items():
                if not languages:
                    continue
                three = {
                    "none": np.mean([self.fails["none", k] for k in languages], 0),
                    "failing": np.mean([known[k][0][0] for k in languages], 0),
                    "rival_failing": np.mean([known[k][1][0] for k in languages], 0),
                }
                means = {key: resamples.weights @ value / len(self.questions) for key, value in three.items()}
                means["difference"] = means["failing"] - means["rival_failing"]
                with np.errstate(divide="ignore", invalid="ignore"):
                    means["ratio"] = means["failing"] / means["rival_failing"]
                row: dict[str, Any] = {"side": side, "rival": rival, "language": name, "questions": len(self.questions)}
                row |= (
                    {"ways": known[name][0][1], "rivals": known[name][1][1]}
                    if name in known
                    else {"ways": " ".join(languages), "rivals": None}
                )
                for key, values in means.items():
                    row |= resamples.named(key, values) if np.isfinite(values).all() else {}
                yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--words", type=Path)
    parser.add_argument("--bound", type=float, default=0.1)
    parser.add_argument("--name", required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    found = ordered(read_answers(sorted(given.answers.glob("*.jsonl"))), "condition")
    judged = scored(drawn(found), words=given.words, resamples=1)["confused_answers"].drop(PRIVATE)
    kl = divergences(given.answers)
    judged = with_earlier(judged, "condition", given.out / f"{given.name}-answers.parquet")
    kl = with_earlier(kl, "way", given.out / f"{given.name}-kl.parquet")
    judged = whole(judged)
    table, changes = rates(judged.with_columns(pl.lit(None, pl.String).alias(name) for name in PRIVATE))
    best = pl.DataFrame([*Halves(judged, kl, given.bound).rows()], schema=CHOSEN)
    kl = kl.filter(pl.col("way").is_in([*FAMILY])).join(
        judged.select(way=pl.col("condition")).unique(), on="way", how="semi", maintain_order="left"
    )
    tables = {
        "answers": judged,
        "confusion": table,
        "confusion_changes": changes,
        "kl": kl,
        "chosen": best,
    }
    given.out.mkdir(parents=True, exist_ok=True)
    for name, one in tables.items():
        write_table(given.out / f"{given.name}-{name}.parquet", one)
    show(table, kl, best)


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
        near = means.get(re.sub(", drawn$", "", row["condition"]))
        numbers = [f"{row['lpr']:.3f}", f"{row['failing']:.3f}{ends}", "" if near is None else f"{near:.3f}"]
        print(f"| {' | '.join([row['condition'], *numbers, *parts])} |")
    for row in best.iter_rows(named=True):
        said = [
            f"{row[name]:.3f}" if row[name] is not None else ""
            for name in ("none", "failing", "rival_failing", "difference_low", "difference_high", "ratio")
        ]
        print(
            f"| {row['side']} | {row['rival']} | {row['language']} | {row['ways']} | {row['rivals']} | {' | '.join(said)} |"
        )


if __name__ == "__main__":
    main()
