"""How well numbers predict others: rank correlation, scale, share of variance, with intervals over resampled cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lape.extras import need
from lape.measure.bootstrap import Floats, Resamples

_STEEPEST = 4.0
"""How far a link bends over what it is fitted on, in powers of e."""
_BETTER = 0.5
"""By which share of a straight link's error a bent one pays: few cases bend easily."""
_STRAIGHT, _OVERFLOW = 1e-9, 100.0
"""Powers of e that a link takes for none, and that it does not exceed far from what it is fitted on."""


def ranks(values: Floats) -> Floats:
    """(…, n) ranks from 1 within the last axis; equal values get the mean of theirs. Needs the extra `study`."""
    need("study", "Ranking", "scipy")
    from scipy.stats import rankdata

    ranked: Floats = rankdata(values, axis=-1)
    return ranked


def pearson(x: Floats, y: Floats) -> Floats:
    """(…, n) and (…, n) -> (…) Pearson's correlation; nan where one does not vary. scipy's warns of that, in every thread or in none."""
    a, b = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    size = np.sqrt((a * a).sum(-1)) * np.sqrt((b * b).sum(-1))
    vary = (x != x[..., :1]).any(-1) & (y != y[..., :1]).any(-1) & (size > 0)
    r = np.divide((a * b).sum(-1), size, out=np.full(np.shape(size), np.nan), where=vary)
    return np.asarray(np.clip(r, -1.0, 1.0))


def spearman(x: Floats, y: Floats) -> float | None:
    """Spearman's correlation of (n,) and (n,), ties at their mean rank; None where one does not vary."""
    return finite(float(pearson(ranks(x), ranks(y))))


def rank_correlation(x: Floats, y: Floats, drawn: Resamples) -> Floats:
    """Spearman's correlation of (n,) and (n,) float64, −1 to 1, on all cases and on each resample of them: (rows,), of which `drawn` makes an interval.

    Ties get their mean rank. Not a number where one of the two does not vary. Needs the extra `study`.

    Example:
        >>> import numpy as np
        >>> from lape.measure.bootstrap import Resamples
        >>> from lape.measure.correlation import rank_correlation
        >>> depth, damage = np.arange(30.0), np.arange(30.0) ** 3
        >>> drawn = Resamples(30, 200, seed=0)
        >>> value, low, high = drawn.interval(rank_correlation(depth, damage, drawn))
        >>> f"{value:.2f} ({low:.2f} to {high:.2f})"
        '1.00 (1.00 to 1.00)'
    """
    times = (drawn.weights > 0) * np.maximum(
        drawn.weights.astype(int), 1
    )  # a row without one case weighs the others a little more
    parts = np.split(times, [1 + drawn.resamples])
    found = [np.empty(0)]
    for part in parts:
        if len(part):
            every = np.tile(np.arange(len(x)), len(part)).repeat(part.ravel()).reshape(len(part), -1)
            found.append(pearson(ranks(x[every]), ranks(y[every])))
    return np.concatenate(found)


@dataclass(frozen=True)
class Link:
    """A growing map from an estimate to a damage: scale · (1 − exp(−bend · x)) / bend, which begins at 0 with the slope `scale`."""

    scale: float = 1.0
    """The slope at 0; 0 or more."""
    bend: float = 0.0
    """Above 0 the damage saturates, and never exceeds scale / bend; below 0 it grows faster than the estimate; 0 is a straight line."""

    def __call__(self, x: Floats) -> Floats:
        """Of any shape, element by element."""
        bent: Floats = self.scale * _bent(x, np.asarray(self.bend))
        return bent


