"""Intervals: they cover what they estimate, resample languages together, and stay silent under 20 units."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from lape.errors import MismatchError
from lape.measure.bootstrap import MANY, Resamples, by_unit, paired_units, units
from lape.measure.intervals import LEVELS, p_at

NORMAL = statistics.NormalDist()
LAW = settings(max_examples=30, deadline=None)


def percentiles(values):
    """The value, and the 2.5th and 97.5th percentile of the resamples that have one."""
    if not np.isfinite(values[0]):
        return None, None, None
    resamples = values[1:][np.isfinite(values[1:])]
    ends = np.quantile(resamples, [0.025, 0.975]) if len(resamples) > 1 else (None, None)
    return values[0], *ends


def data(seed, count=60, ratio=0.3):
    """Amounts whose expected ratio to their sizes is `ratio`."""
    random = np.random.default_rng(seed)
    size = random.integers(5, 60, count).astype(float)
    return size * (ratio + random.normal(0, 0.5, count)), size


def ends(count, resamples, seed, amount, size):
    """The 95 % interval of a ratio, without its value."""
    drawn = Resamples(count, resamples, seed)
    return drawn.interval(drawn.ratio(amount, size))[1:]


def test_an_interval_covers_the_true_ratio_about_19_times_in_20():
    drawn = Resamples(60, 400, seed=0)
    hits = 0
    for seed in range(400):
        _, low, high = drawn.interval(drawn.ratio(*data(seed)))
        hits += low <= 0.3 <= high
    assert 0.90 <= hits / 400 <= 0.98


def test_an_interval_is_as_wide_as_the_theory_of_ratios_says():
    amount, size = data(1, count=2000)
    low, high = ends(2000, 2000, 0, amount, size)
    residual = amount - amount.sum() / size.sum() * size
    expected = 2 * 1.96 * np.sqrt(np.sum(residual**2)) / size.sum()
    assert high - low == pytest.approx(expected, rel=0.1)


def test_units_are_resampled_whole_not_their_tokens():
    """20 units of 1000 tokens are 20 draws, not 20,000: the interval does not narrow with the tokens in a unit."""
    small = ends(25, 1000, 0, *data(2, 25))
    amount, size = data(2, 25)
    assert ends(25, 1000, 0, amount * 1000, size * 1000) == pytest.approx(small)


@LAW
@given(st.floats(-5, 5), st.integers(20, 80), st.integers(0, 99))
def test_a_ratio_that_is_the_same_in_every_unit_has_no_width(ratio, count, seed):
    _, size = data(seed, count)
    drawn = Resamples(count, 50, seed)
    assert drawn.interval(drawn.ratio(ratio * size, size)) == pytest.approx((ratio,) * 3)


@LAW
@given(st.integers(20, 80), st.integers(0, 99), st.floats(-3, 3), st.floats(0.1, 5))
def test_shifting_and_stretching_the_amounts_shifts_and_stretches_the_interval(count, seed, shift, factor):
    amount, size = data(seed, count)
    drawn = Resamples(count, 100, 0)
    expected = factor * drawn.ratio(amount, size) + shift
    np.testing.assert_allclose(drawn.ratio(factor * amount + shift * size, size), expected, atol=1e-9)
    found = drawn.interval(drawn.ratio(factor * amount + shift * size, size))
    assert found == pytest.approx(drawn.interval(expected))


def test_languages_and_conditions_share_their_resamples():
    """Translations stay together: a difference that is the same in every unit is the same in every resample."""
    drawn, (amount, size) = Resamples(40, 300, 0), data(3, 40)
    np.testing.assert_allclose(drawn.ratio(amount + 0.7 * size, size) - drawn.ratio(amount, size), 0.7)
    assert drawn.interval(drawn.ratio(amount, size)) == drawn.interval(drawn.ratio(amount, size))


@LAW
@given(st.integers(20, 120), st.integers(0, 40), st.integers(0, 10**6))
def test_all_units_come_once_then_resamples_of_as_many_units_then_each_left_out(count, resamples, seed):
    """The very draws of numpy's multinomial: published tables were made with them."""
    drawn = Resamples(count, resamples, seed)
    assert drawn.count == count
    assert (drawn.weights[0] == 1).all()
    expected = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    assert drawn.resamples == resamples
    assert drawn.weights[1 : 1 + resamples].tolist() == expected.tolist()
    left_out = drawn.weights[1 + resamples :]
    assert len(left_out) == (count if count < MANY else 0)
    for k, row in enumerate(left_out):
        assert row == pytest.approx(np.where(np.arange(count) == k, 0, count / (count - 1)))
    assert drawn.weights.sum(1) == pytest.approx(np.full(len(drawn.weights), count))


