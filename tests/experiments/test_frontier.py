"""Own against others: every figure again by loops from its definition, and what must hold of any effects."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from lape.errors import LapeError, MismatchError, ModelError, OptionError, TextError
from lape.experiments.frontier.table import ADVANTAGES, AT_LEVELS, advantages, at_levels, enough
from lape.measure.bootstrap import Resamples
from lape.measure.effects import Effects
from lape.measure.frontier import FRONTIER, GROWTH, MATRIX, frontier, growth, matrix
from lape.measure.intervals import MEAN, holm, selectivity

LANGUAGES = ("en", "fr", "zh")
OVER = ("fr", "zh")
LAW = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 10**6)
NUMBER = {"rel": 1e-9, "abs": 1e-12}


def made(seed=0, units=24, sizes=(5, 10, 20), methods=("a", "b"), missing=()):
    """Random effects; `missing`: (method, size, language) of which no set could be chosen."""
    random = np.random.default_rng(seed)
    sentences = random.integers(1, 4, (3, units)).astype(float)
    nats, neurons = {}, {}
    for method in methods:
        for size in sizes:
            change = random.normal(0.05 * size, 0.5, (3, 3, units)) + np.eye(3)[:, :, None] * 0.1 * size
            nats[method, size] = sentences[None] * change
            neurons[method, size] = tuple(
                None if (method, size, k) in missing else size + n for n, k in enumerate(LANGUAGES)
            )
    return Effects(LANGUAGES, sentences, nats, neurons)


def of_means(curves, units=24):
    """Effects in which every unit is alike: method -> size -> own and others of every language, nats per sentence."""
    sentences = np.full((3, units), 2.0)
    nats = {}
    for method, points in curves.items():
        for size, (own, others) in points.items():
            change = np.where(np.eye(3, dtype=bool), own, others)
            nats[method, size] = change[:, :, None] * sentences
    return Effects(LANGUAGES, sentences, nats, {key: (key[1],) * 3 for key in nats})


def drawn(effects, resamples, seed):
    """The resamples, as the definition makes them."""
    fewest = min(sum(1 for one in row if one > 0) for row in effects.sentences)
    return Resamples(effects.sentences.shape[1], resamples, seed, held=fewest)


def by_hand(effects, key, k, j, weight):
    """Nats a sentence of language j with the set of k off, in one resample."""
    nats = sum(w * x for w, x in zip(weight, effects.nats[key][k, j], strict=True))
    return nats / sum(w * t for w, t in zip(weight, effects.sentences[j], strict=True))


def own_others(effects, key, k, weight):
    """Own, mean of the others and the worst of them."""
    rest = [by_hand(effects, key, k, j, weight) for j in range(len(effects.languages)) if j != k]
    return by_hand(effects, key, k, k, weight), sum(rest) / len(rest), max(rest)


def share(own, others):
    own, others = max(own, 0.0), max(others, 0.0)
    return own / (own + others) if own > 0 else 0.0


def at_level(points, level):
    """Others and worst where own first reaches a level, walking over the sizes; before the first and beyond the last, there."""
    before = points[0]
    if before[0] >= level:
        return before[1:]
    for point in points[1:]:
        if point[0] >= level or point is points[-1]:
            rise = point[0] - before[0]
            part = min(max((level - before[0]) / rise, 0.0), 1.0) if rise > 0 else 1.0
            return tuple(a + part * (b - a) for a, b in zip(before[1:], point[1:], strict=True))
        before = point
    raise AssertionError("a single size")


def curve(effects, method, k, weight):
    sizes = sorted(size for m, size in effects.nats if m == method and effects.neurons[m, size][k] is not None)
    return [own_others(effects, (method, size), k, weight) for size in sizes]


def shared_range(effects, methods, reference, k, weight):
    """The shares of the reference that all methods were measured between, within .25 and 1."""
    whole = own_others(effects, reference, k, weight)[0]
    low, high = 0.25, 1.0
    for method in methods:
        own = [point[0] for point in curve(effects, method, k, weight)]
        if len(own) < 2 or whole <= 0:
            return None
        low, high = max(low, min(own) / whole), min(high, max(own) / whole)
    return (low, high) if low < high else None


def pair_by_hand(effects, a, b, reference, k, at, weights):
    """(rows, 5): own, others of a and b, difference of the worst, at a level or over 25 of them; None where it lies outside."""
    ranged = shared_range(effects, (a, b), reference, k, weights[0])
    if ranged is None or (at != "area" and not ranged[0] - 1e-9 <= float(at) <= ranged[1] + 1e-9):
        return None
    levels = [float(at)] if at != "area" else [ranged[0] + n / 24 * (ranged[1] - ranged[0]) for n in range(25)]
    rows = []
    for weight in weights:
        whole = own_others(effects, reference, k, weight)[0]
        curves = [curve(effects, method, k, weight) for method in (a, b)]
        each = []
        for level in levels:
            (mine, my_worst), (theirs, worst) = (at_level(points, level * whole) for points in curves)
            each.append((level * whole, mine, theirs, theirs - mine, worst - my_worst))
        rows.append(np.mean(each, axis=0))
    return np.array(rows)


def same(found, expected):
    """Whether a value and its ends are those expected; None only where None is."""
    return all(
        (a is None and b is None) or (None not in (a, b) and a == pytest.approx(b, **NUMBER))
        for a, b in zip(found, expected, strict=True)
    )


def only(table, **where):
    (row,) = table.filter(**where).iter_rows(named=True)
    return row


# --- the frontier, the matrix, growth ---


@LAW
@given(seeds, st.sampled_from([5, 19, 20, 26]))
def test_the_frontier_is_own_others_worst_and_selectivity_by_their_definitions(seed, units):
    effects = made(seed, units, sizes=(5, 10))
    table = frontier(effects, OVER, 30, seed)
    assert dict(table.schema) == FRONTIER
    assert len(table) == 2 * 2 * 4
    resamples = drawn(effects, 30, seed)
    for key in effects.nats:
        values = {}
        for k, language in enumerate(LANGUAGES):
            points = [own_others(effects, key, k, weight) for weight in resamples.weights]
            values[language] = np.array([(*point, share(*point[:2])) for point in points])
        values[MEAN] = np.mean([values[k] for k in OVER], axis=0)
        for language, expected in values.items():
            row = only(table, method=key[0], size=key[1], language=language)
            for n, name in enumerate(("own", "others", "worst", "selectivity")):
                found = (row[name], row[f"{name}_low"], row[f"{name}_high"])
                assert same(found, resamples.interval(expected[:, n]))
        assert only(table, method=key[0], size=key[1], language=MEAN)["neurons"] == key[1] + 1.5


@LAW
@given(seeds)
def test_the_matrix_is_the_change_of_every_pair(seed):
    effects = made(seed, sizes=(5,))
    table = matrix(effects, 30, seed)
    assert dict(table.schema) == MATRIX
    resamples = drawn(effects, 30, seed)
    for method, size in effects.nats:
        for k, off in enumerate(LANGUAGES):
            for j, language in enumerate(LANGUAGES):
                values = np.array([by_hand(effects, (method, size), k, j, weight) for weight in resamples.weights])
                row = only(table, method=method, size=size, off=off, language=language)
                assert (row["change"], row["low"], row["high"]) == pytest.approx(resamples.interval(values), **NUMBER)


@LAW
@given(seeds)
def test_growth_is_the_paired_difference_of_the_mean_own_effect(seed):
    effects = made(seed)
    table = growth(effects, "b", OVER, 30, seed)
    assert dict(table.schema) == GROWTH
    assert table.select("from", "to").rows() == [(5, 10), (10, 20), (5, 20)]
    resamples = drawn(effects, 30, seed)
    for row in table.iter_rows(named=True):
        values = [
            np.mean(
                [
                    by_hand(effects, ("b", row["to"]), k, k, w) - by_hand(effects, ("b", row["from"]), k, k, w)
                    for k in (1, 2)
                ]
            )
            for w in resamples.weights
        ]
        assert (row["difference"], row["low"], row["high"]) == pytest.approx(
            resamples.interval(np.array(values)), **NUMBER
        )


def test_an_effect_that_is_the_same_in_every_unit_has_no_width():
    table = frontier(of_means({"a": {5: (0.3, 0.1)}}), OVER, 50, 0)
    for row in table.iter_rows(named=True):
        for end in ("", "_low", "_high"):
            assert row[f"own{end}"] == pytest.approx(0.3)
            assert row[f"selectivity{end}"] == pytest.approx(0.75)


# --- selectivity ---


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [(3, 1, 0.75), (3, 0, 1), (3, -9, 1), (0, 5, 0), (-3, 5, 0), (-3, -5, 0), (0, 0, 0)],
)
def test_selectivity_is_own_over_own_and_others_clipped_at_0(own, others, expected):
    assert selectivity(np.array([float(own)]), np.array([float(others)])).tolist() == [expected]


def test_the_selectivity_of_what_is_not_known_is_not_known():
    nan = math.nan
    found = selectivity(np.array([nan, 1.0, nan, -1.0]), np.array([1.0, nan, nan, nan]))
    assert np.isnan(found).all()


@LAW
@given(st.floats(1e-3, 10), st.floats(-10, 10), st.floats(1e-2, 100))
def test_selectivity_does_not_change_with_the_unit_and_falls_with_the_damage_to_others(own, others, factor):
    def of(a, b):
        return float(selectivity(np.array([a]), np.array([b]))[0])

    assert of(own * factor, others * factor) == pytest.approx(of(own, others))
    assert of(own, others + 1) <= of(own, others) <= of(own + 1, others)
    assert 0 <= of(own, others) <= 1


# --- at equal own effect ---

REFERENCE = ("a", 20)


def compare(effects, against=("b",), method="a", reference=REFERENCE, over=OVER, resamples=30, seed=0):
    return advantages(effects, method, against, over, reference=reference, resamples=resamples, seed=seed)


@settings(max_examples=3, deadline=None, phases=[Phase.explicit, Phase.generate])
@example(394, 22, True)  # a resample begins above the level and then falls
@given(seeds, st.sampled_from([6, 22]), st.booleans())
def test_an_advantage_is_what_the_others_lose_less_where_both_have_the_same_own_effect(seed, units, lacks):
    effects = made(seed, units, missing=(("b", 5, "fr"), ("a", 10, "zh")) if lacks else ())
    table = compare(effects, effects.methods, seed=seed, resamples=10)
    assert dict(table.schema) == ADVANTAGES
    assert table["at"].unique(maintain_order=True).to_list() == ["0.25", "0.5", "0.75", "1.0", "area"]
    resamples = drawn(effects, 10, seed)
    for at in ("0.25", "0.75", "area"):
        some = table.filter(at=at)
        assert some["language"].to_list() == [*LANGUAGES, MEAN]
        found = [pair_by_hand(effects, "a", "b", REFERENCE, k, at, resamples.weights) for k in range(3)]
        for k, language in enumerate(LANGUAGES):
            row = only(some, language=language)
            assert row["languages"] == (found[k] is not None)
            if found[k] is None:
                assert row["difference"] is row["own"] is row["p"] is None
                continue
            for n, name in enumerate(("own", "others", "others_against")):
                assert row[name] == pytest.approx(found[k][0, n], **NUMBER)
            gap = (row["difference"], row["low"], row["high"])
            assert same(gap, resamples.interval(found[k][:, 3]))
            worst = (row["worst_difference"], row["worst_difference_low"], row["worst_difference_high"])
            assert same(worst, resamples.interval(found[k][:, 4]))
            assert row["units"] == units
        known = [found[k] for k in (1, 2) if found[k] is not None]
        row = only(some, language=MEAN)
        assert row["languages"] == len(known)
        if known:
            gaps = [one[0, 3] for one in known]
            value, ends = np.mean(gaps), (None, None)
            if units >= 20:
                half = student.ppf(0.975, 1) * np.std(gaps, ddof=len(gaps) - 1) / np.sqrt(2)  # of two languages
                ends = (value - half, value + half)
            expected = (value, *(ends if len(known) == len(OVER) else (None, None)))  # one of two says nothing of both
            assert same((row["difference"], row["low"], row["high"]), expected)
            assert row["favoured"] == sum(one[0, 3] > 0 for one in known)


@LAW
@given(seeds)
def test_an_advantage_turned_round_is_a_disadvantage(seed):
    effects = made(seed)
    one = compare(effects, seed=seed)
    other = compare(effects, ["a"], "b", seed=seed)
    for a, b in zip(one.iter_rows(named=True), other.iter_rows(named=True), strict=True):
        if a["difference"] is not None:
            assert a["difference"] == pytest.approx(-b["difference"], abs=1e-12)
            assert a["own"] == pytest.approx(b["own"])


@LAW
@given(seeds)
def test_a_way_of_choosing_that_does_the_same_has_no_advantage(seed):
    effects = made(seed, methods=("a",))
    nats = {**effects.nats, **{("same", size): value for (_, size), value in effects.nats.items()}}
    both = Effects(LANGUAGES, effects.sentences, nats, dict.fromkeys(nats, (1, 1, 1)))
    known = compare(both, ["same"], seed=seed).drop_nulls("difference")
    assert len(known)
    assert set(known["difference"]) == set(known["worst_difference"]) == {0.0}
    judged = known.drop_nulls("low")  # the mean of one of two languages has no interval
    assert set(judged["low"]) == set(judged["high"]) == {0.0}
    assert set(judged["p"]) == set(judged["p_holm"]) == {1.0}


def test_others_are_read_off_the_line_between_the_sizes_around_the_level():
    """Levels are shares of 8; at own 4, b lies halfway between (2, 1) and (6, 5), and a between (0, 0) and (8, 4)."""
    effects = of_means({"a": {5: (0.0, 0.0), 20: (8.0, 4.0)}, "b": {5: (2.0, 1.0), 10: (6.0, 5.0), 20: (9.0, 5.0)}})
    row = only(compare(effects), language="fr", at="0.5")
    assert (row["own"], row["others"], row["others_against"], row["difference"]) == pytest.approx((4, 2, 3, 1))
    assert (row["selectivity"], row["selectivity_against"]) == pytest.approx((4 / 6, 4 / 7))


def test_the_area_is_the_mean_over_the_levels_that_both_were_measured_at():
    """Both curves are straight from .25 to .75 of 8: a has a half of own, b a quarter of it."""
    effects = of_means({"a": {5: (1.0, 0.5), 20: (8.0, 4.0)}, "b": {5: (1.0, 0.25), 20: (6.0, 1.5)}})
    row = only(compare(effects), language="fr", at="area")
    assert row["covered"] == pytest.approx(2 / 3)
    assert row["own"] == pytest.approx(4.0)  # the middle of 2 and 6
    assert row["difference"] == pytest.approx(-1.0)


def test_nothing_is_extrapolated():
    """b's smallest set does 4 and its largest 6, of 8: half and three quarters were measured, a quarter and the whole were not."""
    effects = of_means({"a": {5: (1.0, 0.5), 20: (8.0, 4.0)}, "b": {5: (4.0, 0.2), 10: (6.0, 0.3)}})
    some = compare(effects).filter(language="fr")
    assert dict(some.select("at", pl.col("difference").is_not_null()).iter_rows()) == {
        "0.25": False, "0.5": True, "0.75": True, "1.0": False, "area": True,
    }  # fmt: skip
    table = at_levels(effects, OVER, reference=REFERENCE, resamples=30)
    assert dict(table.schema) == AT_LEVELS
    known = table.filter(method="b", language=MEAN)["others"].is_not_null().to_list()
    assert known == [False, True, True, False]