def linked(x: Floats, y: Floats) -> Link:
    """The link through which (n,) x predicts (n,) y, by least squares: a bent one where, fitted on all cases but one, it predicts the left-out ones
    with less than half the squared error of a straight one.

    For each bend the best scale is known, and bends are searched on ever finer grids, as far as the slope grows or falls e⁴-fold over the x
    that are given. Flat where y falls as x grows; the identity where x is 0 throughout.

    Example:
        >>> import numpy as np
        >>> from lape.measure.correlation import linked
        >>> x = np.linspace(0, 4, 10)
        >>> link = linked(x, 3 * (1 - np.exp(-x / 2)))
        >>> round(link.scale, 3), round(link.bend, 3)
        (1.5, 0.5)
    """
    if not np.abs(x).max():
        return Link()
    errors = {}
    for steepest in (0.0, _STEEPEST):
        left_out = [_least(np.delete(x, k), np.delete(y, k), steepest)(x[k : k + 1]) for k in range(len(x))]
        errors[steepest] = float(((np.concatenate(left_out) - y) ** 2).sum())
    return _least(x, y, _STEEPEST if errors[_STEEPEST] < _BETTER * errors[0.0] else 0.0)


def _least(x: Floats, y: Floats, steepest: float) -> Link:
    """The link of the least squared error."""
    reach = float(np.abs(x).max(initial=0.0))
    if not reach:
        return Link()
    bends = np.linspace(-steepest, steepest, 101 if steepest else 1) / reach
    for _ in range(6 if steepest else 1):
        shapes = _bent(x, bends[:, None])
        scales = np.maximum((shapes @ y) / (shapes * shapes).sum(1), 0.0)
        at = int(((scales[:, None] * shapes - y) ** 2).sum(1).argmin())
        best = Link(float(scales[at]), float(bends[at]) if scales[at] else 0.0)
        bends = np.linspace(bends[max(at - 1, 0)], bends[min(at + 1, len(bends) - 1)], 41)
    return best


def _bent(x: Floats, bend: Floats) -> Floats:
    """(1 − exp(−bend · x)) / bend, and x where the bend is 0."""
    steep = np.minimum(-bend * x, _OVERFLOW)
    straight = np.abs(steep) < _STRAIGHT
    bent: Floats = np.where(straight, x * (1 + steep / 2), -np.expm1(steep) / np.where(straight, 1.0, bend))
    return bent


def judged(predicted: Floats, measured: Floats) -> dict[str, float | None]:
    """How (n,) predictions lie to (n,) measurements: `slope` of measured on predicted, Pearson's `correlation` and Spearman's `rho`; None where
    one does not vary.
    """
    r = float(pearson(predicted, measured))
    spread = float(predicted.std())
    slope = r * float(measured.std()) / spread if spread > 0 else np.nan
    return {"slope": finite(slope), "correlation": finite(r), "rho": spearman(predicted, measured)}


def determined(
    predicted: Floats, measured: Floats, weights: Floats | None = None, instead: Floats | None = None
) -> Floats:
    """(…, n) and (…, n) -> (…) R² = 1 − Σ(measured − predicted)² / Σ(measured − mean)²: below 0 is worse than the mean; nan where nothing varies.

    `weights` (…, n): how often each case counts. Default: once. `instead` (…, n): another prediction in place of the mean, which one is to better.

    Example:
        >>> import numpy as np
        >>> from lape.measure.correlation import determined
        >>> measured = np.array([1.0, 2.0, 3.0, 4.0])
        >>> float(determined(measured + 0.5, measured)), float(determined(measured + 0.5, measured, instead=measured - 1.0))
        (0.8, 0.75)
    """
    w = np.ones_like(measured) if weights is None else weights
    if instead is None:
        instead = (w * measured).sum(-1, keepdims=True) / w.sum(-1, keepdims=True)
    error, spread = (w * (measured - predicted) ** 2).sum(-1), (w * (measured - instead) ** 2).sum(-1)
    result: Floats = 1 - np.divide(error, spread, out=np.full(np.shape(error), np.nan), where=spread > 0)
    return result


def finite(value: float) -> float | None:
    """None in place of what is infinite or not a number."""
    return value if np.isfinite(value) else None