def test_the_seed_alone_decides():
    a, b, c = Resamples(30, 40, 1), Resamples(30, 40, 1), Resamples(30, 40, 2)
    assert (a.weights == b.weights).all()
    assert (a.weights[1:] != c.weights[1:]).any()


@LAW
@given(st.integers(20, 50), st.integers(0, 99), st.integers(1, 3))
def test_sums_and_ratios_are_those_of_the_units_written_out_one_by_one(count, seed, columns):
    random, drawn = np.random.default_rng(seed), Resamples(count, 15, seed)
    values, (amount, size) = random.normal(size=(count, columns)), data(seed, count)
    size[random.random(count) < 0.1] = 0
    for k, weight in enumerate(drawn.weights[:16]):
        listed = [unit for unit in range(count) for _ in range(int(weight[unit]))]
        np.testing.assert_allclose(drawn.sums(values)[k], values[listed].sum(0), atol=1e-9)
        if (size > 0).sum() >= 20 or k == 0:
            assert drawn.ratio(amount, size)[k] == pytest.approx(amount[listed].sum() / size[listed].sum())
        else:
            assert np.isnan(drawn.ratio(amount, size)[k])
    for k in range(count):
        rest = np.arange(count) != k
        if (size > 0).sum() >= 20:
            assert drawn.ratio(amount, size)[16 + k] == pytest.approx(amount[rest].sum() / size[rest].sum())


@LAW
@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(0, 99))
def test_kinds_are_drawn_as_often_as_their_units(times, seed):
    drawn = Resamples(np.array(times), 2000, seed)
    assert drawn.weights[0].tolist() == times
    amount, size = np.arange(len(times), dtype=float), np.ones(len(times))
    whole = sum(k * n for k, n in enumerate(times)) / sum(times)
    assert drawn.ratio(amount, size)[0] == pytest.approx(whole), "a kind counts as often as it has units"
    assert drawn.weights.sum(1) == pytest.approx(np.full(len(drawn.weights), sum(times)))
    if sum(times) < 20:
        assert len(drawn.weights) == 1
        return
    assert drawn.weights[1:2001].mean(0) == pytest.approx(np.array(times), abs=0.5)
    scale = sum(times) / (sum(times) - 1)
    rows = [
        [(have - (j == k)) * scale for j, have in enumerate(times)] for k, one in enumerate(times) for _ in range(one)
    ]
    assert drawn.weights[2001:].tolist() == (rows if sum(times) < MANY else [])


def test_nothing_over_nothing_is_no_number_and_no_part_of_the_interval():
    size = np.zeros(40)
    size[:20] = 1
    amount = np.arange(40.0)
    drawn = Resamples(40, 200, 0)
    nothing = drawn.weights @ size == 0
    assert (np.isnan(drawn.ratio(amount, size)) == nothing).all()
    assert np.isnan(drawn.ratio(amount, np.zeros(40))).all()
    assert drawn.interval(drawn.ratio(amount, np.zeros(40))) == (None, None, None)


@pytest.mark.parametrize(("held", "known"), [(19, False), (20, True)])
def test_under_20_units_with_text_there_is_no_interval(held, known):
    amount, size = data(4, 40)
    amount[held:], size[held:] = 0, 0
    drawn = Resamples(40, 100, 0)
    value, low, high = drawn.interval(drawn.ratio(amount, size))
    assert value == pytest.approx(amount.sum() / size.sum())
    assert (low is not None) == (high is not None) == known


