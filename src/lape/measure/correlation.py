"""How well numbers predict others: rank correlation, scale, share of variance, with intervals over resampled cases."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lape.measure.bootstrap import Floats
from lape.measure.intervals import Interval, interval


def ranks(values: Floats) -> Floats:
    """(…, n) ranks from 0 within the last axis; equal values get the mean of theirs."""
    order = values.argsort(-1, kind="stable")
    ascending = np.take_along_axis(values, order, -1)
    n = values.shape[-1]
    new = np.concatenate([np.ones((*values.shape[:-1], 1), bool), ascending[..., 1:] != ascending[..., :-1]], -1)
    begin = np.maximum.accumulate(np.where(new, np.arange(n), 0), -1)
    last = np.concatenate([new[..., 1:], np.ones((*values.shape[:-1], 1), bool)], -1)
    end = np.minimum.accumulate(np.where(last, np.arange(n), n)[..., ::-1], -1)[..., ::-1]
    result = np.empty(values.shape)
    np.put_along_axis(result, order, (begin + end) / 2, -1)
    return result


def pearson(x: Floats, y: Floats) -> Floats:
    """(…, n) and (…, n) -> (…) Pearson's correlation; nan where one does not vary."""
    a, b = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    size = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    result: Floats = np.divide((a * b).sum(-1), size, out=np.full(size.shape, np.nan), where=size > 0)
    return result


def rank_correlation(x: Floats, y: Floats, resamples: int, seed: int) -> Interval:
    """Spearman's correlation of (n,) and (n,), with the 95 % percentile bootstrap over cases."""
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
