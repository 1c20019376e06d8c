"""What the committed tables say beyond the verdicts of claims.md: `python docs/studies/reread.py` prints the tables of docs/results.md."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

STUDIES = Path(__file__).parent
MAIN = "gemma-3-270m"
FRONTIERS = (MAIN, "gemma-3-270m-reversed", "gemma-3-270m-largest", "qwen2.5-coder-0.5b")
RULES = ("difference:against=largest", "difference", "probability", "lave")


def table(study: str, name: str) -> pl.DataFrame:
    return pl.read_parquet(STUDIES / study / "tables" / f"{name}.parquet")


def others_at(frontier: pl.DataFrame, method: str, language: str, own: float) -> float | None:
    """Off-target effect where the own effect first reaches a level, on straight lines from (0, 0) through the sizes; None beyond the last."""
    rows = frontier.filter(method=method, language=language).sort("size")
    x, y = np.r_[0.0, rows["own"]], np.r_[0.0, rows["others"].clip(0)]
    if own > x.max():
        return None
    end = max(int((x >= own).argmax()), 1)
    return float(np.interp(own, x[end - 1 : end + 1], y[end - 1 : end + 1]))


def gain(frontier: pl.DataFrame, rule: str, language: str, own: float) -> float | None:
    """Selectivity of a rule minus LAPE's at one own effect."""
    found = [others_at(frontier, method, language, own) for method in (rule, "lape")]
    first, second = (None if one is None else own / (own + one) for one in found)
    return None if first is None or second is None else first - second


def curves() -> Iterator[str]:
    """Selectivity minus LAPE's at three levels of own effect: mean over the languages that reach the level."""
    yield "| study | rule | at the own effect of LAPE's smallest sets | at half the judged level | at the judged level | by language, judged level |"
    yield "|---|---|---|---|---|---|"
    for study in FRONTIERS:
        frontier, judged = table(study, "frontier"), table(study, "advantages").filter(method="lape")
        languages = [one for one in frontier["language"].unique(maintain_order=True) if one not in ("en", "mean")]
        smallest = frontier.filter(method="lape").sort("size").unique("language", keep="first")
        for rule in (rule for rule in RULES if rule in judged["against"]):
            rows = {row["language"]: row for row in judged.filter(against=rule).iter_rows(named=True)}
            low = {one: smallest.filter(language=one)["own"].item() for one in languages}
            levels = (low, {one: rows[one]["own"] / 2 for one in languages})
            cells = [mean_gain(frontier, rule, level) for level in levels]
            mean = rows["mean"]
            cells.append(f"{-mean['difference']:+.3f} ({-mean['high']:+.3f} to {-mean['low']:+.3f})")
            above = [one for one in languages if rows[one]["high"] < 0]
            below = [one for one in languages if rows[one]["low"] > 0]
            open_ = [one for one in languages if one not in (*above, *below)]
            said = [
                f"{word}: {' '.join(some)}"
                for word, some in (("above", above), ("below", below), ("open", open_))
                if some
            ]
            yield f"| {study} | `{rule}` | {' | '.join(cells)} | {'; '.join(said)} |"


def mean_gain(frontier: pl.DataFrame, rule: str, levels: dict[str, float]) -> str:
    gains = [gain(frontier, rule, language, own) for language, own in levels.items()]
    known = [one for one in gains if one is not None]
    return f"{np.mean(known):+.3f}" + (f" ({len(known)} of {len(gains)})" if len(known) < len(gains) else "")


def english() -> Iterator[str]:
    """English sets of every method and size."""
    yield "| study | method | neurons | own | others | selectivity |"
    yield "|---|---|---|---|---|---|"
    for study in (MAIN, "qwen2.5-coder-0.5b"):
        rows = table(study, "frontier").filter(pl.col("method").is_in(["lape", "difference"]), language="en")
        for row in rows.iter_rows(named=True):
            figures = [
                f"{row[name]:.{digits}f} ({row[name + '_low']:.{digits}f} to {row[name + '_high']:.{digits}f})"
                for name, digits in (("own", 3), ("others", 3), ("selectivity", 2))
            ]
            yield f"| {study} | `{row['method']}` | {row['size']} | {' | '.join(figures)} |"


