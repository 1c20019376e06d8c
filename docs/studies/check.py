"""The headline figures of the pages, computed again from the committed tables by plain arithmetic: `python docs/studies/check.py`.

Uses numpy, polars and scipy, and nothing of lape: what lape's own functions wrote is held to what the tables' rows give. Each figure says what is printed,
and where; tests/docs/test_check.py runs it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import t

DOCS = Path(__file__).parents[1]
STUDIES = Path(__file__).parent
GEMMA = "gemma-3-270m"
OTHERS = ("zh", "fr", "es", "vi", "id", "ja")
"""All of Gemma's languages but English."""


def table(study: str, name: str) -> pl.DataFrame:
    return pl.read_parquet(STUDIES / study / "tables" / f"{name}.parquet")


@dataclass(frozen=True)
class Figure:
    """A row of figures."""

    about: str
    page: str
    """From docs/, or ../README.md."""
    printed: str
    """Its figures as the page has them, with a space between."""
    computed: Callable[[], Sequence[float]]

    @property
    def numbers(self) -> list[float]:
        return [float(one.replace("−", "-")) for one in self.printed.split()]

    @property
    def agrees(self) -> bool:
        """Whether each computed figure rounds to the printed one."""
        computed = list(self.computed())
        return len(computed) == len(self.numbers) and all(
            abs(value - float(printed.replace("−", "-"))) <= 0.5001 * 10.0 ** -_digits(printed)
            for value, printed in zip(computed, self.printed.split(), strict=True)
        )

    @property
    def on_page(self) -> bool:
        """Whether the page has all of them."""
        text = (DOCS / self.page).read_text(encoding="utf-8").replace("−", "-")
        return all(
            re.search(rf"(?<![\d.]){re.escape(one.replace('−', '-')).lstrip('0')}(?!\d)", text.replace("0.", "."))
            if one.startswith((".", "0."))
            else re.search(rf"(?<![\d.]){re.escape(one.replace('−', '-'))}(?!\d)", text)
            for one in self.printed.split()
        )


def _digits(printed: str) -> int:
    return len(printed.partition(".")[2])


# what a language's neurons cost


def own_more(study: str, languages: Sequence[str]) -> list[float]:
    """Own less the mean of the others', less the same of the matched control, nats per sentence: from the matrix of losses."""
    lost = table(study, "perplexity")
    control = dict(table(study, "controlled").filter(control="matched").select("language", "control_more").iter_rows())
    found = []
    for language in languages:
        own = lost.filter(off=language, language=language)["delta_sentence"].item()
        others = lost.filter(pl.col("language") != language, off=language)["delta_sentence"].to_numpy()
        found.append(own - others.mean() - control[language])
    return found


def own_loss(study: str, languages: Sequence[str]) -> list[float]:
    lost = table(study, "perplexity")
    return [lost.filter(off=one, language=one)["delta_token"].item() for one in languages]


def sizes(study: str, languages: Sequence[str]) -> list[float]:
    lost = table(study, "perplexity")
    return [lost.filter(off=one, language=one)["neurons"].item() for one in languages]


def first_layer(column: str, *, ends: bool = False) -> list[float]:
    rows = table(GEMMA, "keeping").filter(place="first layer")
    found = [rows.filter(language=one)[column].item() for one in OTHERS]
    return [min(found), max(found)] if ends else found


# selection methods at equal own effect


def curve(study: str, method: str, language: str) -> tuple[np.ndarray, np.ndarray]:
    """Own effect and what the others lose, by size; from the sizes at which the language has a set."""
    rows = table(study, "frontier").filter(method=method, language=language).drop_nulls("own").sort("size")
    return rows["own"].to_numpy(), rows["others"].to_numpy()


def at(own: np.ndarray, others: np.ndarray, level: float) -> float:
    """What the others lose where the own effect first reaches a level, on a straight line between two sizes."""
    k = max(int(np.argmax(own >= level)), 1) if (own >= level).any() else len(own) - 1
    share = np.clip((level - own[k - 1]) / (own[k] - own[k - 1]), 0, 1)
    return float(others[k - 1] + share * (others[k] - others[k - 1]))


