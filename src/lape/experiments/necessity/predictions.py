"""How well estimates predict the damage of sets: on the text that they were made on, and on other text as a share of what can be attained there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lape.experiments.necessity.groups import Group
from lape.measure.bootstrap import Floats, Resamples
from lape.measure.correlation import Link, cases, determined, judged, linked, pearson
from lape.measure.intervals import named_interval

BASELINES = ("counted", "energy")
"""What a set's damage could be told by without a gradient: how many neurons it has, and their energy on the text."""
LINKED = (*BASELINES, "recorded", "first", "bent")
"""What is also judged through a link that is fitted on a few ablations."""
PLAIN = ("recorded", "first", "second", "bent", "path", "trapezoid")
"""What is judged as it is, in nats."""
MEASURED = "damage"
"""The damage measured on the first half of the text as a prediction of that on the other: what no estimate from it can be expected to beat."""
MOST_LOST = 0.05
"""Where a share does not exist in more of the draws than this, it has no interval."""
PREDICTIONS: dict[str, Any] = {
    **dict.fromkeys(("language", "among"), pl.String),
    "size": pl.Int32,
    **dict.fromkeys(("estimate", "text"), pl.String),
    "passes": pl.Int64,
    **dict.fromkeys(
        (
            *("scale", "most"),
            *("r2", "r2_low", "r2_high"),
            *("skill", "skill_low", "skill_high"),
            *("share", "share_low", "share_high"),
            *("root", "rho", "slope", "correlation", "ceiling", "reliability"),
        ),
        pl.Float64,
    ),
    "groups": pl.Int64,
}
"""A row per language, kind of set (`among`), `size` (0: all sizes together), estimate, `text` and number of ablation `passes` that its link was
fitted on (0: taken as it is). Estimate and damage are of the same text, all of it (`same`), or of its two halves (`unseen`). Judged on `groups`
sets that no link was fitted on: `r2` (1 − squared error / variance; below 0 is worse than the mean); `skill`, the same with the error of `counted`
in place of the variance: what is told beyond the number of neurons; `root`, R² of the square roots; `rho`, Spearman's; `slope` (damage a predicted
nat); `correlation`, Pearson's. In unseen text also the `ceiling` (R² of the damage measured on the first half), `share` = `r2` / `ceiling`, and the
`reliability` of the damage on all of the text (Spearman-Brown). Intervals resample sets and documents, given the link: `scale`, its slope at 0, and
`most`, what it never exceeds.
"""


@dataclass(frozen=True)
class Readings:
    """What was measured and estimated of each set in a language's text, unit by unit, in nats summed over a unit's tokens."""

    language: str
    groups: Sequence[Group]
    fitted: NDArray[np.bool_]
    """(sets,) which of them links are fitted on."""
    half: NDArray[np.bool_]
    """(units,) which units are of the first half."""
    tokens: Floats
    """(units,) scored tokens."""
    damage: Floats
    """(sets, units)"""
    estimates: Mapping[str, Floats]
    """Estimate -> (sets, units); not a number where it was not made."""
    told: Mapping[str, Floats]
    """What is known of a set without this text's gradients -> (sets,)."""

    def draws(self, values: Floats, where: NDArray[np.bool_], weights: Floats) -> Floats:
        """(sets, units) -> (1 + resamples, sets) nats per token of some of the units: on all of them, then on each resample."""
        some = weights[:, where]
        result: Floats = (some @ values.T[where]) / (some @ self.tokens[where])[:, None]
        return result

    def mean(self, values: Floats, where: NDArray[np.bool_]) -> Floats:
        """(sets, units) -> (sets,) nats per token of some of the units."""
        return self.draws(values, where, np.ones((1, len(where))))[0]


def predictions(readings: Readings, resamples: int, seed: int) -> pl.DataFrame:
    """`PREDICTIONS` of one language."""
    weights = _weights(readings.half, resamples, seed)
    every, a, b = np.ones_like(readings.half), readings.half, ~readings.half
    rows = []
    for text, seen, asked in (("same", every, every), ("unseen", a, b)):
        measured = readings.draws(readings.damage, asked, weights)
        known = readings.mean(readings.damage, seen)[readings.fitted]
        made = dict(_predictors(readings, seen, weights, known))
        if text == "unseen":
            made[MEASURED, 0] = Link(), readings.draws(readings.damage, seen, weights)
        for among, size, chosen in _strata(readings):
            drawn = cases(len(chosen), resamples if len(weights) > 1 else 0, seed)
            target = _of(measured, chosen, drawn)
            counted = _error(_of(made["counted", int(readings.fitted.sum())][1], chosen, drawn), target)
            ceiling = _of(made[MEASURED, 0][1], chosen, drawn) if text == "unseen" else None
            for (estimate, passes), (link, values) in made.items():
                predicted = _of(values, chosen, drawn)
                if np.isnan(predicted).any():
                    continue
                names = {
                    "language": readings.language,
                    "among": among,
                    "size": size,
                    "estimate": estimate,
                    "text": text,
                }
                row = {
                    **names,
                    "passes": passes,
                    "scale": link.scale,
                    "most": link.most if np.isfinite(link.most) else None,
                }
                rows.append({**row, **_judged(predicted, target, counted, ceiling), "groups": len(chosen)})
    return pl.DataFrame(rows, schema=PREDICTIONS)