def controls() -> Iterator[str]:
    """Selectivity of control neurons, 200 a language, and of LAPE's published sets by token, sentence and character."""
    yield "| | zh | fr | es | vi | id | ja |"
    yield "|---|---|---|---|---|---|---|"
    languages = ("zh", "fr", "es", "vi", "id", "ja")
    perplexity = table(MAIN, "perplexity")
    for unit in ("token", "sentence", "character"):
        cells = []
        for off in languages:
            rows = perplexity.filter(off=off)
            own = rows.filter(language=off)[f"delta_{unit}"].item()
            others = rows.filter(pl.col("language") != off)[f"delta_{unit}"].mean()
            cells.append(f"{own / (own + max(others, 0.0)):.3f}")
        yield f"| LAPE's published sets, nats per {unit} | {' | '.join(cells)} |"
    frontier = table(MAIN, "frontier")
    for method in ("matched", "random"):
        found = [frontier.filter(method=method, size=200, language=one).row(0, named=True) for one in languages]
        yield (
            f"| {method} neurons, 200 | "
            + " | ".join(
                f"{row['selectivity']:.3f} ({row['selectivity_low']:.3f} to {row['selectivity_high']:.3f})"
                for row in found
            )
            + " |"
        )
    worst = []
    for off in languages:
        row = (
            perplexity.filter(pl.col("language") != off, off=off)
            .sort("delta_token", descending=True)
            .row(0, named=True)
        )
        worst.append(f"{row['language']} {row['delta_token']:.2f}")
    yield f"| LAPE's published sets, the worst other language | {' | '.join(worst)} |"


def bottom() -> Iterator[str]:
    """Language neurons in the two lowest layers, over what an even spread would give."""
    yield "| study | layer 0 | layer 1 | both (95 % interval) |"
    yield "|---|---|---|---|"
    for study in (*FRONTIERS, "gemma-3-270m-eleven"):
        counts = table(study, "histogram").group_by("layer").agg(pl.col("neurons").sum()).sort("layer")
        expected = counts["neurons"].sum() / counts.height
        one, both = (
            counts["neurons"] / expected,
            table(study, "layer_claims").filter(place="bottom two").row(0, named=True),
        )
        yield f"| {study} | {one[0]:.2f} | {one[1]:.2f} | {both['over_chance']:.2f} ({both['low']:.2f} to {both['high']:.2f}) |"


def attribution() -> Iterator[str]:
    """R² of attribution for the damage, on the text it was computed on and on other text, unscaled."""
    yield "| estimate | one neuron, same text | 16 neurons, same text | 16 neurons, unseen text |"
    yield "|---|---|---|---|"
    rows = table(MAIN, "predictions").filter(passes=0)
    names = {
        "first": "first order",
        "bent": "first order and Gauss–Newton",
        "damage_a": "the damage itself, measured on the first text (ceiling)",
    }
    for estimate, name in names.items():
        cells = []
        for size, text in ((1, "same"), (16, "same"), (16, "unseen")):
            some = rows.filter(estimate=estimate, size=size, text=text)
            cells.append(
                "–"
                if not len(some)
                else f"{some['r2'].item():.3f} ({some['low'].item():.3f} to {some['high'].item():.3f})"
            )
        yield f"| {name} | {' | '.join(cells)} |"


def steering() -> Iterator[str]:
    """What edits cost text of each kind of language, and good answers over the ceiling's on pairs that were tuned on and on the others."""
    study = json.loads((STUDIES / MAIN / "forcing.json").read_text(encoding="utf-8"))
    tuned_on = [tuple(pair.split("-")) for pair in study["options"]["development_pairs"].split(",")]
    costs, records = (pl.DataFrame(study[name], infer_schema_length=None) for name in ("costs", "records"))
    pairs = records.filter(pl.col("source") != "all", split="report")
    tuned = pl.concat_str("source", "target", separator="-").is_in(["-".join(pair) for pair in tuned_on])
    yield "| method | cost: source | target | third languages | good ÷ ceiling: pairs tuned on | other pairs |"
    yield "|---|---|---|---|---|---|"
    for family in ("neurons", "target only", "prompt", "diffmean", "random"):
        by_role = [
            costs.filter(family=family, role=role)["delta_token"].mean() for role in ("source", "target", "third")
        ]
        cells = ["–" if one is None else f"{one:.1f}" for one in by_role]
        rows = pairs.filter(family=family)
        cells += [f"{rows.filter(which)['good_over_ceiling'].mean():.2f}" for which in (tuned, ~tuned)]
        yield f"| {family} | {' | '.join(cells)} |"


def calibration(draws: int = 4000) -> Iterator[str]:
    """How many fresh draws of the very same distribution lie within the central 95 % of n draws, on two independent measures at once."""
    yield "| answers from which the band is made | 8 | 24 | 100 | 200 |"
    yield "|---|---|---|---|---|"
    rng, cells = np.random.default_rng(0), []
    for n in (8, 24, 100, 200):
        low, high = np.quantile(rng.standard_normal((draws, n, 2)), [0.025, 0.975], axis=1)
        fresh = rng.standard_normal((draws, 100, 2))
        cells.append(f"{((fresh >= low[:, None]) & (fresh <= high[:, None])).all(-1).mean():.2f}")
    yield f"| share of fresh answers called fluent | {' | '.join(cells)} |"


TABLES = (curves, english, controls, bottom, attribution, steering, calibration)

if __name__ == "__main__":
    for make in TABLES:
        sys.stdout.write("\n".join(["", str(make.__doc__), "", *make(), ""]))