def areas(study: str, rule: str) -> dict[str, tuple[float, float]]:
    """Language -> (how much more the rule costs the others than LAPE, the share of the levels at which both were measured)."""
    found = {}
    rows = table(study, "frontier")
    for language in rows["language"].unique(maintain_order=True):
        whole = rows.filter(method="lape, published", language=language)["own"].item()
        if language in ("en", "mean") or whole <= 0:
            continue
        lape, other = curve(study, "lape", language), curve(study, rule, language)
        low = max(0.25, *(own.min() / whole for own, _ in (lape, other)))
        high = min(1.0, *(own.max() / whole for own, _ in (lape, other)))
        if low < high:
            levels = np.linspace(low, high, 25) * whole
            found[language] = (
                float(np.mean([at(*other, one) - at(*lape, one) for one in levels])),
                (high - low) / 0.75,
            )
    return found


def mean_area(study: str, rule: str) -> list[float]:
    """The mean over languages, and its t interval."""
    return over([value for value, _ in areas(study, rule).values()])


def mean_and_covered(study: str, rule: str) -> list[float]:
    found = np.array([*areas(study, rule).values()])
    return [-float(found[:, 0].mean()), float(found[:, 1].mean())]


def over(values: Sequence[float]) -> list[float]:
    """Mean, low and high by Student's t."""
    found = np.array(values)
    half = float(t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found)))
    return [float(found.mean()), float(found.mean()) - half, float(found.mean()) + half]


# answers


def forced(family: str, column: str, *, tuned: bool | None = None) -> list[float]:
    """A share over the ceiling's: the mean of each target's pairs, then Student's t over the targets; of pairs tuned on, or not, the plain mean."""
    study = json.loads((STUDIES / "forcing/forcing.json").read_text(encoding="utf-8"))
    used = study["options"]["development_pairs"].split(",")
    pairs = [
        row
        for row in study["records"]
        if row["family"] == family and row["split"] == "report" and "all" not in (row["source"], row["target"])
    ]
    if tuned is not None:
        return [float(np.mean([row[column] for row in pairs if (f"{row['source']}-{row['target']}" in used) == tuned]))]
    by_target: dict[str, list[float]] = {}
    for row in pairs:
        by_target.setdefault(row["target"], []).append(row[column])
    return over([float(np.mean(values)) for values in by_target.values()])


def confused(way: str) -> list[float]:
    """LPR and the share that fails of cross-lingual answers: of each language, averaged over languages, then over the two sources of questions."""
    answers = pl.read_parquet(STUDIES / "confusion/tables/qwen2.5-coder-0.5b-answers.parquet")
    asked = answers.filter(condition=way, task="crosslingual", seed=0)
    rates = asked.group_by("source", "language").agg(
        pl.col("line_passed").mean(), pl.col("kind").is_not_null().mean().alias("failing")
    )
    means = rates.group_by("source").agg(pl.col("line_passed", "failing").mean())
    return [means["line_passed"].mean(), means["failing"].mean()]  # type: ignore[list-item]


def adapter_less_hooks() -> list[float]:
    """The share of good answers by the adapter, less that by the edit; its interval is the table's own."""
    rows = table("adapters", "answers-gemma-chosen").filter(target="all", share="good")
    by = {row["way"]: row for row in rows.iter_rows(named=True)}
    return [by["adapter"]["value"] - by["hooks"]["value"], by["adapter"]["low"], by["adapter"]["high"]]


def served() -> list[float]:
    """LPR here and served, failing here and served; the shares of answers whose text, and whose verdict, is the same."""
    answers = pl.read_parquet(STUDIES / "confusion/tables/qwen2.5-coder-0.5b-served_answers.parquet").filter(
        task="crosslingual"
    )
    here, there = (
        answers.filter(condition=f"{where}-ja-cure").sort("source", "question", "seed") for where in ("local", "served")
    )
    rates = [
        np.mean([of.filter(source=source)[column].mean() for source in ("okapi", "sharegpt")])
        for column, frames in (("line_passed", (here, there)), ("failed", (here, there)))
        for of in (frame.with_columns(failed=pl.col("kind").is_not_null()) for frame in frames)
    ]
    return [*map(float, rates)]


