"""What an interval is made of: draws beside the value on all units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MEAN = "mean"
"""Stands for the language in rows that average over languages."""
ENDS = ("", "_low", "_high")
"""What is put after a column's name for its value and its interval."""
Interval: TypeAlias = tuple[float | None, float | None, float | None]
"""A value and its 95 % interval; None where it does not exist."""
QUANTILES = "quantiles"
"""The column of the bootstrap's quantiles of a value whose ends are `low` and `high`; those of others are in VALUE_quantiles."""
LOW_HIGH = (0.025, 0.975)
"""The levels of a 95 % interval's ends."""
_TAIL = (*range(1, 21), *range(25, 101, 5), *range(120, 161, 20), *range(200, 401, 40), *range(500, 901, 100))
LEVELS = (*(k / 2000 for k in _TAIL), 0.5, *(1 - k / 2000 for k in reversed(_TAIL)))
"""Levels at which quantiles of the bootstrap's distribution are kept, dense in the tails: .0005, .001, … .5, … .9995, 101 of them."""


def resampled(*values: str, plain: bool = False) -> dict[str, Any]:
    """Columns of values that claims are judged on: each with its interval and the bootstrap's quantiles, name -> dtype.

    `plain`: the ends are called `low` and `high`, the quantiles `quantiles`, as one value of a table may have them.

    Example:
        >>> from lape.measure.intervals import resampled
        >>> list(resampled("own"))
        ['own', 'own_low', 'own_high', 'own_quantiles']
        >>> list(resampled("difference", plain=True))
        ['difference', 'low', 'high', 'quantiles']
    """
    found: dict[str, Any] = {}
    for value in values:
        ends = (value, "low", "high") if plain else tuple(f"{value}{end}" for end in ENDS)
        kept = QUANTILES if plain else f"{value}_{QUANTILES}"
        found |= {**dict.fromkeys(ends, pl.Float64), kept: pl.List(pl.Float64)}
    return found


def p_at(quantiles: Sequence[float | None], margin: float, *, side: int = 0) -> float:
    """The bootstrap's p of a figure being a margin, from its quantiles at `LEVELS`, as `Resamples.quantiles` gives them.

    Two-sided: twice the smaller of the levels up to which the quantiles are at most the margin, and from which they are at least the margin; it is
    .05 where the margin is an end of the 95 % interval. `side` 1: one-sided, of the figure being at most the margin, small where all quantiles lie
    above it; -1: of being at least the margin. Never 0: at least the smallest level that the resamples resolve, twice that two-sided.

    Example:
        >>> from lape.measure.intervals import LEVELS, p_at
        >>> uniform = list(LEVELS)  # the quantiles of what is uniform from 0 to 1
        >>> [round(p_at(uniform, margin), 4) for margin in (-1.0, 0.025, 0.5, 0.99)]
        [0.001, 0.05, 1.0, 0.02]
        >>> p_at(uniform, 0.025, side=1), p_at(uniform, 0.025, side=-1)
        (0.025, 0.975)
    """
    known = [(level, one) for level, one in zip(LEVELS, quantiles, strict=True) if one is not None]
    levels, values = np.array([level for level, _ in known]), np.array([one for _, one in known])
    below = _level(levels, values, margin)
    above = _level((1 - levels)[::-1], -values[::-1], -margin)
    if side:
        return below if side > 0 else above
    return min(1.0, 2 * min(below, above))


def _level(levels: Floats, values: Floats, margin: float) -> float:
    """Up to which level quantiles, ascending, are at most the margin; straight lines between."""
    at = int(np.searchsorted(values, margin, side="right"))
    if at == 0:
        return float(levels[0])
    if at == len(values):
        return float(1.0 if values[-1] < margin else levels[-1])
    share = (margin - values[at - 1]) / (values[at] - values[at - 1])
    return float(levels[at - 1] + share * (levels[at] - levels[at - 1]))


def selectivity(own: Floats, others: Floats) -> Floats:
    """Own / (own + others), both clipped at 0 (ours): 0 where there is no own effect, nan where either is nan.

    `own`, `others`: arrays of one shape, in one unit, such as nats per token. Gives the same shape, float64, from 0 to 1.

    Example:
        >>> import numpy as np
        >>> from lape.measure.intervals import selectivity
        >>> selectivity(np.array([0.75, 0.5, -0.25]), np.array([0.25, -0.5, 0.25])).tolist()
        [0.75, 1.0, 0.0]
    """
    a, b = np.maximum(own, 0.0), np.maximum(others, 0.0)
    share: Floats = np.divide(a, a + b, out=np.zeros_like(a), where=a > 0)
    share[np.isnan(a + b)] = np.nan
    return share


def interval(values: Floats) -> Interval:
    """The value on all units, and the 95 % percentile interval of the draws in which there is one, if two or more: value, low, high.

    `values`: (1 + resamples,) float64, the value on all units first, as `Resamples` gives it. What does not exist is None: the interval without draws,
    all three where the value is not finite.

    Example:
        >>> import numpy as np
        >>> from lape.measure.intervals import interval
        >>> interval(np.concatenate([[0.5], np.linspace(0, 1, 201)]))
        (0.5, 0.025, 0.975)
        >>> interval(np.array([0.5]))
        (0.5, None, None)
    """
    if not np.isfinite(values[0]):
        return None, None, None
    drawn = values[1:][np.isfinite(values[1:])]
    if len(drawn) < 2:
        return float(values[0]), None, None
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(values[0]), float(low), float(high)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction of several p values (Holm 1979).

    Not statsmodels' `multipletests`, which gives the same but collects garbage at every call: .3 s in a process of some size.
    """
    given = np.asarray(p, dtype=float)
    order = np.argsort(given, kind="stable")
    corrected = np.empty_like(given)
    corrected[order] = np.minimum(np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1)), 1.0)
    return [float(one) for one in corrected]


def holm_known(p: Sequence[float | None]) -> list[float | None]:
    """`holm` over the p values that there are; None for the others."""
    corrected = iter(holm([one for one in p if one is not None]))
    return [None if one is None else next(corrected) for one in p]


def wilson(count: float, of: float) -> tuple[float | None, float | None]:
    """Wilson's 95 % interval of a share (Wilson 1927); None where there is nothing to count. `of` need not be whole: an effective number of units."""
    if not of:
        return None, None
    low, high = (_score(count, of, level) for level in LOW_HIGH)
    return low, high


def wilson_quantiles(count: int, of: int) -> list[float] | None:
    """Wilson's ends of a share at all `LEVELS`, (101,): what a claim on a count is judged by, as by a bootstrap's quantiles. None where there is
    nothing to count. `p_at` of them is the p of the score test.

    Example:
        >>> from lape.measure.intervals import p_at, wilson_quantiles
        >>> p_at(wilson_quantiles(18, 20), 0.5) < 0.001
        True
    """
    return [_score(count, of, level) for level in LEVELS] if of else None


def _score(count: float, of: float, level: float) -> float:
    """The share at which the score test of a count has p `level`."""
    z = NormalDist().inv_cdf(level)
    share = count / of
    middle, half = share + z * z / (2 * of), z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return min(max((middle + half) / (1 + z * z / of), 0.0), 1.0)
