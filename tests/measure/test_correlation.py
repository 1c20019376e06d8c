"""Ranks, correlations and judged predictions, from their definitions."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.measure.correlation import fitted, judged, pearson, rank_correlation, ranks, spearman

LAW = settings(deadline=None, max_examples=40)


@LAW
@given(st.integers(2, 60), st.integers(0, 10**6), st.sampled_from([1, 1e-6, 1e9]))
def test_correlations_are_their_definitions(n, seed, scale):
    """To 1e-12: covariance over both deviations, of the numbers or of their ranks."""
    random = np.random.default_rng(seed)
    x, y = scale * random.normal(size=(3, n)), random.normal(size=(3, n)).round(1)
    y[:, 0] += 3  # none is constant

    def r(a, b):
        a, b = a - math.fsum(a) / n, b - math.fsum(b) / n
        return math.fsum(a * b) / math.sqrt(math.fsum(a * a) * math.fsum(b * b))

    assert pearson(x, y) == pytest.approx([r(a, b) for a, b in zip(x, y, strict=True)], rel=0, abs=1e-12)
    for a, b in zip(x, y, strict=True):
        below = [[((v < one).sum() + (v <= one).sum() + 1) / 2 for one in v] for v in (a, b)]
        assert spearman(a, b) == pytest.approx(r(*map(np.array, below)), rel=0, abs=1e-12)


def test_what_does_not_vary_has_no_correlation_and_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = pearson(np.array([[1.0, 2.0, 3.0], [0.1, 0.1, 0.1]]), np.array([[2.0, 4.0, 6.0], [1.0, 2.0, 3.0]]))
        assert found[0] == pytest.approx(1)
        assert np.isnan(found[1])
        assert np.isnan(pearson(np.ones((2, 1)), np.ones((2, 1)))).all()
        assert spearman(np.ones(1), np.ones(1)) is None
        rank_correlation(np.array([0.0, 1.0, 1.0]), np.arange(3.0), 50, 0)  # some resamples are one case alone


lists = st.lists(st.integers(-3, 3), min_size=3, max_size=12)


@LAW
@given(lists)
def test_ranks_count_those_below_and_half_of_the_equals(values):
    x = np.array(values, float)
    expected = [1 + sum(v < one for v in values) + (values.count(one) - 1) / 2 for one in values]
    assert ranks(x).tolist() == expected
    assert ranks(np.stack([x, -x])).tolist() == [expected, [len(x) + 1 - e for e in expected]]


@LAW
@given(lists, st.integers(0, 99))
def test_correlations_are_those_of_numpy_and_do_not_change_under_growing_maps(values, seed):
    x = np.array(values, float)
    y = x + np.random.default_rng(seed).normal(size=len(x))
    if x.std() == 0:
        assert rank_correlation(x, y, 10, 0) == (None, None, None)
        return
    assert float(pearson(x, y)) == pytest.approx(np.corrcoef(x, y)[0, 1])
    rho, low, high = rank_correlation(x, y, 200, 0)
    assert rank_correlation(np.exp(x), y**3, 200, 0) == pytest.approx((rho, low, high))
    assert low <= high


def test_judged_tells_a_perfect_a_halved_and_a_useless_prediction_apart():
    y = np.random.default_rng(0).normal(size=50)
    perfect, halved = judged(y, y, 100, 0), judged(y / 2, y, 100, 0)
    assert (perfect["r2"], perfect["slope"]) == (pytest.approx(1), pytest.approx(1))
    assert halved["r2"] == pytest.approx(1 - ((y / 2) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    assert (halved["slope"], halved["correlation"]) == (pytest.approx(2), pytest.approx(1))
    assert judged(np.full(50, y.mean()), y, 100, 0)["r2"] == pytest.approx(0)
    assert fitted(y / 2, y) == pytest.approx(2)
    assert fitted(0 * y, y) == 0
    assert judged(y, 0 * y, 10, 0)["r2"] is None


def test_spearman_on_cases_worked_out_by_hand():
    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert spearman(x, np.exp(x)) == pytest.approx(1)
    assert spearman(x, -x) == pytest.approx(-1)
    # Ranks 1, 2, 3, 4 against 1.5, 1.5, 4, 3: differences sum to 0.25 + 0.25 + 1 + 1 squared; with ties by Pearson of ranks.
    assert spearman(x, np.array([0.0, 0.0, 9.0, 7.0])) == pytest.approx(3.5 / math.sqrt(5 * 4.5))
    assert spearman(x, np.ones(4)) is None
