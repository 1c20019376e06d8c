"""Own against others: every figure again by loops from its definition, and what must hold of any effects."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.errors import LapeError, MismatchError, ModelError, OptionError, TextError
from lape.experiments.frontier.table import ADVANTAGES, advantages
from lape.measure.bootstrap import Resamples
from lape.measure.effects import Effects
from lape.measure.frontier import FRONTIER, GROWTH, MATRIX, frontier, growth, matrix
from lape.measure.intervals import MEAN, holm, interval, selectivity, two_sided

LANGUAGES = ("en", "fr", "zh")
OVER = ("fr", "zh")
LAW = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 10**6)
NUMBER = {"rel": 1e-9, "abs": 1e-12}


def made(seed=0, units=24, sizes=(5, 10, 20), methods=("a", "b"), missing=()):
    """Random effects; `missing`: (method, size, language) of which no set could be chosen."""
    random = np.random.default_rng(seed)
    tokens = random.integers(3, 30, (3, units)).astype(float)
    nats, neurons = {}, {}
    for method in methods:
        for size in sizes:
            nats[method, size] = tokens[None] * random.normal(0.2, 0.5, (3, 3, units)) + 0.02 * size
            neurons[method, size] = tuple(
                None if (method, size, k) in missing else size + n for n, k in enumerate(LANGUAGES)
            )
    return Effects(LANGUAGES, tokens, nats, neurons)


def of_means(curves, units=24):
    """Effects in which every unit is alike: method -> size -> own and others of every language, nats per token."""
    tokens = np.full((3, units), 10.0)
    nats = {}
    for method, points in curves.items():
        for size, (own, others) in points.items():
            change = np.where(np.eye(3, dtype=bool), own, others)
            nats[method, size] = change[:, :, None] * tokens
    return Effects(LANGUAGES, tokens, nats, {key: (key[1],) * 3 for key in nats})


def drawn(effects, resamples, seed):
    """How often each unit is taken: once each, then each resample."""
    units = effects.tokens.shape[1]
    fewest = min(sum(1 for token in row if token > 0) for row in effects.tokens)
    weights = Resamples(units, resamples, seed).weights.tolist()
    return weights if fewest >= 20 else weights[:1]


def by_hand(effects, key, k, j, weight):
    """Nats a token of language j with the set of k off, in one resample."""
    nats = sum(w * x for w, x in zip(weight, effects.nats[key][k, j], strict=True))
    return nats / sum(w * t for w, t in zip(weight, effects.tokens[j], strict=True))


def own_others(effects, key, k, weight):
    rest = [j for j in range(len(effects.languages)) if j != k]
    return by_hand(effects, key, k, k, weight), sum(by_hand(effects, key, k, j, weight) for j in rest) / len(rest)


def share(own, others):
    own, others = max(own, 0.0), max(others, 0.0)
    return own / (own + others) if own > 0 else 0.0


def ends(values):
    return (None, None) if len(values) < 2 else tuple(np.quantile(values[1:], [0.025, 0.975]))


def at_level(points, level):
    """Selectivity where own first reaches a level, walking from nothing over the sizes; at no level that of the smallest size."""
    if level <= 0:
        return share(*points[0])
    before = (0.0, 0.0)
    for own, others in points:
        if own >= level:
            part = (level - before[0]) / (own - before[0])
            return share(level, before[1] + part * (others - before[1]))
        before = (own, others)
    raise AssertionError("never reached")


def gaps_by_hand(effects, a, b, k, weights):
    """(level, selectivity of a, selectivity of b) of each resample for one language."""
    result = []
    for weight in weights:
        curves = []
        for method in (a, b):
            keys = [(m, size) for m, size in effects.nats if m == method]
            sizes = sorted(size for m, size in keys if effects.neurons[m, size][k] is not None)
            curves.append([own_others(effects, (method, size), k, weight) for size in sizes])
        level = min(max(0.0, *(own for own, _ in points)) for points in curves)
        result.append((level, *(at_level(points, level) for points in curves)))
    return np.array(result)


def only(table, **where):
    (row,) = table.filter(**where).iter_rows(named=True)
    return row


# --- the frontier, the matrix, growth ---


@LAW
@given(seeds, st.sampled_from([5, 19, 20, 26]))
def test_the_frontier_is_own_others_and_selectivity_by_their_definitions(seed, units):
    effects = made(seed, units, sizes=(5, 10))
    table = frontier(effects, OVER, 30, seed)
    assert dict(table.schema) == FRONTIER
    assert len(table) == 2 * 2 * 4
    weights = drawn(effects, 30, seed)
    for key in effects.nats:
        values = {}
        for k, language in enumerate(LANGUAGES):
            points = [own_others(effects, key, k, weight) for weight in weights]
            values[language] = np.array([(own, others, share(own, others)) for own, others in points])
        values[MEAN] = np.mean([values[k] for k in OVER], axis=0)
        for language, expected in values.items():
            row = only(table, method=key[0], size=key[1], language=language)
            for n, name in enumerate(("own", "others", "selectivity")):
                assert row[name] == pytest.approx(expected[0, n], **NUMBER)
                for end, value in zip(("low", "high"), ends(expected[:, n]), strict=True):
                    assert row[f"{name}_{end}"] == (value if value is None else pytest.approx(value, **NUMBER))
        assert only(table, method=key[0], size=key[1], language=MEAN)["neurons"] == key[1] + 1.5


@LAW
@given(seeds)
def test_the_matrix_is_the_change_of_every_pair(seed):
    effects = made(seed, sizes=(5,))
    table = matrix(effects, 30, seed)
    assert dict(table.schema) == MATRIX
    weights = drawn(effects, 30, seed)
    for method, size in effects.nats:
        for k, off in enumerate(LANGUAGES):
            for j, language in enumerate(LANGUAGES):
                values = [by_hand(effects, (method, size), k, j, weight) for weight in weights]
                row = only(table, method=method, size=size, off=off, language=language)
                assert row["change"] == pytest.approx(values[0], **NUMBER)
                assert (row["low"], row["high"]) == pytest.approx(ends(values), **NUMBER)


@LAW
@given(seeds)
def test_growth_is_the_paired_difference_of_the_mean_own_effect(seed):
    effects = made(seed)
    table = growth(effects, "b", OVER, 30, seed)
    assert dict(table.schema) == GROWTH
    assert table.select("from", "to").rows() == [(5, 10), (10, 20), (5, 20)]
    weights = drawn(effects, 30, seed)
    for row in table.iter_rows(named=True):
        values = [
            np.mean(
                [
                    by_hand(effects, ("b", row["to"]), k, k, w) - by_hand(effects, ("b", row["from"]), k, k, w)
                    for k in (1, 2)
                ]
            )
            for w in weights
        ]
        assert row["difference"] == pytest.approx(values[0], **NUMBER)
        assert (row["low"], row["high"]) == pytest.approx(ends(values), **NUMBER)


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


# --- advantages ---


@LAW
@given(seeds, st.sampled_from([6, 22]), st.booleans())
def test_an_advantage_is_the_difference_of_selectivity_at_the_level_both_reach(seed, units, lacks):
    missing = (("b", 5, "fr"), ("a", 20, "zh")) if lacks else ()
    effects = made(seed, units, missing=missing)
    table = advantages(effects, "a", effects.methods, OVER, resamples=30, seed=seed)
    assert dict(table.schema) == ADVANTAGES
    assert table["language"].to_list() == [*LANGUAGES, MEAN]
    weights = drawn(effects, 30, seed)
    found = {language: gaps_by_hand(effects, "a", "b", k, weights) for k, language in enumerate(LANGUAGES)}
    found[MEAN] = np.mean([found[k] for k in OVER], axis=0)
    for language, expected in found.items():
        row = only(table, language=language)
        for n, name in enumerate(("own", "selectivity", "selectivity_against")):
            assert row[name] == pytest.approx(expected[0, n], **NUMBER)
        gap = expected[:, 1] - expected[:, 2]
        assert row["difference"] == pytest.approx(gap[0], **NUMBER)
        low, high = ends(gap)
        assert row["low"] == (low if low is None else pytest.approx(low, **NUMBER))
        assert row["high"] == (high if high is None else pytest.approx(high, **NUMBER))
        assert row["languages"] == (2 if language == MEAN else 1)
        assert row["units"] == units


@LAW
@given(seeds)
def test_an_advantage_turned_round_is_a_disadvantage(seed):
    effects = made(seed)
    one = advantages(effects, "a", ["b"], OVER, resamples=40, seed=seed)
    other = advantages(effects, "b", ["a"], OVER, resamples=40, seed=seed)
    np.testing.assert_allclose(one["difference"], -other["difference"], atol=1e-12)
    np.testing.assert_allclose(one["low"], -other["high"], atol=1e-12)
    np.testing.assert_allclose(one["own"], other["own"])
    assert one["p"].to_list() == other["p"].to_list()


@LAW
@given(seeds)
def test_a_way_of_choosing_that_does_the_same_has_no_advantage(seed):
    effects = made(seed, methods=("a",))
    nats = {**effects.nats, **{("same", size): value for (_, size), value in effects.nats.items()}}
    both = Effects(LANGUAGES, effects.tokens, nats, dict.fromkeys(nats, (1, 1, 1)))
    table = advantages(both, "a", ["same"], OVER, resamples=40, seed=seed)
    assert table["difference"].to_list() == table["low"].to_list() == table["high"].to_list() == [0.0] * 4
    assert table["p"].to_list() == table["p_holm"].to_list() == [1.0] * 4


@LAW
@given(seeds, st.floats(0.1, 10))
def test_the_unit_of_the_loss_changes_no_advantage(seed, factor):
    effects = made(seed)
    scaled = Effects(LANGUAGES, effects.tokens, {k: v * factor for k, v in effects.nats.items()}, effects.neurons)
    one, other = (advantages(e, "a", ["b"], OVER, resamples=40, seed=seed) for e in (effects, scaled))
    np.testing.assert_allclose(one["difference"], other["difference"], atol=1e-9)
    np.testing.assert_allclose(one["own"] * factor, other["own"], atol=1e-12)


def test_others_are_read_off_the_line_between_the_sizes_around_the_level():
    """a reaches own .4; b has others .1 at own .2 and .5 at own .6, so .3 at .4."""
    effects = of_means({"a": {5: (0.4, 0.1)}, "b": {5: (0.2, 0.1), 10: (0.6, 0.5)}})
    row = only(advantages(effects, "a", ["b"], OVER, resamples=30, seed=0), language="fr")
    assert row["own"] == pytest.approx(0.4)
    assert row["selectivity"] == pytest.approx(0.8)
    assert row["selectivity_against"] == pytest.approx(0.4 / 0.7)


def test_below_the_smallest_size_the_line_goes_back_to_nothing():
    effects = of_means({"a": {5: (0.1, 0.05)}, "b": {5: (0.4, 0.4)}})
    row = only(advantages(effects, "a", ["b"], OVER, resamples=30, seed=0), language="fr")
    assert row["selectivity_against"] == pytest.approx(0.5)


def test_a_larger_set_that_does_less_is_not_where_the_level_is_read():
    """Where own falls again with size, the level counts where it is first reached."""
    curve = {5: (0.2, 0.1), 10: (0.6, 0.3), 20: (0.1, 0.9), 40: (0.6, 0.9)}
    row = only(
        advantages(of_means({"a": {5: (0.6, 0.3)}, "b": curve}), "a", ["b"], OVER, resamples=30, seed=0), language="fr"
    )
    assert row["difference"] == pytest.approx(0.0)


def test_a_size_that_does_the_same_as_the_one_before_changes_nothing():
    curves = {"a": {5: (0.3, 0.1)}, "b": {5: (0.2, 0.1), 10: (0.4, 0.3)}}
    tied = {"a": curves["a"], "b": {5: (0.2, 0.1), 7: (0.2, 0.1), 10: (0.4, 0.3)}}
    one, other = (advantages(of_means(c), "a", ["b"], OVER, resamples=30, seed=0) for c in (curves, tied))
    np.testing.assert_allclose(one["difference"], other["difference"])


def test_sizes_are_ordered_by_number_not_by_when_they_were_measured():
    curve = {5: (0.2, 0.1), 10: (0.4, 0.3)}
    turned = dict(reversed(curve.items()))
    tables = [
        advantages(of_means({"a": {5: (0.3, 0.1)}, "b": b}), "a", ["b"], OVER, resamples=30, seed=0)
        for b in (curve, turned)
    ]
    assert tables[0].equals(tables[1])


def test_a_way_of_choosing_without_own_effect_has_selectivity_0_against_the_smallest_set():
    effects = of_means({"a": {5: (0.3, 0.1), 10: (0.4, 0.4)}, "b": {5: (-0.1, 0.2)}})
    row = only(advantages(effects, "a", ["b"], OVER, resamples=30, seed=0), language="fr")
    assert (row["own"], row["selectivity_against"]) == (0.0, 0.0)
    assert row["selectivity"] == pytest.approx(0.75)


# --- p and its correction ---


def test_holm_is_over_the_languages_of_one_pair_and_the_mean_stands_alone():
    table = advantages(made(3, methods=("a", "b", "c")), "a", ["b", "c"], OVER, resamples=200, seed=0)
    for other in ("b", "c"):
        pair = table.filter(pl.col("against") == other, pl.col("language") != MEAN)
        assert pair["p_holm"].to_list() == pytest.approx(holm(pair["p"].to_list()))
        mean = only(table, against=other, language=MEAN)
        assert mean["p_holm"] == mean["p"]
    alone = advantages(made(3, methods=("a", "b", "c")), "a", ["b"], OVER, resamples=200, seed=0)
    assert alone.equals(table.filter(against="b")), "what else it is compared with changes nothing"


def test_p_is_two_sided_and_never_0():
    assert two_sided(np.array([1.0, *[1.0] * 99])) == 0.02
    assert two_sided(np.array([1.0, *[1.0] * 79, *[-1.0] * 20])) == 0.42
    assert two_sided(np.array([-1.0, *[-1.0] * 99])) == 0.02
    assert two_sided(np.array([0.0, *[0.0] * 99])) == 1.0
    assert two_sided(np.array([1.0])) is None


def test_what_is_not_known_has_neither_interval_nor_p():
    unknown = np.full(50, np.nan)
    assert interval(unknown) == (None, None, None)
    assert two_sided(unknown) is None


# --- units ---


@pytest.mark.parametrize(("held", "known"), [(19, False), (20, True)])
def test_the_language_with_fewest_units_decides_whether_there_are_intervals(held, known):
    effects = made(1, units=40)
    effects.tokens[1, held:] = 0
    for nats in effects.nats.values():
        nats[:, 1, held:] = 0
    assert effects.units == held
    for table, name in ((frontier(effects, OVER, 30, 0), "own_low"), (matrix(effects, 30, 0), "low")):
        assert (table[name].null_count() == 0) == known
    table = advantages(effects, "a", ["b"], OVER, resamples=30, seed=0)
    assert (table["low"].null_count() == table["p"].null_count() == 0) == known
    assert set(table["units"]) == {held}


@LAW
@given(seeds)
def test_units_that_one_language_lacks_still_pair_the_others(seed):
    effects = made(seed, units=45, sizes=(5,))
    effects.tokens[2, 22:] = 0
    for nats in effects.nats.values():
        nats[:, 2, 22:] = 0
    table, weights = frontier(effects, OVER, 30, seed), drawn(effects, 30, seed)
    values = [own_others(effects, ("a", 5), 1, weight)[1] for weight in weights]
    row = only(table, method="a", language="fr")
    assert (row["others"], row["others_low"], row["others_high"]) == pytest.approx((values[0], *ends(values)), **NUMBER)


# --- sets that could not be chosen ---


def test_a_language_without_a_set_has_nulls_and_not_an_effect_of_0():
    effects = made(2, missing=[("b", 20, "fr")])
    table = frontier(effects, OVER, 30, 0)
    values = [name for name in FRONTIER if name not in ("method", "size", "language")]
    for language in ("fr", MEAN):
        assert all(only(table, method="b", size=20, language=language)[name] is None for name in values)
    assert table.null_count().select(values).row(0) == (2,) * len(values)
    assert not any(table.select(pl.selectors.float().is_nan().any()).row(0))
    off = matrix(effects, 30, 0).filter(method="b", size=20, off="fr")
    assert off.select("change", "low", "high").null_count().row(0) == (3, 3, 3)
    assert growth(effects, "b", OVER, 30, 0)["difference"].null_count() == 2


def test_a_language_without_any_set_of_a_way_is_not_won_and_left_out_of_the_mean():
    effects = made(2, missing=[("b", size, "fr") for size in (5, 10, 20)])
    table = advantages(effects, "a", ["b"], OVER, resamples=30, seed=0)
    fr, zh, mean = (only(table, language=language) for language in ("fr", "zh", MEAN))
    assert all(fr[name] is None for name in ("own", "selectivity", "difference", "low", "high", "p", "p_holm"))
    assert [row["languages"] for row in (fr, zh, mean)] == [0, 1, 1]
    assert mean["difference"] == zh["difference"]
    known = [row for row in table.iter_rows(named=True) if row["language"] in ("en", "zh")]
    assert [row["p_holm"] for row in known] == pytest.approx(holm([row["p"] for row in known]))


def test_where_no_language_can_be_compared_the_mean_is_null():
    effects = made(2, missing=[("b", size, k) for size in (5, 10, 20) for k in OVER])
    row = only(advantages(effects, "a", ["b"], OVER, resamples=30, seed=0), language=MEAN)
    assert row["difference"] is None
    assert row["languages"] == 0


def test_what_stands_where_there_was_no_set_is_never_read():
    effects = made(2, missing=[("b", 20, "fr")])
    nats = {key: value.copy() for key, value in effects.nats.items()}
    nats["b", 20][1] = math.nan
    other = Effects(LANGUAGES, effects.tokens, nats, effects.neurons)
    for make in (lambda e: frontier(e, OVER, 30, 0), lambda e: advantages(e, "a", ["b"], OVER, resamples=30, seed=0)):
        assert make(effects).equals(make(other))


# --- what is refused ---


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_refused_naming_what_was_off(value):
    effects = made()
    effects.nats["b", 10][1, 2, 3] = value
    with pytest.raises(ModelError, match=r"fr off \(b, 10\), the loss of zh .*dtype="):
        Effects(LANGUAGES, effects.tokens, effects.nats, effects.neurons)


def test_a_language_without_scored_tokens_is_refused():
    effects = made()
    with pytest.raises(TextError, match="zh"):
        Effects(LANGUAGES, effects.tokens * [[1], [1], [0]], effects.nats, effects.neurons)


def test_effects_whose_shapes_differ_are_refused():
    effects = made()
    with pytest.raises(MismatchError, match="Expected"):
        Effects(LANGUAGES, effects.tokens[:, 1:], effects.nats, effects.neurons)
    with pytest.raises(MismatchError, match="Expected"):
        Effects(LANGUAGES, effects.tokens, effects.nats, {})


@pytest.mark.parametrize("over", [(), ("de",), ("fr", "de")])
def test_a_mean_over_languages_that_were_not_measured_is_refused(over):
    for make in (
        lambda: frontier(made(), over, 9, 0),
        lambda: growth(made(), "a", over, 9, 0),
        lambda: advantages(made(), "a", ["b"], over, resamples=9, seed=0),
    ):
        with pytest.raises(OptionError, match="Measured: en, fr, zh"):
            make()


def test_a_way_of_choosing_that_was_not_measured_is_refused_naming_those_that_were():
    for make in (
        lambda: advantages(made(), "c", ["b"], OVER, resamples=9, seed=0),
        lambda: advantages(made(), "a", ["c"], OVER, resamples=9, seed=0),
        lambda: growth(made(), "c", OVER, 9, 0),
    ):
        with pytest.raises(OptionError, match=r"'c'. Measured: a, b"):
            make()


def test_others_of_one_language_alone_are_refused():
    effects = Effects(("fr",), np.ones((1, 24)), {("a", 5): np.ones((1, 1, 24))}, {("a", 5): (5,)})
    with pytest.raises(LapeError, match="two or more"):
        frontier(effects, ("fr",), 9, 0)
    assert matrix(effects, 9, 0)["change"].to_list() == [1.0]