@pytest.mark.parametrize(
    ("count", "held", "known"), [(19, None, False), (20, None, True), (40, 19, False), (40, 20, True)]
)
def test_under_20_units_there_are_no_resamples(count, held, known):
    assert len(Resamples(count, 50, 0, held=held).weights) == (51 + count if known else 1)


def test_a_language_with_fewer_units_than_another_still_has_its_interval():
    amount, size = (by_unit(np.arange(30), values, 45) for values in data(5, 30))
    low, high = ends(45, 500, 0, amount, size)
    assert low < amount.sum() / size.sum() < high
    assert np.isfinite([low, high]).all()


def bca(statistic, values, drawn, level):
    """A quantile by Efron 1987, written out: z0 from the draws, a from the units left out, both by their formulas; and Student's t for few units."""
    here = statistic(values)
    draws = sorted(statistic(np.repeat(values, times.astype(int))) for times in drawn.weights[1 : 1 + drawn.resamples])
    z0 = NORMAL.inv_cdf(sum(one < here for one in draws) / len(draws))
    left = [statistic(np.delete(values, k)) for k in range(len(values))]
    mean = sum(left) / len(left)
    a = sum((mean - one) ** 3 for one in left) / (6 * sum((mean - one) ** 2 for one in left) ** 1.5)
    z = z0 + float(student.ppf(level, len(values) - 1)) * math.sqrt(len(values) / (len(values) - 1))
    return float(np.quantile(draws, NORMAL.cdf(z0 + z / (1 - a * z))))


@pytest.mark.parametrize("statistic", [np.mean, np.var, lambda x: np.mean(x) ** 3])
@pytest.mark.parametrize("count", [20, 41, 399])
def test_under_400_units_the_ends_are_efrons_with_students_t(statistic, count):
    values = np.random.default_rng(count).exponential(size=count)
    drawn = Resamples(count, 300, 5)
    sums = {power: drawn.sums(values**power) / count for power in (1, 2)}
    rows = {np.mean: sums[1], np.var: sums[2] - sums[1] ** 2}.get(statistic, sums[1] ** 3)
    expected = (statistic(values), *(bca(statistic, values, drawn, end) for end in (0.025, 0.975)))
    assert drawn.interval(rows) == pytest.approx(expected, rel=1e-3)
    found = drawn.quantiles(rows)
    assert [found[LEVELS.index(end)] for end in (0.025, 0.975)] == list(drawn.interval(rows)[1:])
    assert found[LEVELS.index(0.25)] == pytest.approx(bca(statistic, values, drawn, 0.25), rel=1e-3)


def test_from_400_units_on_the_ends_are_percentiles():
    values = np.random.default_rng(1).exponential(size=MANY)
    drawn = Resamples(MANY, 300, 5)
    rows = drawn.ratio(values, np.ones(MANY))
    assert drawn.interval(rows) == percentiles(rows)


def test_skewed_units_are_covered_and_better_than_by_percentiles():
    """Means of exponential amounts: what 20 units do not know of the tail is lost by every interval, and more of it by percentiles."""
    many, found, plain = 800, [], []
    for count in (20, 40, 60):
        amounts = np.random.default_rng(count).exponential(size=(count, many))
        drawn = Resamples(count, 500, seed=count)
        rows = (drawn.sums(amounts) / count).T
        found.append(np.mean([low <= 1 <= high for _, low, high in map(drawn.interval, rows)]))
        plain.append(np.mean([low <= 1 <= high for _, low, high in (percentiles(row[:501]) for row in rows)]))
    error = 2 * math.sqrt(0.95 * 0.05 / many)
    for covered, short in zip(found, (0.04, 0.02, 0.015), strict=True):
        assert 0.95 - short - error <= covered <= 0.95 + error
    assert sum(plain) < sum(found)


