"""Intervals by resampling units of text, jointly over languages and conditions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

FEWEST = 20
"""Under this many units there is no interval."""
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


class Resamples:
    """Bootstrap resamples of units of text, the same for every language and condition, so that translations stay together.

    `weights` (1 + resamples, units) float64: how often each unit is drawn, first all units once, then each resample. Under 20 units there
    are no resamples, and so no interval.

    Example:
        >>> import numpy as np
        >>> from lape.measure.bootstrap import Resamples
        >>> from lape.measure.intervals import interval
        >>> nats, tokens = np.arange(40.0), np.full(40, 10.0)
        >>> drawn = Resamples(40, 2000, seed=0)
        >>> drawn.count, drawn.sums(nats).shape
        (40, (2001,))
        >>> value, low, high = interval(drawn.ratio(nats, tokens))  # nats per token
        >>> value, low < value < high
        (1.95, True)
    """

    def __init__(self, units: int | NDArray[np.int64], resamples: int, seed: int, *, held: int | None = None) -> None:
        """`units`: how many there are, or how many of each kind where those of a kind are alike. `held`: how many of them hold text,
        in the language that has fewest; default: all.
        """
        times = np.ones(units) if isinstance(units, int) else units.astype(np.float64)
        count = int(times.sum())
        enough = (count if held is None else held) >= FEWEST
        drawn = np.random.default_rng(seed).multinomial(count, times / count, size=resamples if enough else 0)
        self.weights: Floats = np.concatenate([times[None], drawn.astype(np.float64)])

    @property
    def count(self) -> int:
        """Units, or kinds of them."""
        return int(self.weights.shape[1])

    def sums(self, values: Floats) -> Floats:
        """(units, …) -> (1 + resamples, …): the sum on all units, then on each resample."""
        summed: Floats = self.weights @ values
        return summed

    def ratio(self, amount: Floats, size: Floats) -> Floats:
        """(1 + resamples,) Σ amount / Σ size over units (units,): on all units, then on each resample.

        Not a number where the size is 0, and on every resample where fewer than 20 units hold any.
        """
        # all units by a plain sum: a table has the very same number beside the interval
        over = np.concatenate([[size.sum()], self.weights[1:] @ size])
        drawn = np.concatenate([[amount.sum()], self.weights[1:] @ amount])
        ratios: Floats = np.divide(drawn, over, out=np.full(len(over), np.nan), where=over > 0)
        if self.weights[0][size > 0].sum() < FEWEST:
            ratios[1:] = np.nan
        return ratios