def _weights(half: NDArray[np.bool_], resamples: int, seed: int) -> Floats:
    """(1 + resamples, units) how often each unit is drawn; each half by itself, so that none is ever without text. No resamples where a half is small."""
    parts = [Resamples(int(where.sum()), resamples, seed + k).weights for k, where in enumerate((half, ~half))]
    result = np.ones((min(map(len, parts)), len(half)))
    for where, part in zip((half, ~half), parts, strict=True):
        result[:, where] = part[: len(result)]
    return result


def _predictors(
    readings: Readings, seen: NDArray[np.bool_], weights: Floats, known: Floats
) -> Iterator[tuple[tuple[str, int], tuple[Link, Floats]]]:
    """(estimate, passes of its link) -> the link, and (1 + resamples, sets) what it predicts, from the text that is seen."""
    shape = (len(weights), len(readings.groups))
    every = {name: np.broadcast_to(told, shape) for name, told in readings.told.items()}
    every |= {name: readings.draws(values, seen, weights) for name, values in readings.estimates.items()}
    for name, values in every.items():
        if name in PLAIN:
            yield (name, 0), (Link(), values)
        if name in LINKED and len(known):
            link = linked(values[0, readings.fitted], known)
            yield (name, len(known)), (link, link(values))


def _strata(readings: Readings) -> Iterator[tuple[str, int, NDArray[np.int64]]]:
    """Kind, size (0 for all) and the judged sets, where there are two or more."""
    kinds = dict.fromkeys(group.among for group in readings.groups)
    for among in kinds:
        of = {
            size: np.array([k for k, g in enumerate(readings.groups) if g.stratum == (among, size)])
            for size in sorted({len(g.neurons) for g in readings.groups if g.among == among})
        }
        judged_of = {size: some[~readings.fitted[some]] for size, some in of.items()}
        together = {0: np.concatenate(list(judged_of.values()))}
        for size, some in {**together, **(judged_of if len(of) > 1 else {})}.items():
            if len(some) > 1:
                yield among, size, some


def _of(values: Floats, chosen: NDArray[np.int64], drawn: NDArray[np.int64]) -> Floats:
    """(1 + resamples, sets) -> (1 + resamples, judged sets), each row's own resample of them."""
    return np.take_along_axis(values, chosen[drawn], axis=1)


def _error(predicted: Floats, measured: Floats) -> Floats:
    error: Floats = ((measured - predicted) ** 2).sum(-1)
    return error


def _judged(predicted: Floats, measured: Floats, counted: Floats, ceiling: Floats | None) -> dict[str, float | None]:
    """The columns of a row that judge: all arrays (1 + resamples, sets), and (1 + resamples,) the squared error of counting neurons."""
    r2 = determined(predicted, measured)
    error = _error(predicted, measured)
    skill = 1 - np.divide(error, counted, out=np.full_like(error, np.nan), where=counted > 0)
    row = {**named_interval("r2", r2), **named_interval("skill", skill), **judged(predicted[0], measured[0])}
    row["root"] = named_interval("root", determined(_root(predicted[:1]), _root(measured[:1])))["root"]
    if ceiling is None:
        return row
    most = determined(ceiling, measured)
    share = np.divide(r2, most, out=np.full_like(r2, np.nan), where=most > 0)
    if np.isnan(share).mean() > MOST_LOST:
        share = share[:1]
    r = float(pearson(ceiling[0], measured[0]))
    reliability = 2 * r / (1 + r) if np.isfinite(r) and r > -1 else None
    return {
        **row,
        **named_interval("share", share),
        "ceiling": named_interval("c", most)["c"],
        "reliability": reliability,
    }


def _root(values: Floats) -> Floats:
    """Square roots that keep the sign: few large damages decide less."""
    rooted: Floats = np.sign(values) * np.sqrt(np.abs(values))
    return rooted