def test_a_single_size_lies_on_no_curve():
    effects = of_means({"a": {5: (1.0, 0.5), 20: (8.0, 4.0)}, "b": {10: (6.0, 0.3)}})
    assert compare(effects)["difference"].null_count() == len(compare(effects))


def test_a_language_in_which_the_reference_does_nothing_has_no_levels():
    effects = of_means({"a": {5: (-1.0, 0.5), 20: (-2.0, 4.0)}, "b": {5: (1.0, 0.3), 10: (2.0, 0.4)}})
    assert compare(effects)["difference"].null_count() == len(compare(effects))


def test_at_levels_are_what_each_method_does_there():
    effects = of_means({"a": {5: (1.0, 0.5), 20: (8.0, 4.0)}, "b": {5: (2.0, 1.0), 10: (6.0, 5.0)}})
    table = at_levels(effects, OVER, reference=REFERENCE, resamples=30)
    row = only(table, method="b", language="fr", level=0.5)
    assert (row["own"], row["others"], row["worst"], row["selectivity"]) == pytest.approx((4.0, 3.0, 3.0, 4 / 7))


def test_a_larger_set_that_does_less_is_not_where_the_level_is_read():
    """Where own falls again with size, the level counts where it is first reached."""
    curve = {5: (1.0, 0.5), 10: (8.0, 4.0), 20: (2.0, 9.0), 40: (8.0, 9.0)}
    effects = of_means({"a": {5: (1.0, 0.5), 20: (8.0, 4.0)}, "b": curve})
    assert only(compare(effects), language="fr", at="1.0")["difference"] == pytest.approx(0.0)


