"""The test of Mantel: a twin over all orders, its laws, and a likeness that is planted."""

from __future__ import annotations

import statistics
from itertools import combinations, permutations
from math import factorial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.errors import OptionError
from lape.experiments.overlap.mantel import mantel

LAW = settings(deadline=None, max_examples=25)


def symmetric(values, n: int) -> np.ndarray:
    matrix = np.zeros((n, n))
    for value, (i, j) in zip(values, combinations(range(n), 2), strict=True):
        matrix[i, j] = matrix[j, i] = value
    return matrix


@st.composite
def likenesses(draw, sizes=(4, 5), count: int = 2):
    """Symmetric matrices of the same languages, with ties, none of them the same for every pair."""
    n = draw(st.sampled_from(sizes))
    pairs = n * (n - 1) // 2
    values = st.lists(st.integers(0, 6), min_size=pairs, max_size=pairs).filter(lambda v: len(set(v)) > 1)
    return [symmetric(draw(values), n) for _ in range(count)]


def ranks(values: list[float]) -> list[float]:
    return [(sum(w < v for w in values) + sum(w <= v for w in values) + 1) / 2 for v in values]


def twin(a: np.ndarray, b: np.ndarray) -> tuple[float, float, int]:
    """Rank both lists of pairs anew for every order, and correlate."""
    pairs = list(combinations(range(len(a)), 2))
    own = ranks([a[i, j] for i, j in pairs])

    def r(order):
        return statistics.correlation(own, ranks([b[order[i], order[j]] for i, j in pairs]))

    values = [r(order) for order in permutations(range(len(a)))]
    return values[0], statistics.mean(value >= values[0] - 1e-9 for value in values), len(values)


@LAW
@given(likenesses())
def test_it_is_the_correlation_of_ranks_and_its_place_among_all_orders(matrices):
    assert mantel(*matrices) == pytest.approx(twin(*matrices), abs=1e-9)


@LAW
@given(likenesses(), st.randoms())
def test_the_order_of_the_languages_does_not_matter(matrices, random):
    order = list(range(len(matrices[0])))
    random.shuffle(order)
    assert mantel(*(m[np.ix_(order, order)] for m in matrices)) == mantel(*matrices)


@LAW
@given(likenesses())
def test_only_the_order_of_the_likenesses_matters_and_not_which_comes_first(matrices):
    a, b = matrices
    assert mantel(np.exp(a), 5 + 3 * b) == mantel(a, b)
    assert mantel(b, a) == pytest.approx(mantel(a, b), abs=1e-12)


@LAW
@given(likenesses())
def test_the_diagonal_is_not_read(matrices):
    a, b = matrices
    np.fill_diagonal(b, np.nan)
    assert mantel(a, b) == mantel(a, np.nan_to_num(b, nan=7.0))


@LAW
@given(likenesses())
def test_p_counts_the_order_as_given_and_turning_a_likeness_round_turns_r(matrices):
    a, b = matrices
    found = mantel(a, b)
    assert 1 / found.permutations <= found.p <= 1
    assert -1 <= found.r <= 1
    assert mantel(a, -b).r == pytest.approx(-found.r)


@LAW
@given(likenesses())
def test_no_overlap_gets_a_smaller_p_than_one_ordered_as_the_likeness_itself(matrices):
    a, b = matrices
    assert mantel(a, b).p >= mantel(b, b).p


@pytest.mark.parametrize("n", [4, 5, 6, 7])
def test_a_likeness_equal_to_the_overlap_gives_the_smallest_p_there_is(n):
    values = np.random.default_rng(n).permutation(n * (n - 1) // 2)
    overlap = symmetric(values, n)
    assert mantel(overlap, overlap) == (1.0, 1 / factorial(n), factorial(n))


def test_beyond_7_languages_random_orders_and_the_one_given_are_counted():
    values = np.random.default_rng(0).permutation(36)
    overlap = symmetric(values, 9)
    assert mantel(overlap, overlap, permutations=199) == (1.0, 1 / 200, 200)
    assert mantel(overlap, -overlap, permutations=199).p == 1


def test_random_orders_agree_with_all_of_them(monkeypatch):
    random = np.random.default_rng(5)
    a, b = symmetric(random.random(21), 7), symmetric(random.random(21), 7)
    exact = mantel(a, b)
    monkeypatch.setattr("lape.experiments.overlap.mantel.EXACT", 3)
    drawn = mantel(a, b, permutations=4000)
    assert (exact.permutations, drawn.permutations) == (5040, 4001)
    assert drawn.r == exact.r
    assert drawn.p == pytest.approx(exact.p, abs=4 * (exact.p * (1 - exact.p) / 4000) ** 0.5)
    assert mantel(a, b, permutations=100, seed=1) == mantel(a, b, permutations=100, seed=1)
    assert len({mantel(a, b, permutations=100, seed=seed).p for seed in range(8)}) > 1


def test_of_unrelated_likenesses_p_is_below_a_share_no_more_often_than_that_share():
    random = np.random.default_rng(0)
    found = [mantel(symmetric(random.random(10), 5), symmetric(random.random(10), 5)).p for _ in range(400)]
    for share in (0.1, 0.3, 0.5):
        assert statistics.mean(p <= share for p in found) == pytest.approx(share, abs=0.08)


GOOD = symmetric(range(10), 5)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (symmetric(range(3), 3), symmetric(range(3), 3), "3 languages.*4 or more"),
        (GOOD, symmetric(range(15), 6), "5 and 6 languages"),
        (GOOD, GOOD + np.arange(5), "not symmetric"),
        (GOOD, np.where(GOOD == 4, np.nan, GOOD), "nan"),
        (GOOD, np.ones((5, 5)), "same for every pair"),
        (np.zeros((5, 5)), GOOD, "same for every pair"),
        (GOOD, GOOD[:4], "shape"),
        (GOOD, GOOD[0], "shape"),
    ],
)
def test_what_cannot_be_tested_is_refused(a, b, said):
    with pytest.raises(OptionError, match=said):
        mantel(a, b)


def test_no_permutations_are_refused():
    nine = symmetric(range(36), 9)
    with pytest.raises(OptionError, match="permutations is 0"):
        mantel(nine, nine, permutations=0)
