"""Compare the best edit with the best way that needs neither neurons nor heads, from the committed tables of `read.py`.

    python benchmarks/confusion/choose.py docs/studies/confusion/tables --name qwen2.5-coder-0.5b

Reads NAME-answers and NAME-kl. Writes NAME-chosen (`CHOSEN`) and NAME-rule (`RULE`). Needs no model.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import t as student
from ways import WAYS

from lape.store.run import read_table, write_table

Floats = NDArray[np.float64]

WRONG = ("other_script", "other_language", "slipped")
"""Kinds of failure in which an answer, or a stretch of it, is in another language or script."""
RULE_KINDS = ("line", "word")
"""Kinds of failure by the benchmark's rule alone: a line that its identifier gives another language, or an English word."""
MEASURES: Mapping[str, Sequence[str] | None] = {"wrong": WRONG, "failing": None}
"""The measure that ways are chosen by and reported in; None stands for a failure of any kind."""

_WITH_HEAD = [way.name for way in WAYS if way.name.startswith(("head ×", "line + head ×"))]
_EDITS = [way for way in WAYS if way.family in ("neurons", "neurons and head") or way.name in _WITH_HEAD]
_OTHERS = [way for way in WAYS if way.family in ("none", "prompt", "output", "residual")]
SIDES: Mapping[str, Sequence[str]] = {
    "edits": [way.name for way in _EDITS],
    "edits without the line": [way.name for way in _EDITS if not way.line],
    "neurons": [way.name for way in _EDITS if way.family == "neurons"],
    "others": [way.name for way in _OTHERS],
    "others without the line": [way.name for way in _OTHERS if not way.line],
    "prompts": [way.name for way in _OTHERS if way.family in ("none", "prompt")],
}
"""The ways of each side. Edits change neurons, one attention head or both. Others need neither: prompts, the residual stream, the output layer."""
PAIRS = (
    ("edits", "others"),
    ("edits", "prompts"),
    ("neurons", "others"),
    ("edits without the line", "others without the line"),
)
PROMPTS = ("none", "prompt")
"""Families that the bound on KL divergence does not apply to: they leave the weights alone."""

CHOSEN = {
    **dict.fromkeys(("side", "rival", "measure", "language"), pl.String),
    "questions": pl.Int64,
    **dict.fromkeys(("way", "rival_way"), pl.String),
    **dict.fromkeys(("tried", "rival_tried"), pl.Int64),
    **dict.fromkeys(
        (
            *("none", "line", "failing", "rival_failing"),
            *("difference", "difference_low", "difference_high", "ratio", "ratio_low", "ratio_high"),
            *("spread_low", "spread_high", "over_languages_low", "over_languages_high"),
        ),
        pl.Float64,
    ),
    **dict.fromkeys(("halvings", "resamples", "seed"), pl.Int64),
}
"""A row per pair of sides, measure and language, and the mean over languages (`all`).

`none`, `line`: the unedited model, and with the line in its system prompt. The questions are halved at random; rephrasings of a question stay together.
On one half the best way of each side is chosen per language by the measure, then by KL divergence, among ways within the bound. The other half measures
it, and the halves change places. `failing`, `rival_failing`, `difference` and `ratio` are means over `halvings` such halvings (the ratio is that of the
means). `spread_*`: 5th and 95th percentile of the ratio over halvings. `*_low` and `*_high`: 95 % interval; each of `resamples` bootstrap draws of
questions is halved, and chosen on, anew. `over_languages_*`: the interval of the difference by Student's t, where the languages are a sample too. `way`,
`rival_way`: chosen most often. `tried`: how many ways lie within the bound.
"""

RULE = {
    **dict.fromkeys(("condition", "task", "language", "kind"), pl.String),
    **dict.fromkeys(("answers", "failing", "right_as_a_whole"), pl.Int64),
}
"""A row per condition, task, language and kind of `RULE_KINDS`: how many answers fail by it, and how many of these are right as a whole.

Right as a whole: the benchmark's identifier or, where that sees another language, lingua gives the whole answer the wanted language, most letters are in
its script, and no earlier kind holds (another script or language, a slip, a refusal, repetition).
"""