def test_sizes_are_ordered_by_number_not_by_when_they_were_measured():
    curve, a = {5: (1.0, 0.1), 10: (8.0, 0.3)}, {5: (1.0, 0.5), 20: (8.0, 4.0)}
    tables = [compare(of_means({"a": a, "b": b})) for b in (curve, dict(reversed(curve.items())))]
    assert tables[0].equals(tables[1])


def test_languages_that_disagree_widen_the_interval_of_the_mean_as_text_does_not():
    """In fr b costs the others less, in zh more, and every sentence is alike: the text says it exactly, two languages do not."""
    effects = of_means({"a": {5: (1.0, 2.0), 20: (8.0, 2.0)}, "b": {5: (1.0, 2.0), 20: (8.0, 2.0)}})
    for size in (5, 20):
        effects.nats["b", size][1] += (1 - np.eye(3)[1])[:, None] * 2.0
        effects.nats["b", size][2] -= (1 - np.eye(3)[2])[:, None] * 2.0
    row = only(compare(effects, resamples=300), language=MEAN, at="0.5")
    assert row["difference"] == pytest.approx(0.0)
    assert row["low"] < -0.9
    assert row["high"] > 0.9
    assert row["favoured"] == 1


# --- p and its correction ---


def test_holm_is_over_the_languages_of_one_pair_and_level_and_the_mean_stands_alone():
    effects = made(3, methods=("a", "b", "c"))
    table = compare(effects, ["b", "c"], resamples=200)
    for other in ("b", "c"):
        pair = table.filter(pl.col("against") == other, pl.col("language") != MEAN, pl.col("at") == "area")
        assert pair["p_holm"].to_list() == pytest.approx(holm(pair["p"].to_list()))
        mean = only(table, against=other, language=MEAN, at="area")
        assert mean["p_holm"] == mean["p"]
    alone = compare(effects, ["b"], resamples=200)
    assert alone.equals(table.filter(against="b")), "what else it is compared with changes nothing"


