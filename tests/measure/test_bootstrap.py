"""Intervals: they cover what they estimate, resample languages together, and stay silent under 20 units."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.measure.bootstrap import Bootstrap, paired_units, units


def data(seed, count=60, ratio=0.3):
    """Amounts whose expected ratio to their sizes is `ratio`."""
    random = np.random.default_rng(seed)
    size = random.integers(5, 60, count).astype(float)
    return size * (ratio + random.normal(0, 0.5, count)), size


def test_an_interval_covers_the_true_ratio_about_19_times_in_20():
    bootstrap = Bootstrap(60, 400, seed=0)
    hits = 0
    for seed in range(400):
        low, high = bootstrap.interval(*data(seed))
        hits += low <= 0.3 <= high
    assert 0.90 <= hits / 400 <= 0.98


def test_an_interval_is_as_wide_as_the_theory_of_ratios_says():
    amount, size = data(1, count=2000)
    low, high = Bootstrap(2000, 2000, seed=0).interval(amount, size)
    residual = amount - amount.sum() / size.sum() * size
    expected = 2 * 1.96 * np.sqrt(np.sum(residual**2)) / size.sum()
    assert high - low == pytest.approx(expected, rel=0.1)


def test_units_are_resampled_whole_not_their_tokens():
    """20 units of 1000 tokens are 20 draws, not 20,000: the interval does not narrow with the tokens in a unit."""
    small = Bootstrap(25, 1000, 0).interval(*data(2, 25))
    amount, size = data(2, 25)
    assert Bootstrap(25, 1000, 0).interval(amount * 1000, size * 1000) == pytest.approx(small)


@settings(max_examples=30, deadline=None)
@given(st.floats(-5, 5), st.integers(20, 80), st.integers(0, 99))
def test_a_ratio_that_is_the_same_in_every_unit_has_no_width(ratio, count, seed):
    _, size = data(seed, count)
    low, high = Bootstrap(count, 50, seed).interval(ratio * size, size)
    assert low == pytest.approx(ratio)
    assert high == pytest.approx(ratio)


@settings(max_examples=30, deadline=None)
@given(st.integers(20, 80), st.integers(0, 99), st.floats(-3, 3), st.floats(0.1, 5))
def test_shifting_and_stretching_the_amounts_shifts_and_stretches_the_interval(count, seed, shift, factor):
    amount, size = data(seed, count)
    bootstrap = Bootstrap(count, 100, 0)
    low, high = bootstrap.interval(amount, size)
    expected = (factor * low + shift, factor * high + shift)
    assert bootstrap.interval(factor * amount + shift * size, size) == pytest.approx(expected)


def test_languages_and_conditions_share_their_resamples():
    """Translations stay together: a difference that is the same in every unit is the same in every resample."""
    bootstrap, (amount, size) = Bootstrap(40, 300, 0), data(3, 40)
    ratios = [(bootstrap.weights @ x) / (bootstrap.weights @ size) for x in (amount, amount + 0.7 * size)]
    np.testing.assert_allclose(ratios[1] - ratios[0], 0.7)
    assert bootstrap.interval(amount, size) == bootstrap.interval(amount, size)


def test_a_resample_draws_as_many_units_as_there_are():
    weights = Bootstrap(33, 50, 0).weights
    assert weights.shape == (50, 33)
    assert (weights.sum(1) == 33).all()
    assert (weights >= 0).all()


def test_the_seed_alone_decides():
    a, b, c = Bootstrap(30, 40, 1), Bootstrap(30, 40, 1), Bootstrap(30, 40, 2)
    assert (a.weights == b.weights).all()
    assert (a.weights != c.weights).any()


@pytest.mark.parametrize(("held", "known"), [(19, False), (20, True)])
def test_under_20_units_with_text_there_is_no_interval(held, known):
    amount, size = data(4, 40)
    amount[held:], size[held:] = 0, 0
    assert (Bootstrap(40, 100, 0).interval(amount, size) is not None) == known


def test_a_language_with_fewer_units_than_another_still_has_its_interval():
    amount, size = data(5, 30)
    low, high = Bootstrap(45, 500, 0).interval(amount, size)
    assert low < amount.sum() / size.sum() < high
    assert np.isfinite([low, high]).all()


def test_a_text_of_several_documents_has_the_document_as_its_unit():
    document = np.array([0, 0, 0, 1, 2, 2])
    assert units(document).tolist() == document.tolist()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200))
def test_a_text_of_one_document_has_8_lines_in_a_unit(lines):
    assert units(np.zeros(lines, dtype=np.int64)).tolist() == [line // 8 for line in range(lines)]


gaps = st.sets(st.integers(0, 29), min_size=2)


def places(numbers, several):
    return np.array([(number, 0) if several else (0, number) for number in sorted(numbers)], dtype=np.int64)


@settings(max_examples=60, deadline=None)
@given(gaps, gaps, st.booleans())
def test_units_pair_by_number_whatever_is_empty_in_one_language(en, fr, several):
    """Line by line: the rank of its number among those with text in any language, or that rank's block of 8."""
    known = sorted(en | fr)
    found = paired_units({"en": places(en, several), "fr": places(fr, several)})
    assert list(found) == ["en", "fr"]
    for language, numbers in (("en", en), ("fr", fr)):
        ranks = [known.index(number) for number in sorted(numbers)]
        assert found[language].tolist() == (ranks if several else [rank // 8 for rank in ranks])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_the_units_of_one_language_are_those_of_its_documents_or_blocks(document):
    document = np.unique(np.sort(np.array(document)), return_inverse=True)[1].astype(np.int64)
    place = np.stack([document, np.arange(len(document))], 1)
    assert paired_units({"en": place})["en"].tolist() == units(document).tolist()