class Failures:
    """Shares of cross-lingual answers that fail, (questions, languages, ways), and the ways that each side may choose from."""

    def __init__(self, answers: pl.DataFrame, kl: pl.DataFrame, bound: float, kinds: Sequence[str] | None) -> None:
        names = {way.name: way for way in WAYS}
        answers = answers.filter(pl.col("condition").is_in([*names]), task="crosslingual")
        self.questions = answers["question"].unique(maintain_order=True).sort().to_list()
        self.languages = answers["language"].unique(maintain_order=True).to_list()
        self.ways = answers["condition"].unique(maintain_order=True).to_list()
        fails = pl.col("kind").is_not_null() if kinds is None else pl.col("kind").is_in(kinds).fill_null(value=False)
        places = (
            pl.col("question").replace_strict(self.questions, range(len(self.questions))),
            pl.col("language").replace_strict(self.languages, range(len(self.languages))),
            pl.col("condition").replace_strict(self.ways, range(len(self.ways))),
        )
        # rephrasings of a question have its name, and count as one
        grouped = (
            answers.group_by("question", "language", "condition").agg(fails.mean().alias("fails")).with_columns(*places)
        )
        self.fails: Floats = np.full((len(self.questions), len(self.languages), len(self.ways)), np.nan)
        self.fails[tuple(grouped.select("question", "language", "condition").to_numpy().T)] = grouped["fails"]
        if np.isnan(self.fails).any():
            raise SystemExit(
                "Not every way has an answer to every question in every language. Run pilot.py to the end."
            )
        far = {(row["way"], row["language"]): row["kl"] for row in kl.iter_rows(named=True)}
        self.kl: Floats = np.array(
            [[_far(far.get((way, language), 0.0)) for way in self.ways] for language in self.languages]
        )
        free = np.array([names[way].family in PROMPTS for way in self.ways])
        within = free | (self.kl <= bound)
        self.open = {side: within & np.isin(self.ways, ways) for side, ways in SIDES.items()}
        """Side -> (languages, ways) bool."""

    def best(self, shares: Floats, side: str) -> NDArray[np.int64]:
        """(rows, languages) the way of a side that fails least, then has the least KL divergence: `shares` is (rows, languages, ways)."""
        tie = 1e-9 * np.minimum(self.kl, 1e6)
        found: NDArray[np.int64] = np.where(self.open[side], shares + tie, np.inf).argmin(axis=-1)
        return found


def _far(kl: float | None) -> float:
    """The KL divergence; infinite where the table has none, as of a mask."""
    return np.inf if kl is None else kl