# --- units ---


@pytest.mark.parametrize(("held", "known"), [(19, False), (20, True)])
def test_the_language_with_fewest_units_decides_whether_there_are_intervals(held, known):
    effects = made(1, units=40)
    effects.sentences[1, held:] = 0
    for nats in effects.nats.values():
        nats[:, 1, held:] = 0
    assert effects.units == held
    for table, name in ((frontier(effects, OVER, 30, 0), "own_low"), (matrix(effects, 30, 0), "low")):
        assert (table[name].null_count() == 0) == known
    table = compare(effects).filter(at="area").drop_nulls("difference")
    assert len(table)
    assert (table["low"].null_count() == table["p"].null_count() == 0) == known
    assert set(table["units"]) == {held}


@LAW
@given(seeds)
def test_units_that_one_language_lacks_still_pair_the_others(seed):
    effects = made(seed, units=45, sizes=(5,))
    effects.sentences[2, 22:] = 0
    for nats in effects.nats.values():
        nats[:, 2, 22:] = 0
    table, resamples = frontier(effects, OVER, 30, seed), drawn(effects, 30, seed)
    values = np.array([own_others(effects, ("a", 5), 1, weight)[1] for weight in resamples.weights])
    row = only(table, method="a", language="fr")
    assert (row["others"], row["others_low"], row["others_high"]) == pytest.approx(resamples.interval(values), **NUMBER)


