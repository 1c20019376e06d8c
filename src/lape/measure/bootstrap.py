"""Intervals by resampling units of text, jointly over languages and conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lape.errors import MismatchError
from lape.measure.intervals import LEVELS, LOW_HIGH, Estimate, Interval, student

FEWEST = 20
"""Under this many units there is no interval."""
MANY = 400
"""Under this many units the ends of an interval are corrected for bias and skewness (BCa); from here on they are plain percentiles."""
BLOCK = 8
"""Lines in a unit where a text is read as one document."""

Floats = NDArray[np.float64]


def units(document: NDArray[np.int64]) -> NDArray[np.int64]:
    """The unit of resampling of each line: its document, or, in a text that is one document, a block of 8 lines.

    `document`: (lines,) int64, the number of each line's document. Gives (lines,) int64.

    Example:
        >>> import numpy as np
        >>> from lape.measure.bootstrap import units
        >>> units(np.array([0, 0, 1, 2])).tolist()
        [0, 0, 1, 2]
        >>> units(np.zeros(10, dtype=np.int64)).tolist()
        [0, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    """
    if len(np.unique(document)) > 1:
        return document
    result: NDArray[np.int64] = np.arange(len(document), dtype=np.int64) // BLOCK
    return result


def several_documents(place: NDArray[np.int64]) -> bool:
    """Whether lines, (lines, 2) numbers of document and line as `lape.data.corpus.Lines.place` gives them, are of several documents."""
    return len(np.unique(place[:, 0])) > 1


def paired_units(places: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
    """Language -> the unit of each line: `units`, but numbered alike in all languages, so that translations share a unit.

    `places`: language -> (lines, 2) numbers of document and line. A document or line that is empty in one language keeps its
    number, so that those after it still pair; numbers under which no language has text are passed over.
    """
    result: dict[str, NDArray[np.int64]] = {}
    for several in (True, False):
        numbers = {
            k: place[:, 0 if several else 1] for k, place in places.items() if several_documents(place) == several
        }
        if numbers:
            known = np.unique(np.concatenate(list(numbers.values())))
            for language, one in numbers.items():
                rank = np.searchsorted(known, one).astype(np.int64)
                result[language] = rank if several else rank // BLOCK
    return {language: result[language] for language in places}


def by_unit(unit: NDArray[np.int64], values: ArrayLike, count: int) -> Floats:
    """(count,) the sum of values over each unit's lines; 0 for a unit that has none."""
    return np.bincount(unit, weights=np.asarray(values), minlength=count).astype(np.float64)


_ENDS = [LEVELS.index(end) for end in LOW_HIGH]


class Resamples:
    """Bootstrap resamples of units of text, the same for every language and condition, so that translations stay together.

    `weights` (rows, units) float64: how much each unit counts, first all units once, then each resample, and under 400 units, last, all units but
    one, each left out in turn; every row adds up to the number of units. Whatever is computed row by row from them, `interval`, `named`, `plain` and
    `quantiles` of the same object take. Under 20 units there are no resamples, and so no interval.

    Under 400 units the ends are BCa (Efron 1987, "Better bootstrap confidence intervals"): plain percentiles of few and skewed units cover too
    little. The bias correction is from the share of draws under the value, ties counted half; the acceleration from the units left out. Resamples
    of n units vary by (n − 1) / n too little, and their spread is an estimate itself: so levels are those of Student's t times √(n / (n − 1))
    (Hesterberg 2015, "What teachers should know about the bootstrap"). Resamples without a value are passed over. The ends are the percentiles where
    every resample lies on one side of the value, or a unit left out leaves no value.

    Control neurons are a sample too, of a few draws. `interval` and the others take what each draw adds to the value (`draws`). Each sample then has
    an interval of its own: the units that of the bootstrap, the draws that of Student's t, with one degree of freedom less than there are draws. Their
    distances from the value are added in squares (Zou and Donner 2008, "Construction of confidence limits about effect measures"). With one draw
    nothing is known of other draws, and there is no interval.

    Example:
        >>> import numpy as np
        >>> from lape.measure.bootstrap import Resamples
        >>> nats, tokens = np.arange(40.0), np.full(40, 10.0)
        >>> drawn = Resamples(40, 2000, seed=0)
        >>> drawn.count, drawn.sums(nats).shape  # all, 2000 resamples, 40 with one left out
        (40, (2041,))
        >>> change = drawn.ratio(nats, tokens)  # nats per token
        >>> value, low, high = drawn.estimate(change).interval
        >>> value, low < value < high
        (1.95, True)
        >>> list(drawn.named("own", change)), list(drawn.plain("own", change, quantiles=True))
        (['own', 'own_low', 'own_high'], ['own', 'low', 'high', 'quantiles'])
        >>> len(drawn.quantiles(change))
        101
    """

    def __init__(self, units: int | NDArray[np.int64], resamples: int, seed: int, *, held: int | None = None) -> None:
        """`units`: how many there are, or how many of each kind where those of a kind are alike. `held`: how many of them hold text,
        in the language that has fewest; default: all.
        """
        times = np.ones(units) if isinstance(units, int) else units.astype(np.float64)
        count = int(times.sum())
        enough = (count if held is None else held) >= FEWEST
        drawn = np.random.default_rng(seed).multinomial(count, times / count, size=resamples if enough else 0)
        parts = [times[None], drawn.astype(np.float64)]
        if enough and count < MANY:
            left_out = np.repeat(np.eye(len(times)), times.astype(int), axis=0)
            parts.append((times - left_out) * (count / (count - 1)))
        self.resamples = len(drawn)
        """How many there are: as many as asked for, or none."""
        self.weights: Floats = np.concatenate(parts)

    @property
    def count(self) -> int:
        """Units, or kinds of them."""
        return int(self.weights.shape[1])

    def sums(self, values: Floats) -> Floats:
        """(units, …) -> (rows, …): the sum on all units, on each resample, and with each unit left out."""
        summed: Floats = self.weights @ values
        return summed

    def ratio(
        self, amount: Floats, size: Floats, *, at: NDArray[np.int64] | None = None, fewest: int = FEWEST
    ) -> Floats:
        """(rows,) Σ amount / Σ size over units (units,): on all units, on each resample, and with each unit left out.

        `at`: the units that amounts and sizes are of, where the others hold none. Not a number where the size is 0, and but for the first wherever fewer
        than `fewest` units hold any: 20, unless it is one of several ratios whose mean is over more.
        """
        # all units by a plain sum: a table has the very same number beside the interval
        weights = self.weights if at is None else self.weights[:, at]
        times = weights[0]
        over = np.concatenate([[(times * size).sum()], weights[1:] @ size])
        drawn = np.concatenate([[(times * amount).sum()], weights[1:] @ amount])
        ratios: Floats = np.divide(drawn, over, out=np.full(len(over), np.nan), where=over > 0)
        if times[size > 0].sum() < fewest:
            ratios[1:] = np.nan
        return ratios

    def interval(self, values: Floats, *, draws: Sequence[Floats] = ()) -> Interval:
        """The value on all units and its 95 % interval: value, low, high.

        `values`: (rows,) float64, computed from the rows of `weights`; nan, or infinite, where there is none. What does not exist is None: the
        interval where under two resamples have a value, all three where all units have none.

        `draws`: one array for each independent sample of control neurons that the value is compared with: (draws,) float64, what each draw adds to the
        value, which holds their mean. There is no interval where a sample has a single draw. Raises MismatchError for another number of rows.

        Example:
            >>> import numpy as np
            >>> from lape.measure.bootstrap import Resamples
            >>> drawn, random = Resamples(40, 2000, seed=0), np.random.default_rng(0)
            >>> losses = random.random((40, 3))  # of 40 sentences with each of 3 draws of control neurons off
            >>> by_draw = drawn.sums(losses) / drawn.count
            >>> value, low, high = drawn.interval(by_draw.mean(1), draws=[by_draw[0]])
            >>> _, narrower, _ = drawn.interval(by_draw.mean(1))  # of these very draws, on other sentences
            >>> low < narrower < value
            True
            >>> drawn.interval(by_draw[:, 0], draws=[by_draw[0, :1]])[1:]
            (None, None)
        """
        return self.estimate(values, draws=draws).interval

    def quantiles(self, values: Floats, *, draws: Sequence[Floats] = ()) -> list[float | None] | None:
        """The distribution behind the interval: (101,) its quantiles at `lape.measure.intervals.LEVELS`.

        Those at 2.5 % and 97.5 % are the ends of the interval. None stands for a level that so few resamples do not resolve; for the whole
        where there is no interval. `values` and `draws`: as for `interval`, which raises the same.

        Example:
            >>> import numpy as np
            >>> from lape.measure.bootstrap import Resamples
            >>> from lape.measure.intervals import p_at
            >>> drawn = Resamples(40, 2000, seed=0)
            >>> change = drawn.ratio(np.random.default_rng(1).normal(0.5, 1.0, 40), np.ones(40))
            >>> p_at(drawn.quantiles(change), 0.0) < 0.05 < p_at(drawn.quantiles(change), 0.6)
            True
        """
        return self.estimate(values, draws=draws).quantiles

    def named(
        self, name: str, values: Floats, *, quantiles: bool = False, draws: Sequence[Floats] = ()
    ) -> dict[str, Any]:
        """`interval` as columns of a row: the name, with `_low` and `_high` after it, and with `_quantiles` if wanted."""
        return self.estimate(values, draws=draws).named(name, quantiles=quantiles)

    def plain(
        self, name: str, values: Floats, *, quantiles: bool = False, draws: Sequence[Floats] = ()
    ) -> dict[str, Any]:
        """`interval` as columns of a row: the name, then `low`, `high`, and `quantiles` if wanted."""
        return self.estimate(values, draws=draws).plain(name, quantiles=quantiles)

    def estimate(self, values: Floats, *, draws: Sequence[Floats] = ()) -> Estimate:
        """The value on all units with the distribution behind its interval. `values` and `draws`: as for `interval`, which raises the same."""
        if len(values) != len(self.weights):
            raise MismatchError(
                f"These are {len(values):,} values, of {len(self.weights):,} rows of weights. Give a value for each row: all units, "
                "each resample, and each unit left out."
            )
        if not np.isfinite(values[0]):
            return Estimate(None)
        value = float(values[0])
        drawn, left_out = np.split(values[1:], [self.resamples])
        drawn = drawn[np.isfinite(drawn)]
        if len(drawn) < 2 or any(len(sample) < 2 or not np.isfinite(sample).all() for sample in draws):
            return Estimate(value)
        levels = np.array(LEVELS)
        if len(left_out) and np.isfinite(left_out).all():
            levels = _corrected(value, drawn, left_out, levels)
        quantiles: Floats = np.quantile(drawn, levels)
        beyond = np.minimum(levels, 1 - levels) * (len(drawn) + 1) < 1 - 1e-9
        beyond[_ENDS] = False
        quantiles[beyond] = np.nan
        if draws:
            distances = [quantiles - value, *(student(0.0, sample) for sample in draws)]
            squares = sum(distance * np.abs(distance) for distance in distances)
            quantiles = value + np.sign(squares) * np.sqrt(np.abs(squares))
        return Estimate.of(value, quantiles)


def _corrected(value: float, drawn: Floats, left_out: Floats, levels: Floats) -> Floats:
    """Which percentiles of the resamples are the quantiles at some levels, corrected for bias and acceleration (Efron 1987)."""
    from scipy.special import ndtr, ndtri, stdtrit

    # sums of the same units in another order differ in the last digits: that is a tie
    tied = np.isclose(drawn, value, rtol=1e-12, atol=0)
    under = float(((drawn < value) & ~tied).mean() + tied.mean() / 2)
    if not 0 < under < 1:
        return levels
    bias = ndtri(under)
    influence = left_out.mean() - left_out
    spread = float((influence**2).sum())
    flat = spread <= (1e-12 * abs(value)) ** 2 * len(left_out)
    acceleration = 0.0 if flat else float((influence**3).sum()) / (6 * spread**1.5)
    count = len(left_out)
    z = bias + stdtrit(count - 1, levels) * (count / (count - 1)) ** 0.5
    room = 1 - acceleration * z  # 0 or less: beyond every resample
    moved: Floats = ndtr(bias + np.divide(z, room, out=np.copysign(np.inf, z), where=room > 0))
    return moved