def test_draws_on_one_side_of_the_value_or_a_unit_that_leaves_no_value_fall_back_on_percentiles():
    drawn = Resamples(30, 100, 0)
    rows = np.concatenate([[5.0], np.linspace(0, 1, 100), np.linspace(4, 6, 30)])
    assert drawn.interval(rows) == percentiles(rows[:101])
    rows[0] = 0.3
    assert drawn.interval(rows) != percentiles(rows[:101])
    rows[-1] = np.nan
    assert drawn.interval(rows) == percentiles(rows[:101])


def test_draws_without_a_value_are_passed_over_and_all_alike_have_no_width():
    drawn = Resamples(30, 100, 0)
    rows = drawn.ratio(np.random.default_rng(2).exponential(size=30), np.ones(30))
    some = rows.copy()
    some[1:101:4] = np.nan
    value, low, high = drawn.interval(some)
    assert value == rows[0]
    assert low < value < high
    some[1:100] = np.nan
    assert drawn.interval(some) == (value, None, None)
    assert drawn.quantiles(some) is None
    same = np.full(131, 0.7)
    assert drawn.interval(same) == (0.7, 0.7, 0.7)
    assert p_at(drawn.quantiles(same), 0.7) == 1


def test_ties_count_half():
    """Half of the draws on the value and a quarter on either side: no bias."""
    drawn = Resamples(30, 100, 0)
    rows = np.concatenate([[1.0], np.repeat([0.0, 1.0, 2.0], [25, 50, 25]), np.ones(30)])
    assert drawn.interval(rows) == percentiles(rows[:101])


def test_values_of_another_number_of_rows_are_refused():
    drawn = Resamples(30, 100, 0)
    for many in (101, 100, 132):
        for take in (drawn.interval, drawn.quantiles):
            with pytest.raises(MismatchError, match="131 rows"):
                take(np.zeros(many))


def test_quantiles_ascend_and_end_where_the_resamples_end():
    values = np.random.default_rng(3).normal(size=30)
    for resamples, smallest in ((20, 0.025), (200, 0.0055), (4000, 0.0005)):
        drawn = Resamples(30, resamples, 1)
        found = drawn.quantiles(drawn.ratio(values, np.ones(30)))
        known = [one for one in found if one is not None]
        assert known == sorted(known)
        assert p_at(found, -99.0) >= 2 * smallest - 1e-9 if resamples < 4000 else p_at(found, -99.0) > 0


def test_a_row_has_value_ends_and_the_quantiles_that_claims_are_judged_by():
    drawn = Resamples(30, 100, 1)
    rows = drawn.ratio(np.random.default_rng(3).normal(size=30), np.ones(30))
    value, low, high = drawn.interval(rows)
    assert drawn.named("x", rows) == {"x": value, "x_low": low, "x_high": high}
    assert drawn.plain("x", rows) == {"x": value, "low": low, "high": high}
    assert drawn.named("x", rows, quantiles=True)["x_quantiles"] == drawn.quantiles(rows)
    assert drawn.plain("x", rows, quantiles=True)["quantiles"] == drawn.quantiles(rows)


@LAW
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-50, 50)), max_size=40))
def test_sums_by_unit_are_those_of_its_lines(lines):
    unit = np.array([unit for unit, _ in lines], dtype=np.int64)
    found = by_unit(unit, [value for _, value in lines], 10)
    assert found.tolist() == [sum(value for unit, value in lines if unit == k) for k in range(10)]


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


# --- draws of control neurons, a sample beside the units ---


def compared(drawn, random, draws, spread):
    """A mean over units and draws whose expectation is 0: rows, and what each draw adds on all units. `spread`: of the draws' mean over the units'.

    Every unit has a value, every draw has one, and so has every unit with every draw.
    """
    units = drawn.count
    by_unit, by_draw = random.normal(size=units), random.normal(size=draws) * spread * (draws / units) ** 0.5
    rows = drawn.sums(by_unit[:, None] + by_draw + 0.3 * random.normal(size=(units, draws))) / units
    return rows.mean(1), rows[0]


