"""What an interval is made of: draws beside the value on all units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from lape.extras import need
from lape.measure.bootstrap import Floats

MEAN = "mean"
"""Stands for the language in rows that average over languages."""
ENDS = ("", "_low", "_high")
"""What is put after a column's name for its value and its interval."""
Interval: TypeAlias = tuple[float | None, float | None, float | None]
"""A value and its 95 % interval; None where it does not exist."""


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


def named_interval(name: str, values: Floats) -> dict[str, float | None]:
    """`interval` as columns of a row: the name, and with `_low` and `_high` after it."""
    return dict(zip((f"{name}{end}" for end in ENDS), interval(values), strict=True))


def plain_interval(name: str, values: Floats) -> dict[str, float | None]:
    """`interval` as columns of a row: the name, then `low` and `high`."""
    return dict(zip((name, "low", "high"), interval(values), strict=True))


def two_sided(values: Floats) -> float | None:
    """The bootstrap's two-sided p of a difference being 0: twice the smaller share of draws at or beyond 0, the value itself counted as a draw.

    `values`: as for `interval`. None where there are no draws, or the value is nan.

    Example:
        >>> import numpy as np
        >>> from lape.measure.intervals import two_sided
        >>> two_sided(np.concatenate([[0.5], np.linspace(0.1, 1, 199)]))
        0.01
    """
    if len(values) < 2 or np.isnan(values[0]):
        return None
    drawn = values[1:]
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(drawn) + 1))


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


def wilson(count: int, of: int) -> tuple[float | None, float | None]:
    """Wilson's 95 % interval of a share; None where there is nothing to count. Needs the extra `study`."""
    if not of:
        return None, None
    need("study", "Wilson's interval", "scipy")
    from scipy.stats import binomtest

    ends = binomtest(count, of).proportion_ci(method="wilson")
    return float(ends.low), float(ends.high)
