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
from lape.measure.correlation import Link, determined, finite, judged, linked, pearson
from lape.measure.intervals import resampled

BASELINES = ("counted", "energy")
"""What a set's damage could be told by without a gradient: how many neurons it has, and their energy on the text."""
LINKED = (*BASELINES, "recorded", "first", "bent", "along", "mended")
"""What is also judged through a link that is fitted on a few ablations."""
PLAIN = ("recorded", "first", "second", "bent", "along", "mended", "path", "trapezoid")
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
    **dict.fromkeys(("scale", "bend"), pl.Float64),
    **resampled("r2", "skill", "share"),
    **dict.fromkeys(("root", "rho", "slope", "correlation", "ceiling", "reliability"), pl.Float64),
    "groups": pl.Int64,
}
"""A row per language, kind of set (`among`), `size` (0: all sizes together), estimate, `text` and number of ablation `passes` that it took: those of
single neurons, and of the sets of the same kind that its link was fitted on (without these it is taken as it is). Estimate and damage are of the
same text, all of it (`same`), or of its two halves (`unseen`). Judged on `groups` sets that no link was fitted on: `r2` (1 − squared error /
variance; below 0 is worse than the mean); `skill`, the same with the error of `counted` in place of the variance: what is told beyond the number of
neurons; `root`, R² of the square roots; `rho`, Spearman's; `slope` (damage a predicted nat); `correlation`, Pearson's. In unseen text also the
`ceiling` (R² of the damage measured on the first half), `share` = `r2` / `ceiling`, and the `reliability` of the damage on all of the text
(Spearman-Brown). Intervals resample sets, and in each resample the documents of each half too, given the link (`lape.measure.correlation.Link`):
`scale`, its slope at 0, and `bend`.
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
    estimates: Mapping[str, Mapping[str, Floats]]
    """`same` or `unseen` text -> estimate -> (sets, units); not a number where it was not made."""
    spent: Mapping[str, int]
    """Estimate -> ablation passes that it took itself, beside those that its link is fitted on."""
    told: Mapping[str, Floats]
    """What is known of a set without this text's gradients -> (sets,)."""

    def draws(self, values: Floats, where: NDArray[np.bool_], weights: Floats) -> Floats:
        """(sets, units) -> (rows, sets) nats per token of some of the units, for each row of (rows, units) weights."""
        some = weights[:, where]
        result: Floats = (some @ values.T[where]) / (some @ self.tokens[where])[:, None]
        return result

    def mean(self, values: Floats, where: NDArray[np.bool_]) -> Floats:
        """(sets, units) -> (sets,) nats per token of some of the units."""
        result: Floats = self.draws(values, where, np.ones((1, len(where))))[0]
        return result


def predictions(readings: Readings, resamples: int, seed: int) -> pl.DataFrame:
    """`PREDICTIONS` of one language."""
    return pl.DataFrame(
        [row for one in _strata(readings) for row in _rows(readings, *one, resamples, seed)], schema=PREDICTIONS
    )