def figures() -> Iterator[Figure]:
    paper = "paper.md"
    gemma = f"studies/{GEMMA}/README.md"
    finalists = "studies/selection-finalists/README.md"
    yield Figure("own − others less control", gemma, "104.6 53.1 15.8 91.8 62.9 53.7", lambda: own_more(GEMMA, OTHERS))
    yield Figure("the same of English", gemma, "0.1", lambda: own_more(GEMMA, ["en"]))
    yield Figure("own loss, nats per token", gemma, "4.38 1.61 .73 2.85 2.37 2.53", lambda: own_loss(GEMMA, OTHERS))
    yield Figure("neurons", gemma, "16 75 96 97 81 92 122", lambda: sizes(GEMMA, ["en", *OTHERS]))
    yield Figure("restored, first layer", gemma, "0.52 0.42 0.43 0.54 0.40 0.26", lambda: first_layer("restored"))
    yield Figure("restored by the control", gemma, "0.09 0.22", lambda: first_layer("by_control", ends=True))
    yield Figure("changed, set ÷ control", gemma, "1.71 2.98", lambda: first_layer("energy_ratio", ends=True))
    yield Figure("LAVE less LAPE", gemma, "−2.0 −4.2 0.2", lambda: mean_area(GEMMA, "lave"))
    yield Figure("LAP less LAPE", gemma, "39.0 19.4 58.7", lambda: mean_area(GEMMA, "lap"))
    largest = "difference:against=largest"
    documents, flores = "selection-finalists/documents", "selection-finalists/flores"
    yield Figure(
        "difference from the largest, 160 sentences", finalists, "1.7 .73", lambda: mean_and_covered(documents, largest)
    )
    yield Figure("difference from the largest, FLORES", finalists, "2.7 .69", lambda: mean_and_covered(flores, largest))
    yield Figure("FLORES, its interval", finalists, "−2.7 −6.2 .8", lambda: mean_area(flores, largest))
    reversed_ = f"{GEMMA}-reversed"
    yield Figure(
        "difference from the largest, reversed",
        f"studies/{reversed_}/README.md",
        "−2.8 −6.5 0.9",
        lambda: mean_area(reversed_, largest),
    )
    yield Figure("SmolLM2, LAVE", paper, "−5.6 −16.8 5.5", lambda: mean_area("smollm2-135m", "lave"))
    yield Figure("SmolLM2, LAP", paper, "26.2 −7.0 59.3", lambda: mean_area("smollm2-135m", "lap"))
    yield Figure("SmolLM2, PV", paper, "16.1 5.8 26.3", lambda: mean_area("pv-smollm2", "variation"))
    over_ceiling = "in_language_over_ceiling"
    for family, inside, good in (
        ("neurons", "1.00 0.95 1.04", "0.88 0.74 1.02"),
        ("prompt", "0.97 0.90 1.04", "0.82 0.72 0.91"),
        ("diffmean", "0.85 0.73 0.98", "0.61 0.41 0.81"),
    ):
        yield Figure(
            f"in the language ÷ ceiling, {family}", "steering.md", inside, lambda one=family: forced(one, over_ceiling)
        )
        yield Figure(
            f"good ÷ ceiling, {family}", "steering.md", good, lambda one=family: forced(one, "good_over_ceiling")
        )
    for used, printed in ((True, "0.93"), (False, "0.83")):
        yield Figure(
            f"good ÷ ceiling of neurons, pairs {'' if used else 'not '}tuned on",
            "steering.md",
            printed,
            lambda used=used: forced("neurons", "good_over_ceiling", tuned=used),
        )
    for way, printed in (("none", ".76 .32"), ("line", ".88 .19"), ("line + add × .25", ".95 .09")):
        yield Figure(
            f"confusion, LPR and failing: {way}", "studies/confusion/README.md", printed, lambda way=way: confused(way)
        )
    yield Figure("adapter less hooks, good", "studies/adapters/README.md", "0.001 −0.026 0.029", adapter_less_hooks)
    yield Figure("served: LPR, failing", "studies/confusion/README.md", ".985 .985 .185 .205", served)


def main() -> None:
    for one in figures():
        computed = " ".join(f"{value:.4f}" for value in one.computed())
        print(
            f"{'agrees' if one.agrees else 'DIFFERS'}  {'' if one.on_page else 'NOT ON PAGE '}{one.about} ({one.page}): {one.printed} | {computed}"
        )


if __name__ == "__main__":
    main()
