"""How well numbers predict others: rank correlation, scale, share of variance, with intervals over resampled cases."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from lape.extras import need
from lape.measure.bootstrap import Floats
from lape.measure.intervals import Interval, interval


def ranks(values: Floats) -> Floats:
    """(…, n) ranks from 1 within the last axis; equal values get the mean of theirs. Needs the extra `study`, as correlations do."""
    need("study", "Ranking", "scipy")
    from scipy.stats import rankdata

    ranked: Floats = rankdata(values, axis=-1)
    return ranked


def pearson(x: Floats, y: Floats) -> Floats:
    """(…, n) and (…, n) -> (…) Pearson's correlation; nan where one does not vary."""
    need("study", "Correlating", "scipy")
    from scipy.stats import DegenerateDataWarning, pearsonr

    if x.shape[-1] < 2:
        return np.full(x.shape[:-1], np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # nan says it
        return np.asarray(pearsonr(x, y, axis=-1).statistic)


def spearman(x: Floats, y: Floats) -> float | None:
    """Spearman's correlation of (n,) and (n,), ties at their mean rank; None where one does not vary."""
    value = float(pearson(ranks(x), ranks(y)))
    return value if np.isfinite(value) else None


def rank_correlation(x: Floats, y: Floats, resamples: int, seed: int) -> Interval:
    """Spearman's correlation of (n,) and (n,) float64, −1 to 1, with its 95 % percentile bootstrap interval over cases: value, low, high.

    Ties get their mean rank. None where one of the two does not vary. Needs the extra `study`.

    Example:
        >>> import numpy as np
        >>> from lape.measure.correlation import rank_correlation
        >>> depth, damage = np.arange(30.0), np.arange(30.0) ** 3
        >>> value, low, high = rank_correlation(depth, damage, resamples=200, seed=0)
        >>> f"{value:.2f} ({low:.2f} to {high:.2f})"
        '1.00 (1.00 to 1.00)'
    """
    return _interval(lambda a, b: pearson(ranks(a), ranks(b)), x, y, resamples, seed)


def fitted(x: Floats, y: Floats) -> float:
    """The factor by which x predicts y best, by least squares, as a line through 0; 0 where x is 0."""
    size = float((x * x).sum())
    return float((x * y).sum()) / size if size > 0 else 0.0


def judged(predicted: Floats, measured: Floats, resamples: int, seed: int) -> dict[str, float | None]:
    """`r2` = 1 − Σ(measured − predicted)² / Σ(measured − mean)² with its interval `low`, `high` over cases, `slope` of measured on
    predicted, and Pearson's `correlation`.
    """
    r2, low, high = _interval(_determined, predicted, measured, resamples, seed)
    r = float(pearson(predicted, measured))
    spread = float(predicted.std())
    slope = r * float(measured.std()) / spread if spread > 0 and np.isfinite(r) else None
    return {"r2": r2, "low": low, "high": high, "slope": slope, "correlation": r if np.isfinite(r) else None}


def _determined(predicted: Floats, measured: Floats) -> Floats:
    error = ((measured - predicted) ** 2).sum(-1)
    spread = ((measured - measured.mean(-1, keepdims=True)) ** 2).sum(-1)
    result: Floats = 1 - np.divide(error, spread, out=np.full(np.shape(error), np.nan), where=spread > 0)
    return result


def _interval(of: Callable[[Floats, Floats], Floats], x: Floats, y: Floats, resamples: int, seed: int) -> Interval:
    """A figure of all cases, then of each resample of them."""
    drawn = np.random.default_rng(seed).integers(0, len(x), (resamples, len(x)))
    return interval(np.concatenate([of(x[None], y[None]), of(x[drawn], y[drawn])]))