def _rows(
    readings: Readings,
    among: str,
    size: int,
    chosen: NDArray[np.int64],
    estimates: Sequence[str],
    resamples: int,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """What some estimates say of some sets."""
    every, a, b = np.ones_like(readings.half), readings.half, ~readings.half
    sets = Resamples(len(chosen), resamples, seed, held=min(len(chosen), int(a.sum()), int(b.sum())))
    weights = _texts(readings.half, sets, seed)
    for text, seen, asked in (("same", every, every), ("unseen", a, b)):
        target = readings.draws(readings.damage, asked, weights)[:, chosen]
        ceiling = readings.draws(readings.damage, seen, weights)[:, chosen] if text == "unseen" else None
        made = [
            (name, passes, link, of[:, chosen])
            for name, passes, link, of in _predictors(readings, among, text, seen, weights)
        ]
        counted = next(values for name, _, _, values in made if name == BASELINES[0])
        judge = _Judge(sets, target, counted, ceiling)
        if ceiling is not None:
            made.append((MEASURED, 0, Link(), ceiling))
        for estimate, passes, link, predicted in made:
            if estimate in estimates:
                names = {"language": readings.language, "among": among, "size": size, "estimate": estimate}
                known = {"text": text, "passes": passes, "scale": link.scale, "bend": link.bend, "groups": len(chosen)}
                yield {**names, **known, **judge(predicted)}


def _texts(half: NDArray[np.bool_], sets: Resamples, seed: int) -> Floats:
    """(rows, units): in each row that resamples sets, how often each unit is drawn, each half by itself; in the others, all units once."""
    weights = np.ones((len(sets.weights), len(half)))
    for k, where in enumerate((half, ~half)):
        count = int(where.sum())
        drawn = np.random.default_rng((seed, k)).multinomial(count, np.full(count, 1 / count), size=sets.resamples)
        weights[1 : 1 + sets.resamples, where] = drawn
    return weights


def _predictors(
    readings: Readings, among: str, text: str, seen: NDArray[np.bool_], weights: Floats
) -> Iterator[tuple[str, int, Link, Floats]]:
    """Estimate, passes of its link, the link, and (rows, sets) what it predicts of a kind of sets, from the text that is seen."""
    shape = (len(weights), len(readings.groups))
    every = {name: np.broadcast_to(told, shape) for name, told in readings.told.items()}
    every |= {name: readings.draws(values, seen, weights) for name, values in readings.estimates[text].items()}
    fitted = readings.fitted & np.array([group.among == among for group in readings.groups])
    known = readings.mean(readings.damage, seen)[fitted]
    for name, values in every.items():
        if name in PLAIN:
            yield name, readings.spent.get(name, 0), Link(), values
        if name in LINKED and np.isfinite(values[0, fitted]).all():
            link = linked(values[0, fitted], known) if len(known) else Link()
            yield name, readings.spent.get(name, 0) + len(known), link, link(values)


def _strata(readings: Readings) -> Iterator[tuple[str, int, NDArray[np.int64], list[str]]]:
    """Kind, size (0 for all), the judged sets, and the estimates that were made of just these, where there are two or more."""
    names = (*dict.fromkeys((*BASELINES, *PLAIN)), MEASURED)
    of: dict[str, NDArray[np.bool_]] = dict.fromkeys(names, ~readings.fitted)
    of |= {name: ~readings.fitted & np.isfinite(values).all(1) for name, values in readings.estimates["same"].items()}
    for among in dict.fromkeys(group.among for group in readings.groups):
        sizes = sorted({len(group.neurons) for group in readings.groups if group.among == among})
        for size in (0, *(sizes if len(sizes) > 1 else ())):
            mine = np.array([g.among == among and size in (0, len(g.neurons)) for g in readings.groups])
            made: dict[bytes, list[str]] = {}
            for name, known in of.items():
                made.setdefault((mine & known).tobytes(), []).append(name)
            for key, alike in made.items():
                chosen = np.flatnonzero(np.frombuffer(key, bool))
                if len(chosen) > 1:
                    yield among, size, chosen, alike


@dataclass(frozen=True)
class _Judge:
    """What predictions of the same damage are judged by; all arrays (rows of `sets`, judged sets)."""

    sets: Resamples
    target: Floats
    counted: Floats
    """What the number of neurons predicts."""
    ceiling: Floats | None
    """The damage on the first half, where the target is that on the other."""

    def __call__(self, predicted: Floats) -> dict[str, Any]:
        """The columns of a row that judge."""
        weights = self.sets.weights
        r2 = determined(predicted, self.target, weights)
        beyond = determined(predicted, self.target, weights, self.counted)
        row = {
            **self.sets.named("r2", r2, quantiles=True),
            **self.sets.named("skill", beyond, quantiles=True),
            **judged(predicted[0], self.target[0]),
            "root": finite(float(determined(_root(predicted[:1]), _root(self.target[:1]))[0])),
        }
        if self.ceiling is None:
            return row
        most = determined(self.ceiling, self.target, weights)
        share = np.divide(r2, most, out=np.full_like(r2, np.nan), where=most > 0)
        if np.isnan(share).mean() > MOST_LOST:
            share[1:] = np.nan
        r = float(pearson(self.ceiling[0], self.target[0]))
        return {
            **row,
            **self.sets.named("share", share, quantiles=True),
            "ceiling": finite(float(most[0])),
            "reliability": finite(2 * r / (1 + r)) if r > -1 else None,
        }


def _root(values: Floats) -> Floats:
    """Square roots that keep the sign: few large damages decide less."""
    rooted: Floats = np.sign(values) * np.sqrt(np.abs(values))
    return rooted
