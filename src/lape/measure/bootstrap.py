"""Intervals by resampling units of text, jointly over languages and conditions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

FEWEST = 20
"""Under this many units there is no interval."""
BLOCK = 8
"""Lines in a unit where a text is read as one document."""

Floats = NDArray[np.float64]


def units(document: NDArray[np.int64]) -> NDArray[np.int64]:
    """The unit of each line: its document, or, in a text that is one document, a block of 8 lines."""
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


class Bootstrap:
    """The same resamples for every language and condition, so that translations stay together."""

    def __init__(self, count: int, resamples: int, seed: int) -> None:
        self.count = count
        generator = np.random.default_rng(seed)
        self.weights = generator.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)

    def interval(self, amount: Floats, size: Floats) -> tuple[float, float] | None:
        """95 % interval of Σ amount / Σ size over units (units,), or None where fewer than 20 hold any text."""
        if int((size > 0).sum()) < FEWEST:
            return None
        sizes = self.weights @ self._whole(size)
        ratios = (self.weights @ self._whole(amount)) / np.maximum(sizes, 1e-12)
        low, high = np.quantile(ratios[sizes > 0], [0.025, 0.975])
        return float(low), float(high)

    def _whole(self, values: Floats) -> Floats:
        return np.pad(values, (0, self.count - len(values)))
