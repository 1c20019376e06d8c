"""How well numbers predict others: rank correlation, scale, share of variance, with intervals over resampled cases."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lape.extras import need
from lape.measure.bootstrap import Floats
from lape.measure.intervals import Interval, interval

FLAT = 1e3
"""A ceiling so many times above what is predicted is none."""


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
    drawn = cases(len(x), resamples, seed)
    return interval(pearson(ranks(x[drawn]), ranks(y[drawn])))


@dataclass(frozen=True)
class Link:
    """What an estimate that ignores saturation says of a damage that has a ceiling: most · (1 − exp(−scale · x / most)), which grows with x."""

    scale: float = 1.0
    """The slope at 0."""
    most: float = np.inf
    """What it never exceeds, in the unit of the damage; infinite: a straight line."""

    def __call__(self, x: Floats) -> Floats:
        """Of any shape, element by element."""
        if not np.isfinite(self.most):
            return self.scale * x
        bent: Floats = -self.most * np.expm1(-self.scale * x / self.most)
        return bent


def linked(x: Floats, y: Floats) -> Link:
    """The link through which (n,) x predicts (n,) y best, by least squares: its scale, 0 or more, and where that helps its ceiling. Needs the extra `study`.

    The identity where x does not vary from 0.

    Example:
        >>> import numpy as np
        >>> from lape.measure.correlation import linked
        >>> x = np.linspace(0, 4, 10)
        >>> link = linked(x, 1 - np.exp(-x / 2))
        >>> round(link.scale, 3), round(link.most, 3)
        (0.5, 1.0)
    """
    need("study", "Fitting", "scipy")
    from scipy.optimize import least_squares

    size = float((x * x).sum())
    if not size:
        return Link()
    line = float((x * y).sum()) / size
    if line <= 0:
        return Link(0.0)

    def residuals(logs: Floats) -> Floats:
        return Link(*np.exp(logs))(x) - y

    reach = float(np.abs(line * x).max())
    tried = [least_squares(residuals, np.log([line, reach * far]), bounds=(-50, 50)) for far in (0.5, 2.0, 20.0)]
    best = min(tried, key=lambda one: float(one.cost))
    scale, most = (float(value) for value in np.exp(best.x))
    return Link(scale, most) if most < FLAT * reach else Link(line)


def cases(count: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """(1 + resamples, count) int64: all cases, then the cases of each resample, drawn with replacement."""
    drawn = np.random.default_rng(seed).integers(0, count, (resamples, count))
    return np.concatenate([np.arange(count)[None], drawn])


def judged(predicted: Floats, measured: Floats) -> dict[str, float | None]:
    """How (n,) predictions lie to (n,) measurements: `slope` of measured on predicted, Pearson's `correlation` and Spearman's `rho`; None where
    one does not vary.
    """
    r = float(pearson(predicted, measured))
    spread = float(predicted.std())
    slope = r * float(measured.std()) / spread if spread > 0 and np.isfinite(r) else None
    return {"slope": slope, "correlation": r if np.isfinite(r) else None, "rho": spearman(predicted, measured)}


def determined(predicted: Floats, measured: Floats) -> Floats:
    """(…, n) and (…, n) -> (…) R² = 1 − Σ(measured − predicted)² / Σ(measured − mean)²: below 0 is worse than the mean; nan where nothing varies."""
    error = ((measured - predicted) ** 2).sum(-1)
    spread = ((measured - measured.mean(-1, keepdims=True)) ** 2).sum(-1)
    result: Floats = 1 - np.divide(error, spread, out=np.full(np.shape(error), np.nan), where=spread > 0)
    return result