class Halvings:
    """The failing shares of the ways that are chosen on one half of the questions, on the other: per side, in each halving and each resample."""

    def __init__(self, failures: Failures, halvings: int, resamples: int, seed: int) -> None:
        self.failures, self.halvings, self.resamples, self.seed = failures, halvings, resamples, seed
        count, random = len(failures.questions), np.random.default_rng((seed, 1))
        drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
        self.chosen = {side: np.zeros(failures.kl.shape) for side in SIDES}
        """Side -> (languages, ways) how often each was chosen, of twice the number of halvings."""
        shape = (len(failures.languages),)
        self.halved = {side: np.zeros((halvings, *shape)) for side in SIDES}
        self.drawn = {side: np.zeros((resamples, *shape)) for side in SIDES}
        for number in range(halvings):
            for side, (share, ways) in self._halve(np.ones(count), random).items():
                self.halved[side][number] = share
                for half in ways:
                    self.chosen[side][np.arange(len(half)), half] += 1
        for number in range(resamples):
            for side, (share, _) in self._halve(drawn[number].astype(float), random).items():
                self.drawn[side][number] = share

    def _halve(self, weights: Floats, random: np.random.Generator) -> dict[str, tuple[Floats, list[NDArray[np.int64]]]]:
        """Side -> (languages,) its share of failures on the half that did not choose, both halves together, and what each half chose."""
        count = len(weights)
        first = np.zeros(count)
        first[random.permutation(count)[: count // 2]] = 1
        halves = [np.tensordot(weights * half, self.failures.fails, 1) for half in (first, 1 - first)]
        found = {}
        for side in SIDES:
            ways = [self.failures.best(half[None], side)[0] for half in halves]
            places = np.arange(len(ways[0]))
            failing = halves[1][places, ways[0]] + halves[0][places, ways[1]]
            found[side] = failing / weights.sum(), ways
        return found

    def rows(self, side: str, rival: str, measure: str) -> Iterator[dict[str, Any]]:
        """Rows of `CHOSEN`."""
        failures = self.failures
        fixed = {way: failures.fails[:, :, failures.ways.index(way)].mean(0) for way in ("none", "line")}
        languages = failures.languages
        groups = {name: [place] for place, name in enumerate(languages)} | {"all": [*range(len(languages))]}
        for name, places in groups.items():
            halved, rivals = (self.halved[one][:, places].mean(1) for one in (side, rival))
            drawn, rivals_drawn = (self.drawn[one][:, places].mean(1) for one in (side, rival))
            row: dict[str, Any] = {
                "side": side,
                "rival": rival,
                "measure": measure,
                "language": name,
                "questions": len(failures.questions),
                **{way: share[places].mean() for way, share in fixed.items()},
                "failing": halved.mean(),
                "rival_failing": rivals.mean(),
                "halvings": self.halvings,
                "resamples": self.resamples,
                "seed": self.seed,
            }
            row |= _interval("difference", halved.mean() - rivals.mean(), drawn - rivals_drawn)
            if len(places) == 1:
                row |= {
                    "way": failures.ways[self.chosen[side][places[0]].argmax()],
                    "rival_way": failures.ways[self.chosen[rival][places[0]].argmax()],
                    "tried": failures.open[side][places[0]].sum(),
                    "rival_tried": failures.open[rival][places[0]].sum(),
                }
            elif (rivals > 0).all() and (rivals_drawn > 0).all():
                row |= _interval("ratio", halved.mean() / rivals.mean(), drawn / rivals_drawn)
                row |= dict(zip(("spread_low", "spread_high"), np.percentile(halved / rivals, [5, 95]), strict=True))
            if len(places) > 1:
                half = self._over_languages(self.drawn[side] - self.drawn[rival])
                row |= {"over_languages_low": row["difference"] - half, "over_languages_high": row["difference"] + half}
            yield row

    def _over_languages(self, differences: Floats) -> float:
        """Half the 95 % interval of the mean by Student's t, with the languages resampled too: `differences` is (resamples, languages).

        One language fewer than there are is drawn, and counts for more (Rao and Wu 1988): so few vary too little otherwise.
        """
        count = differences.shape[1]
        times = np.random.default_rng((self.seed, count)).multinomial(
            count - 1, np.full(count, 1 / count), size=len(differences)
        )
        means = (differences * times).sum(1) / (count - 1)
        return float(means.std(ddof=1) * student.ppf(0.975, count - 1))


def _interval(name: str, value: float, drawn: Floats) -> dict[str, float]:
    """The value with the 2.5th and 97.5th percentile of its draws, as columns of a row. A choice has no smooth derivative, so nothing is corrected."""
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {name: value, f"{name}_low": float(low), f"{name}_high": float(high)}


def right_as_a_whole(answers: pl.DataFrame) -> pl.DataFrame:
    """Rows of `RULE`."""
    by = ("condition", "task", "language")
    whole = (pl.col("identified") == pl.col("language")).fill_null(value=False) & ~pl.col("script_switched")
    counts = [
        answers.group_by(*by, maintain_order=True).agg(
            pl.lit(kind).alias("kind"),
            pl.len().alias("answers"),
            (pl.col("kind") == kind).sum().alias("failing"),
            ((pl.col("kind") == kind) & whole).sum().alias("right_as_a_whole"),
        )
        for kind in RULE_KINDS
    ]
    return pl.concat(counts).select(pl.col(name).cast(kind) for name, kind in RULE.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, help="folder of the tables that read.py wrote")
    parser.add_argument("--name", required=True)
    parser.add_argument("--bound", type=float, default=0.1, help="largest KL divergence of an edit, nats per token")
    parser.add_argument("--halvings", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    answers, kl = (read_table(given.tables / f"{given.name}-{name}.parquet") for name in ("answers", "kl"))
    rows = []
    for measure, kinds in MEASURES.items():
        halvings = Halvings(Failures(answers, kl, given.bound, kinds), given.halvings, given.resamples, given.seed)
        rows += [row for side, rival in PAIRS for row in halvings.rows(side, rival, measure)]
    chosen = pl.DataFrame(rows, schema=CHOSEN)
    write_table(given.tables / f"{given.name}-chosen.parquet", chosen)
    write_table(given.tables / f"{given.name}-rule.parquet", right_as_a_whole(answers))
    for row in chosen.filter(language="all").iter_rows(named=True):
        ratio = "none" if row["ratio"] is None else f"{row['ratio']:.2f}"
        print(
            f"{row['side']} and {row['rival']}, {row['measure']}: {row['failing']:.3f} and {row['rival_failing']:.3f}, "
            f"difference {row['difference']:+.3f} ({row['difference_low']:+.3f} to {row['difference_high']:+.3f}), ratio {ratio}"
        )


if __name__ == "__main__":
    main()