def coverage(units, draws, spread, rounds, resamples=400):
    """The share of intervals that hold 0, and of those that lie above it whole: false claims, of which there should be 1 in 40."""
    random, covered, above = np.random.default_rng((units, draws, int(10 * spread))), 0, 0
    drawn = Resamples(units, resamples, seed=1)
    for _ in range(rounds):
        rows, by_draw = compared(drawn, random, draws, spread)
        _, low, high = drawn.interval(rows, draws=[by_draw])
        covered += low <= 0 <= high
        above += low > 0
    return covered / rounds, above / rounds


@pytest.mark.parametrize("draws", [3, 4])
@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0, 20.0], ids=["units", "both", "rather draws", "draws"])
def test_with_few_draws_intervals_cover_whatever_dominates(draws, spread):
    """Resampled with the units, 3 draws cover .75 and 4 .83 where they dominate, and .13 and .08 of what is 0 is called above it."""
    rounds = 600
    covered, above = coverage(40, draws, spread, rounds, resamples=200)
    error = 2 * math.sqrt(0.05 * 0.95 / rounds)
    assert covered >= 0.93 - error
    assert above <= 0.035 + error


@pytest.mark.soak
@pytest.mark.parametrize("draws", [2, 3, 4, 8, 20])
@pytest.mark.parametrize("units", [20, 60, 450])
@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0, 20.0])
def test_intervals_over_draws_cover_in_every_mixture(units, draws, spread):
    covered, above = coverage(units, draws, spread, 2000, resamples=500)
    assert covered >= 0.93
    assert above <= 0.035


@given(st.integers(2, 12), st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_without_draws_that_differ_the_interval_is_that_of_the_units_and_without_units_that_differ_students(
    draws, seed
):
    random = np.random.default_rng(seed)
    drawn, units = Resamples(40, 200, seed=1), random.normal(size=40)
    rows = drawn.sums(units) / 40
    assert drawn.interval(rows, draws=[np.full(draws, 0.7)]) == pytest.approx(drawn.interval(rows))
    sample = random.normal(size=draws)
    half = student.ppf(0.975, draws - 1) * sample.std(ddof=1) / math.sqrt(draws)
    value = sample.mean()
    expected = pytest.approx((value, value - half, value + half))
    assert drawn.interval(np.full(len(drawn.weights), value), draws=[sample]) == expected
    quantiles = drawn.quantiles(np.full(len(drawn.weights), value), draws=[sample])
    assert quantiles[LEVELS.index(0.9)] == pytest.approx(
        value + student.ppf(0.9, draws - 1) * half / student.ppf(0.975, draws - 1)
    )


def test_distances_of_independent_samples_add_in_squares():
    """Zou and Donner 2008: each sample's own ends, and their distances from the value in squares."""
    random = np.random.default_rng(0)
    drawn = Resamples(40, 500, seed=1)
    rows, samples = drawn.sums(random.exponential(size=40)) / 40, [random.normal(size=4), random.normal(size=20)]
    value, low, high = drawn.interval(rows)
    halves = [student.ppf(0.975, len(one) - 1) * one.std(ddof=1) / math.sqrt(len(one)) for one in samples]
    _, wider_low, wider_high = drawn.interval(rows, draws=samples)
    assert value - wider_low == pytest.approx(math.hypot(value - low, *halves))
    assert wider_high - value == pytest.approx(math.hypot(high - value, *halves))
    quantiles = [one for one in drawn.quantiles(rows, draws=samples) if one is not None]
    assert quantiles == sorted(quantiles)


def test_a_single_draw_has_no_interval():
    """Nothing is known of other draws: an interval over units alone would claim to hold them."""
    drawn = Resamples(40, 400, seed=1)
    rows, by_draw = compared(drawn, np.random.default_rng(0), 1, 1.0)
    assert drawn.interval(rows, draws=[by_draw]) == (rows[0], None, None)
    assert drawn.quantiles(rows, draws=[by_draw]) is None
    assert drawn.named("x", rows, draws=[by_draw, np.ones(4)]) == {"x": rows[0], "x_low": None, "x_high": None}
