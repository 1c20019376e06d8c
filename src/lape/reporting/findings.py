"""The headline findings of a run, as sentences: each with its control and its interval, or with what it lacks."""

from __future__ import annotations

import polars as pl

from lape.detect.stability import UNION
from lape.reporting.gathered import Gathered


def findings(run: Gathered) -> list[str]:
    """What the tables say, most telling first."""
    parts = (_damage(run), _unharmed(run), _layers(run), _reliable(run), _steered(run), _claims(run))
    return [one for one in parts if one]


def number(value: float, digits: int = 2) -> str:
    """With a real minus sign, and none before zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def interval(low: float | None, high: float | None) -> str:
    """In brackets, or that there is none."""
    return "(no interval: under 20 units)" if low is None or high is None else f"({number(low)} to {number(high)})"


def _own(run: Gathered) -> pl.DataFrame:
    table = run.tables.get(
        "perplexity", pl.DataFrame(schema={"off": pl.String, "language": pl.String, "delta_token": pl.Float64})
    )
    return table.filter(pl.col("off") == pl.col("language")).sort("delta_token", descending=True)


def _damage(run: Gathered) -> str | None:
    own = _own(run)
    if not len(own):
        return None
    most = own.row(0, named=True)
    others = run.tables["perplexity"].filter((pl.col("off") == most["off"]) & (pl.col("language") != most["off"]))[
        "delta_token"
    ]
    beside = "" if not len(others) else f", that of the other languages by {number(float(others.mean()))} on average"  # type: ignore[arg-type]
    control = _control(most)
    beating = own.filter(pl.col("low") > pl.col("matched_max"))
    measured = own.filter(pl.col("low").is_not_null() & pl.col("matched_max").is_not_null())
    all_of = (
        f" In {len(beating)} of {len(measured)} languages the whole interval lies above every draw of matched neurons."
        if len(measured)
        else ""
    )
    return (
        f"Switching off the {most['neurons']} neurons of {most['off']} raises its loss by {number(most['delta_token'])} nats a token "
        f"{interval(most['low'], most['high'])}{control}{beside}.{all_of}"
    )


def _control(row: dict[str, float | None]) -> str:
    mean, largest = row.get("matched_mean"), row.get("matched_max")
    if mean is None or largest is None:
        return " (no control was drawn)"
    return f"; as many neurons of the same layers and energy by {number(mean)} (at most {number(largest)})"


def _unharmed(run: Gathered) -> str | None:
    own = _own(run)
    if len(own) < 2:
        return None
    least = own.row(-1, named=True)
    if least["low"] is None or least["low"] > 0.05:
        return None
    return (
        f"Least depends on the {least['neurons']} neurons of {least['off']}: {number(least['delta_token'])} nats a token "
        f"{interval(least['low'], least['high'])}."
    )


def _layers(run: Gathered) -> str | None:
    counts = by_layer(run)
    if counts is None or not counts["neurons"].sum():
        return None
    total = [int(one) for one in counts.group_by("layer").agg(pl.col("neurons").sum()).sort("layer")["neurons"]]
    depth, every = len(total), sum(total)
    quarter = max(1, depth // 4)
    return (
        f"{sum(total[-quarter:]) / every:.0%} of the sets' neurons lie in the top {quarter} of {depth} layers, where {quarter / depth:.0%} would lie "
        f"by chance; {sum(total[:2]) / every:.0%} in the bottom two ({2 / depth:.0%})."
    )


def _reliable(run: Gathered) -> str | None:
    table = run.tables.get("reliability")
    known = None if table is None else table.filter(pl.col("median").is_not_null() & (pl.col("language") != UNION))
    if known is None or not len(known):
        return None
    least = known.sort("median").row(0, named=True)
    return (
        f"Sets found in two halves of the text agree: median Jaccard {number(least['median'])} or more (5th percentile {number(least['p5'])}, by chance "
        f"{number(least['chance'])}, in {least['language']}, where they do least). That is stability, not validity."
    )


def _steered(run: Gathered) -> str | None:
    rows = run.forced
    if "neurons" not in rows:
        return None
    ours = rows["neurons"]
    against = [
        f"{name} {number(rows[family]['good'])} {interval(rows[family]['good_low'], rows[family]['good_high'])}"
        for family, name in (
            ("ceiling", "asked in that language"),
            ("prompt", "told to in the prompt"),
            ("random", "as many random neurons"),
        )
        if family in rows
    ]
    share = f"{number(ours['good'])} {interval(ours['good_low'], ours['good_high'])}"
    beside = f"; {'; '.join(against)}." if against else "."
    return (
        f"Steered by neurons to another language, a share of {share} of answers are in it, fluent and on topic{beside}"
    )


def _claims(run: Gathered) -> str | None:
    judged = run.record.get("claims") if run.record.get("verb") == "study" else None
    if not judged:
        return None
    held = sum(one["verdict"] == "holds" for one in judged)
    return f"Of {len(judged)} claims written down before the run, {held} hold here."


def by_layer(run: Gathered) -> pl.DataFrame | None:
    """`language`, `layer`, `neurons`, from the sets or from a study's table."""
    return run.neurons.by_layer() if run.neurons is not None else run.tables.get("histogram")
