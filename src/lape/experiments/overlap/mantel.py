"""Do two likenesses of the same languages agree? The permutation test of Mantel (1967) on ranks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations as orders_of
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lape.errors import OptionError
from lape.measure.correlation import ranks

Matrix: TypeAlias = NDArray[np.float64]
"""(languages, languages), symmetric."""
FEWEST = 4
"""Fewer languages have too few orders (3: six) for a test."""
EXACT = 7
"""Up to so many languages every order is gone through (7: 5,040)."""


class Mantel(NamedTuple):
    """What `mantel` found."""

    r: float
    """Rank correlation of the pairs, -1 to 1."""
    p: float
    """Share of the orders whose correlation is as large or larger."""
    permutations: int
    """How many orders were gone through, the one given among them."""


def mantel(a: ArrayLike, b: ArrayLike, *, permutations: int = 9999, seed: int = 0) -> Mantel:
    """Whether pairs that are more alike in `a` are more alike in `b`: the test of Mantel (1967), one-sided.

    `a`, `b`: (n, n) symmetric; the diagonal is not read. The statistic is Spearman's: a Jaccard and a share of a family tree have
    no common scale, only an order, and one close pair (zh, ja) would rule Pearson's. Ties get their mean rank. Pairs are not
    independent, so the rows and columns of `b` are permuted together. Up to 7 languages all n! orders are gone through and p is
    exact; for more, `permutations` random orders and the one given: p = (1 + as large) / (1 + permutations).

    Raises OptionError for fewer than 4 languages, for matrices that differ in shape, are not symmetric or hold nan, and for one
    that is the same for every pair, which has no order.
    """
    first, second = _checked(a), _checked(b)
    if first.shape != second.shape:
        raise OptionError(
            f"The matrices are of {len(first)} and {len(second)} languages. Expected the same ones, in the same order."
        )
    upper = np.triu_indices(len(first), 1)
    x, y = _centred_ranks(first[upper]), _centred_ranks(second[upper])
    if not x.any() or not y.any():
        raise OptionError(
            "A matrix is the same for every pair, so there is nothing to order. Expected two values or more."
        )
    square = np.zeros(first.shape)
    square[upper] = y
    square += square.T
    # Sums of whole numbers, exact in float64: equal correlations are equal.
    sums = np.array([x @ square[np.ix_(order, order)][upper] for order in _orders(len(first), permutations, seed)])
    r = float(np.clip(sums[0] / np.sqrt((x @ x) * (y @ y)), -1, 1))
    return Mantel(r, float((sums >= sums[0]).mean()), len(sums))


def _checked(matrix: ArrayLike) -> Matrix:
    found = np.asarray(matrix, dtype=np.float64)
    if found.ndim != 2 or found.shape[0] != found.shape[1]:
        raise OptionError(f"A matrix of shape {found.shape} was given. Expected (languages, languages).")
    if len(found) < FEWEST:
        raise OptionError(f"There are {len(found)} languages. Expected {FEWEST} or more for a permutation test.")
    pairs = ~np.eye(len(found), dtype=bool)
    if np.isnan(found[pairs]).any():
        raise OptionError("A matrix holds nan. Leave out the languages whose similarity is not known.")
    if not np.allclose(found[pairs], found.T[pairs], rtol=1e-9, atol=0):
        raise OptionError("A matrix is not symmetric. Expected one similarity for each pair of languages.")
    return found


def _centred_ranks(values: Matrix) -> Matrix:
    """Ranks with ties at their mean, times 2, less their own mean: whole numbers that sum to 0."""
    return 2 * ranks(values) - (len(values) + 1)


def _orders(count: int, permutations: int, seed: int) -> Iterator[list[int]]:
    """The order as given first, then all others, or random ones."""
    if count <= EXACT:
        yield from map(list, orders_of(range(count)))
        return
    if permutations < 1:
        raise OptionError(f"permutations is {permutations}. Expected 1 or more.")
    random = np.random.default_rng(seed)
    yield list(range(count))
    for _ in range(permutations):
        yield random.permutation(count).tolist()
