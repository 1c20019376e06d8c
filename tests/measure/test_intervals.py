"""Intervals and corrected p values, from their definitions."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from lape.measure.intervals import (
    LEVELS,
    holm,
    holm_known,
    means_without,
    over_languages,
    p_at,
    pseudo_values,
    resampled,
    wilson,
)

LAW = settings(deadline=None, max_examples=40)


@LAW
@given(st.integers(1, 400), st.integers(0, 400))
def test_wilsons_interval_is_where_the_score_test_no_longer_rejects(of, count):
    """Wilson 1927, to 1e-12: the two shares p with |k/n - p| = z sqrt(p (1 - p) / n), solved for p."""
    count, z = min(count, of), statistics.NormalDist().inv_cdf(0.975)
    share = count / of
    middle, half = share + z * z / (2 * of), z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    ends = [(middle + sign * half) / (1 + z * z / of) for sign in (-1, 1)]
    assert wilson(count, of).interval[1:] == pytest.approx((max(ends[0], 0), min(ends[1], 1)), rel=0, abs=1e-12)


@LAW
@given(st.lists(st.floats(0, 1) | st.sampled_from([0.01, 0.05]), max_size=12))
def test_holms_p_is_the_largest_of_those_not_above_it_times_how_many_are_left(p):
    """Holm 1979, to 1e-12."""
    order = sorted(range(len(p)), key=lambda k: p[k])
    expected = [0.0] * len(p)
    for place, k in enumerate(order):
        expected[k] = min(1, max((len(p) - j) * p[other] for j, other in enumerate(order[: place + 1])))
    assert holm(p) == pytest.approx(expected, rel=0, abs=1e-12)


@pytest.mark.parametrize(
    ("count", "of", "expected"),
    [(0, 10, (0.0, 0.2775)), (5, 10, (0.2366, 0.7634)), (10, 10, (0.7225, 1.0)), (81, 263, (0.2553, 0.3662))],
)
def test_wilsons_interval(count, of, expected):
    assert wilson(count, of).interval == pytest.approx((count / of, *expected), abs=1e-4)
    assert wilson(0, 0).interval == (None, None, None)
    assert wilson(0, 0).quantiles is None


def test_wilsons_quantiles_have_its_ends_and_the_p_of_the_score_test():
    quantiles = wilson(3, 10).quantiles
    assert (quantiles[LEVELS.index(0.025)], quantiles[LEVELS.index(0.975)]) == wilson(3, 10).interval[1:]
    assert quantiles[LEVELS.index(0.5)] == pytest.approx(0.3)
    assert quantiles == sorted(quantiles)
    score = 2 * statistics.NormalDist().cdf((0.3 - 0.6) / math.sqrt(0.6 * 0.4 / 10))
    assert p_at(quantiles, 0.6) == pytest.approx(score, rel=0.02)


@LAW
@given(st.lists(st.floats(-9, 9), min_size=2, max_size=12))
def test_over_languages_is_students_t_of_their_values(values):
    found = np.array(values)
    half = student.ppf(0.975, len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found))
    mean = over_languages(found)
    assert mean.interval == pytest.approx((found.mean(), found.mean() - half, found.mean() + half), abs=1e-9)
    assert p_at(mean.quantiles, mean.interval[1]) == pytest.approx(0.05, abs=1e-6) or half < 1e-9


def test_one_language_says_nothing_of_others():
    assert over_languages(np.array([1.0])).interval == (1.0, None, None)
    assert over_languages(np.array([])).interval == (None, None, None)


def test_six_languages_around_0_are_rarely_called_different():
    random = np.random.default_rng(0)
    found = [over_languages(random.normal(size=6)).interval for _ in range(2000)]
    assert 0.04 <= np.mean([low > 0 or high < 0 for _, low, high in found]) <= 0.06


@LAW
@given(st.lists(st.floats(-9, 9), min_size=2, max_size=12))
def test_the_pseudo_values_of_a_mean_are_the_values(values):
    found = np.array(values)
    assert pseudo_values(found.mean(), means_without(found)) == pytest.approx(found, abs=1e-9)


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.02], [0.02]),
        ([], []),
        ([0.01, 0.01], [0.02, 0.02]),
    ],
)
def test_holm_corrects_as_in_the_paper(p, expected):
    assert holm(p) == pytest.approx(expected)


@LAW
@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.001, 0.2))
def test_holm_rejects_what_the_step_down_procedure_rejects(p, level):
    """Reject the smallest at level/m, the next at level/(m-1), …, and stop at the first that is not."""
    rejected = set()
    for rank, k in enumerate(sorted(range(len(p)), key=lambda k: p[k])):
        if p[k] * (len(p) - rank) > level:
            break
        rejected.add(k)
    assert {k for k, one in enumerate(holm(p)) if one <= level} == rejected


def test_holm_passes_over_what_has_no_p():
    assert holm_known([None, 0.01, None, 0.04, 0.03]) == [
        None,
        pytest.approx(0.03),
        None,
        pytest.approx(0.06),
        pytest.approx(0.06),
    ]
    assert holm_known([None]) == [None]


def test_levels_are_symmetric_and_hold_the_ends_of_90_and_95_per_cent():
    assert len(LEVELS) == 101
    assert list(LEVELS) == sorted(set(LEVELS))
    assert [1 - level for level in reversed(LEVELS)] == pytest.approx(LEVELS)
    assert {0.0005, 0.025, 0.05, 0.5, 0.95, 0.975} <= set(LEVELS)


@LAW
@given(st.floats(-3, 3))
def test_p_is_twice_the_smaller_tail(margin):
    """Of a normal distribution, whose tails are known."""
    normal = statistics.NormalDist(0.3, 0.8)
    quantiles = [normal.inv_cdf(level) for level in LEVELS]
    tail = min(max(normal.cdf(margin), 0.0005), 0.9995)
    assert p_at(quantiles, margin) == pytest.approx(2 * min(tail, 1 - tail), rel=0.05, abs=2e-4)
    assert p_at(quantiles, margin, side=1) == pytest.approx(tail, rel=0.05, abs=1e-4)
    assert p_at(quantiles, margin, side=-1) == pytest.approx(1 - tail, rel=0.05, abs=1e-4)


def test_p_at_an_end_of_the_interval_is_5_per_cent_and_never_0():
    quantiles = [level**3 for level in LEVELS]
    for end in (0.025, 0.975):
        assert p_at(quantiles, end**3) == pytest.approx(0.05)
    assert [p_at(quantiles, -1), p_at(quantiles, 2)] == pytest.approx([0.001, 0.001])
    unknown = [None if level < 0.005 or level > 0.995 else level for level in LEVELS]
    assert [p_at(unknown, -1), p_at(unknown, 2)] == pytest.approx([0.01, 0.01])


def test_p_of_a_margin_on_which_many_draws_lie_counts_them_on_both_sides():
    quantiles = [0.0 if level < 0.6 else 1.0 for level in LEVELS]
    assert p_at(quantiles, 0.0, side=1) == pytest.approx(0.6, abs=0.06)
    assert p_at(quantiles, 0.0, side=-1) > 0.999
    assert p_at([0.5] * 101, 0.5) == 1.0


def test_columns_of_what_is_judged_come_with_its_quantiles():
    assert list(resampled("a", "b")) == [f"{x}{end}" for x in "ab" for end in ("", "_low", "_high", "_quantiles")]
    assert list(resampled("a", plain=True)) == ["a", "low", "high", "quantiles"]
