"""Ranks, correlations and judged predictions, from their definitions."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.measure.bootstrap import Resamples
from lape.measure.correlation import Link, determined, judged, linked, pearson, rank_correlation, ranks, spearman

LAW = settings(deadline=None, max_examples=40)


@LAW
@given(st.integers(2, 60), st.integers(0, 10**6), st.sampled_from([1, 1e-6, 1e9]))
def test_correlations_are_their_definitions(n, seed, scale):
    """To 1e-12: covariance over both deviations, of the numbers or of their ranks."""
    random = np.random.default_rng(seed)
    x, y = scale * random.normal(size=(3, n)), random.normal(size=(3, n)).round(1)
    y[:, 0] = y.max(1) + 3  # none is constant

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
        few = np.arange(24) // 23 * 1.0
        rank_correlation(few, np.arange(24.0), Resamples(24, 50, 0))  # some resamples lack the one that differs


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
        assert np.isnan(rank_correlation(x, y, Resamples(len(x), 10, 0))).all()
        return
    assert float(pearson(x, y)) == pytest.approx(np.corrcoef(x, y)[0, 1])
    drawn = Resamples(len(x), 50, 0)
    assert rank_correlation(np.exp(x), y**3, drawn) == pytest.approx(rank_correlation(x, y, drawn), nan_ok=True)


def test_each_row_of_rank_correlations_is_that_of_its_resample_or_of_all_cases_but_one():
    x, y = np.random.default_rng(0).normal(size=(2, 25)).round(1)
    drawn = Resamples(25, 10, 0)
    found = rank_correlation(x, y, drawn)
    assert len(found) == 1 + 10 + 25
    assert found[0] == pytest.approx(spearman(x, y))
    for row, times in zip(found[1:11], drawn.weights[1:11].astype(int), strict=True):
        assert row == pytest.approx(spearman(np.repeat(x, times), np.repeat(y, times)))
    for k, row in enumerate(found[11:]):
        assert row == pytest.approx(spearman(np.delete(x, k), np.delete(y, k)))


def test_a_perfect_a_halved_and_a_useless_prediction_are_told_apart():
    y = np.random.default_rng(0).normal(size=50)
    assert judged(y, y) == {"slope": pytest.approx(1), "correlation": pytest.approx(1), "rho": pytest.approx(1)}
    assert judged(y / 2, y)["slope"] == pytest.approx(2)
    assert judged(0 * y, y) == {"slope": None, "correlation": None, "rho": None}
    assert determined(y, y) == pytest.approx(1)
    assert determined(y / 2, y) == pytest.approx(1 - ((y / 2) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    assert determined(np.full(50, y.mean()), y) == pytest.approx(0)
    assert np.isnan(determined(y, 0 * y + 2))
    assert determined(y / 2, y, instead=y / 4) == pytest.approx(1 - 0.5**2 / 0.75**2)


@LAW
@given(st.integers(0, 10**6), st.integers(2, 12))
def test_weights_count_cases_as_often(seed, n):
    random = np.random.default_rng(seed)
    x, y, other = random.normal(size=(3, n))
    w = random.multinomial(2 * n, np.full(n, 1 / n), size=3)
    for instead in (None, other):
        every = determined(*np.broadcast_arrays(x, y + 0 * w), w, instead)
        for row, times in zip(every, w, strict=True):
            some = np.repeat(np.arange(n), times)
            expected = determined(x[some], y[some], instead=None if instead is None else instead[some])
            assert row == pytest.approx(expected, nan_ok=True) or len(set(some)) == 1


@LAW
@given(st.floats(0.05, 20), st.floats(-3, 3), st.integers(0, 10**6))
def test_a_link_is_found_again_grows_and_begins_at_0(scale, bend, seed):
    x = np.sort(np.random.default_rng(seed).gamma(2.0, 0.5, 12))
    true = Link(scale, bend / float(x.max()))
    link = linked(x, true(x))
    assert link(x) == pytest.approx(true(x), rel=1e-3, abs=1e-5 * scale)
    assert (np.diff(link(np.linspace(-1, 3 * x.max(), 200))) >= 0).all()
    assert float(link(np.zeros(1))[0]) == 0.0


def test_a_link_bends_only_where_that_predicts_cases_it_was_not_fitted_on():
    random = np.random.default_rng(0)
    straight = bent = 0
    for _ in range(60):
        x = random.gamma(2.0, 1.0, 8)
        straight += linked(x, x + 0.3 * random.normal(size=8)).bend == 0
        bent += linked(x, np.expm1(x) + 0.3 * random.normal(size=8)).bend < 0
    assert straight > 30
    assert bent > 50


def test_a_link_of_what_tells_nothing_or_is_0_is_flat_or_none():
    x = np.linspace(0.1, 1, 10)
    assert linked(x, -x) == Link(0.0)
    assert linked(0 * x, x) == Link()
    assert Link()(x).tolist() == x.tolist()


def test_spearman_on_cases_worked_out_by_hand():
    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert spearman(x, np.exp(x)) == pytest.approx(1)
    assert spearman(x, -x) == pytest.approx(-1)
    # Ranks 1, 2, 3, 4 against 1.5, 1.5, 4, 3: differences sum to 0.25 + 0.25 + 1 + 1 squared; with ties by Pearson of ranks.
    assert spearman(x, np.array([0.0, 0.0, 9.0, 7.0])) == pytest.approx(3.5 / math.sqrt(5 * 4.5))
    assert spearman(x, np.ones(4)) is None
