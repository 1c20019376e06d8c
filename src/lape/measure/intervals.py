"""Estimates with their intervals: quantiles, Student's t over a few, Wilson's of a share, p values and their correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Estimate:
    """A value, and the distribution behind its 95 % interval.

    Example:
        >>> import numpy as np
        >>> from lape.measure.intervals import over_languages
        >>> mean = over_languages(np.array([1.0, 2.0, 3.0]))
        >>> list(mean.named("own")), list(mean.plain("own", quantiles=True))
        (['own', 'own_low', 'own_high'], ['own', 'low', 'high', 'quantiles'])
        >>> [round(end, 2) for end in mean.interval]
        [2.0, -0.48, 4.48]
    """

    value: float | None
    quantiles: list[float | None] | None = None
    """(101,) at `LEVELS`; None where there is no interval, and for a level that so few resamples do not resolve."""

    @classmethod
    def of(cls, value: float, quantiles: Floats) -> Estimate:
        """From (101,) quantiles, nan where a level is not resolved."""
        return cls(value, [None if np.isnan(quantile) else float(quantile) for quantile in quantiles])

    @property
    def interval(self) -> Interval:
        """Value, low, high."""
        if self.quantiles is None:
            return self.value, None, None
        low, high = (self.quantiles[LEVELS.index(end)] for end in LOW_HIGH)
        return self.value, low, high

    def named(self, name: str, *, quantiles: bool = False) -> dict[str, Any]:
        """The interval as columns of a row: the name, with `_low` and `_high` after it, and with `_quantiles` if wanted."""
        return self._columns([f"{name}{end}" for end in ENDS], f"{name}_{QUANTILES}" if quantiles else "")

    def plain(self, name: str, *, quantiles: bool = False) -> dict[str, Any]:
        """The interval as columns of a row: the name, then `low`, `high`, and `quantiles` if wanted."""
        return self._columns([name, "low", "high"], QUANTILES if quantiles else "")

    def _columns(self, ends: Sequence[str], quantiles: str) -> dict[str, Any]:
        row: dict[str, Any] = dict(zip(ends, self.interval, strict=True))
        return row | ({quantiles: self.quantiles} if quantiles else {})


def student(value: float, sample: Floats) -> Floats:
    """(101,) Student's t around a value at `LEVELS`, from the (n,) values of which it holds the mean, two or more, with n − 1 degrees of freedom.

    Example:
        >>> import numpy as np
        >>> from lape.measure.intervals import LEVELS, student
        >>> ends = student(0.0, np.array([-1.0, 0.0, 1.0]))
        >>> round(float(ends[LEVELS.index(0.975)]), 3)  # 4.303 / √3
        2.484
    """
    from scipy.special import stdtrit

    count = len(sample)
    quantiles: Floats = value + stdtrit(count - 1, np.array(LEVELS)) * float(sample.std(ddof=1)) / count**0.5
    return quantiles


def over_languages(values: Floats) -> Estimate:
    """The mean of (languages,) values, of languages as a sample: Student's t with one degree of freedom less than there are languages.

    It says what other languages might show on the same text. What the text leaves uncertain is in each language's value already. A bootstrap would not
    do: a handful of languages that agree in sign has no resample of the other sign. No interval for a single language; no value for none.

    Example:
        >>> import numpy as np
        >>> from lape.measure.intervals import over_languages
        >>> [round(end, 2) for end in over_languages(np.array([1.0, 2.0, 3.0])).interval]
        [2.0, -0.48, 4.48]
    """
    if len(values) < 2:
        return Estimate(float(values[0]) if len(values) else None)
    mean = float(values.mean())
    return Estimate.of(mean, student(mean, values))


def pseudo_values(value: float, left_out: Floats) -> Floats:
    """(n,) what each of n cases adds to a value, from the (n,) values with that case left out: their spread is the jackknife's (Tukey 1958)."""
    count = len(left_out)
    values: Floats = count * value - (count - 1) * left_out
    return values


def jackknife(value: float, left_out: Floats) -> Estimate:
    """A value with Student's t interval over (n,) cases, two or more, from the (n,) values with each left out (Tukey 1958)."""
    return Estimate.of(value, student(value, pseudo_values(value, left_out)))


def means_without(values: Floats) -> Floats:
    """(n,) the mean of all but each one of (n,) values, two or more."""
    means: Floats = (values.sum() - values) / (len(values) - 1)
    return means


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


def wilson(count: float, of: float) -> Estimate:
    """A share with Wilson's 95 % interval (Wilson 1927), whose ends at all `LEVELS` are its quantiles; no value where there is nothing to count.

    `p_at` of the quantiles is the p of the score test: what a claim on a count is judged by, as by a bootstrap's. `of` need not be whole: it may be an
    effective number of units.

    Example:
        >>> from lape.measure.intervals import p_at, wilson
        >>> p_at(wilson(18, 20).quantiles, 0.5) < 0.001
        True
    """
    from scipy.special import ndtri

    if not of:
        return Estimate(None)
    share, z = count / of, ndtri(LEVELS)
    ends = (share + z * z / (2 * of) + z * np.sqrt(share * (1 - share) / of + (z / (2 * of)) ** 2)) / (1 + z * z / of)
    return Estimate(share, np.clip(ends, 0.0, 1.0).tolist())