# --- sets that could not be chosen ---


def test_a_language_without_a_set_has_nulls_and_not_an_effect_of_0():
    effects = made(2, missing=[("b", 20, "fr")])
    table = frontier(effects, OVER, 30, 0)
    values = [name for name in FRONTIER if name not in ("method", "size", "language")]
    for language in ("fr", MEAN):
        assert all(only(table, method="b", size=20, language=language)[name] is None for name in values)
    assert table.null_count().select(values).row(0) == (2,) * len(values)
    assert not any(table.select(pl.selectors.float().is_nan().any()).row(0))
    assert any("quantiles" in name for name in values)
    off = matrix(effects, 30, 0).filter(method="b", size=20, off="fr")
    assert off.select("change", "low", "high").null_count().row(0) == (3, 3, 3)
    assert growth(effects, "b", OVER, 30, 0)["difference"].null_count() == 2


def test_a_language_without_any_set_of_a_way_is_not_won_and_left_out_of_the_mean():
    effects = made(2, missing=[("b", size, "fr") for size in (5, 10, 20)])
    table = compare(effects).filter(at="area")
    fr, zh, mean = (only(table, language=language) for language in ("fr", "zh", MEAN))
    assert all(fr[name] is None for name in ("own", "selectivity", "difference", "low", "high", "p", "p_holm"))
    assert [row["languages"] for row in (fr, zh, mean)] == [0, 1, 1]
    assert mean["difference"] == zh["difference"]
    assert [mean[name] for name in ("low", "high", "quantiles", "worst_difference_low", "p")] == [None] * 5
    known = [row for row in table.iter_rows(named=True) if row["language"] in ("en", "zh")]
    assert [row["p_holm"] for row in known] == pytest.approx(holm([row["p"] for row in known]))


@pytest.mark.parametrize(
    ("compared", "languages", "says"),
    [
        (0, 1, False),
        (1, 1, True),
        (1, 2, False),
        (2, 2, True),
        (2, 3, False),
        (3, 4, True),
        (3, 6, True),
        (3, 7, False),
    ],
)
def test_a_mean_speaks_for_languages_of_which_most_were_compared(compared, languages, says):
    assert enough(compared, languages) is says


def test_where_no_language_can_be_compared_the_mean_is_null():
    effects = made(2, missing=[("b", size, k) for size in (5, 10, 20) for k in OVER])
    row = only(compare(effects), language=MEAN, at="area")
    assert row["difference"] is None
    assert row["languages"] == 0


def test_what_stands_where_there_was_no_set_is_never_read():
    effects = made(2, missing=[("b", 20, "fr")])
    nats = {key: value.copy() for key, value in effects.nats.items()}
    nats["b", 20][1] = math.nan
    other = Effects(LANGUAGES, effects.sentences, nats, effects.neurons)
    for make in (lambda e: frontier(e, OVER, 30, 0), compare):
        assert make(effects).equals(make(other))


# --- what is refused ---


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_refused_naming_what_was_off(value):
    effects = made()
    effects.nats["b", 10][1, 2, 3] = value
    with pytest.raises(ModelError, match=r"fr off \(b, 10\), the loss of zh .*dtype="):
        Effects(LANGUAGES, effects.sentences, effects.nats, effects.neurons)


def test_a_language_without_sentences_is_refused():
    effects = made()
    with pytest.raises(TextError, match="zh"):
        Effects(LANGUAGES, effects.sentences * [[1], [1], [0]], effects.nats, effects.neurons)


def test_effects_whose_shapes_differ_are_refused():
    effects = made()
    with pytest.raises(MismatchError, match="Expected"):
        Effects(LANGUAGES, effects.sentences[:, 1:], effects.nats, effects.neurons)
    with pytest.raises(MismatchError, match="Expected"):
        Effects(LANGUAGES, effects.sentences, effects.nats, {})


@pytest.mark.parametrize("over", [(), ("de",), ("fr", "de")])
def test_a_mean_over_languages_that_were_not_measured_is_refused(over):
    for make in (
        lambda: frontier(made(), over, 9, 0),
        lambda: growth(made(), "a", over, 9, 0),
        lambda: compare(made(), over=over),
    ):
        with pytest.raises(OptionError, match="Measured: en, fr, zh"):
            make()


def test_a_way_of_choosing_that_was_not_measured_is_refused_naming_those_that_were():
    for make in (
        lambda: compare(made(), method="c"),
        lambda: compare(made(), ["c"]),
        lambda: growth(made(), "c", OVER, 9, 0),
    ):
        with pytest.raises(OptionError, match=r"'c'. Measured: a, b"):
            make()


def test_a_reference_that_was_not_measured_is_refused_naming_what_was():
    with pytest.raises(OptionError, match=r"reference a 7. Measured: a 5, a 10"):
        compare(made(), reference=("a", 7))


def test_others_of_one_language_alone_are_refused():
    effects = Effects(("fr",), np.ones((1, 24)), {("a", 5): np.ones((1, 1, 24))}, {("a", 5): (5,)})
    with pytest.raises(LapeError, match="two or more"):
        frontier(effects, ("fr",), 9, 0)
    assert matrix(effects, 9, 0)["change"].to_list() == [1.0]
