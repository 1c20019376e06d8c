"""Reliability: halves of the folds, stability neuron by neuron, and what chance would give."""

from __future__ import annotations

import dataclasses
import statistics
from functools import partial
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape import identify
from lape.detect.halves import halves
from lape.detect.lape import lape
from lape.detect.stability import (
    SMALLEST,
    UNION,
    chance_jaccard,
    reliability,
    split_halves,
    stability,
    stability_of,
    steadiness,
)
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.space import NeuronSpace
from lape.values.stats import ActivationStats
from support.made import made_stats

LAW = settings(deadline=None, max_examples=5)
WIDE = NeuronSpace.dense(2, 60)
OPTIONS = {"rate": 0.3, "filter": 0.7, "bar": 0.7}


def with_tensors(stats: ActivationStats, change) -> ActivationStats:
    """The same with every language's tensors changed by `change(language, tensors)`."""
    changed = {k: dataclasses.replace(stats[k], tensors=change(k, dict(stats[k].tensors))) for k in stats.languages}
    return dataclasses.replace(stats, by_language=changed)


def alike(stats: ActivationStats) -> ActivationStats:
    """Every fold as the first one."""

    def copy(language, tensors):
        return {n: t if n == "fingerprints" else t[:1].expand_as(t).contiguous() for n, t in tensors.items()}

    return with_tensors(stats, copy)


def sets_of(space: NeuronSpace, *flat) -> list[NeuronSet]:
    return [NeuronSet(space, torch.tensor(list(one), dtype=torch.int64)) for one in flat]


@pytest.mark.parametrize(("folds", "ways"), [(2, 1), (4, 3), (6, 10), (8, 35)])
def test_every_way_to_halve_the_folds_comes_once(folds, ways):
    found = {frozenset((frozenset(a), frozenset(b))) for a, b in halves(folds)}
    by_hand = {
        frozenset((frozenset(half), frozenset(range(folds)) - frozenset(half)))
        for half in combinations(range(folds), folds // 2)
    }
    assert found == by_hand
    assert len(halves(folds)) == ways


@LAW
@given(st.integers(0, 2**32))
def test_stability_is_the_share_of_the_70_halves_that_select_the_neuron(seed):
    stats = made_stats(seed, space=WIDE, tokens=20)
    found = identify(stats, **OPTIONS)
    hits = {(language, j): 0 for language, own in found.items() for j in own}
    for half in combinations(range(8), 4):
        other = lape(stats, folds=half, **OPTIONS)
        for language, j in hits:
            hits[language, j] += j in other[language]
    for language, own in found.items():
        assert found.stability[language].tolist() == [hits[language, j] / 70 for j in own]


def test_equal_folds_give_a_stability_of_1():
    found = identify(alike(made_stats(space=WIDE)), **OPTIONS)
    assert len(found.union) == round(0.3 * len(WIDE))
    assert all((values == 1).all() for values in found.stability.values())


def test_stability_lies_beside_the_neurons_of_its_language():
    found = identify(made_stats(space=WIDE, tokens=20), **OPTIONS)
    assert list(found.stability) == list(found)
    assert all(len(found.stability[language]) == len(found[language]) for language in found)
    assert any((values < 1).any() for values in found.stability.values())


def test_stability_changes_nothing_else():
    stats = made_stats(space=WIDE)
    assert dict(identify(stats, **OPTIONS)) == dict(identify(stats, reliability=False, **OPTIONS))
    assert identify(stats, reliability=False, **OPTIONS).stability == {}


def test_one_fold_has_no_stability():
    one = ActivationStats.from_counts(["en", "fr"], [9, 9], torch.arange(12).reshape(2, 2, 3) % 9)
    assert identify(one, **OPTIONS).stability == {}


def test_one_fold_has_no_halves_and_so_no_reliability():
    one = ActivationStats.from_counts(["en", "fr"], [9, 9], torch.arange(12).reshape(2, 2, 3) % 9)
    assert (halves(0), halves(1), split_halves(one, lape), stability(lape(one), one, lape)) == ([], [], [], {})
    steady = steadiness(one)
    assert (steady["language"], steady["median"], steady["halvings"]) == (None, None, 0)


def test_a_halving_that_leaves_a_language_without_text_is_left_out():
    def only_two_folds(language, tensors):
        if language == "fr":
            for name in ("tokens", "routed", "fires"):
                tensors[name] = tensors[name].clone()
                tensors[name][2:] = 0
        return tensors

    found = split_halves(with_tensors(made_stats(space=WIDE), only_two_folds), partial(lape, **OPTIONS))
    assert len(found) == sum((0 in half) != (1 in half) for half in combinations(range(8), 4)) // 2


def test_text_in_one_fold_alone_has_no_stability():
    def only_one_fold(language, tensors):
        return {
            n: t if n == "fingerprints" else torch.cat([t[:1], torch.zeros_like(t[1:])]) for n, t in tensors.items()
        }

    assert identify(with_tensors(made_stats(space=WIDE), only_one_fold), **OPTIONS).stability == {}


def test_stability_counts_the_neurons_own_language_only():
    own, other = sets_of(WIDE, [1, 2], [2, 3])
    whole = LanguageNeurons(WIDE, {"en": own, "fr": other})
    swapped = LanguageNeurons(WIDE, {"en": other, "fr": own})
    found = stability_of(whole, [(whole, swapped)])
    assert found["en"].tolist() == [0.5, 1.0]
    assert found["fr"].tolist() == [1.0, 0.5]


# The table


def test_the_table_has_a_row_for_each_language_and_the_union():
    stats = made_stats(space=WIDE, tokens=20)
    found = identify(stats, **OPTIONS)
    pairs = split_halves(stats, partial(lape, **OPTIONS))
    rows = reliability(found, pairs).rows_by_key("language", named=True, unique=True)
    assert list(rows) == ["en", "fr", "zh", UNION]
    for language, row in rows.items():
        own = found.union if language == UNION else found[language]
        assert (row["neurons"], row["halvings"]) == (len(own), 35)
        ends = [[set(h.union if language == UNION else h[language]) for h in pair] for pair in pairs]
        values = [len(a & b) / len(a | b) for a, b in ends]
        if len(own) >= SMALLEST:
            assert row["median"] == pytest.approx(statistics.median(values))
            assert min(values) <= row["p5"] <= row["median"]
            assert sum(value <= row["p5"] for value in values) == 2, "5 % of 35 lie at or below it"


def test_equal_halves_have_a_jaccard_of_1():
    stats = alike(made_stats(space=WIDE))
    found = identify(stats, **OPTIONS)
    union = reliability(found, split_halves(stats, partial(lape, **OPTIONS))).row(-1, named=True)
    assert (union["language"], union["median"], union["p5"]) == (UNION, 1, 1)
    assert union["chance"] < 0.5


@pytest.mark.parametrize(("size", "given_"), [(SMALLEST - 1, False), (SMALLEST, True)])
def test_a_set_under_20_neurons_gets_no_jaccard(size, given_):
    neurons = LanguageNeurons(WIDE, {"fr": sets_of(WIDE, range(size))[0]})
    row = reliability(neurons, [(neurons, neurons)]).row(0, named=True)
    assert [row[name] is not None for name in ("median", "p5", "chance")] == [given_] * 3
    assert row["neurons"] == size


def test_without_halvings_there_is_no_jaccard():
    neurons = LanguageNeurons(WIDE, {"fr": sets_of(WIDE, range(40))[0]})
    row = reliability(neurons, []).row(0, named=True)
    assert (row["median"], row["p5"], row["chance"], row["halvings"]) == (None, None, None, 0)


# Chance


@pytest.mark.parametrize(("in_a", "in_b"), [((10, 25), (15, 5)), ((30, 0), (30, 10)), ((0, 40), (35, 0))])
def test_chance_is_the_jaccard_of_random_sets_with_as_many_neurons_a_layer(in_a, in_b):
    widths = (50, 80)
    space = NeuronSpace.of((layer, None, width) for layer, width in enumerate(widths))
    random = np.random.default_rng(0)

    def draw(sizes):
        picked = [random.choice(width, size, replace=False) for width, size in zip(widths, sizes, strict=True)]
        return {*picked[0], *(picked[1] + widths[0])}

    pairs = [(draw(in_a), draw(in_b)) for _ in range(2000)]
    simulated = statistics.mean(len(a & b) / len(a | b) for a, b in pairs)
    assert chance_jaccard(*sets_of(space, *pairs[0])) == pytest.approx(simulated, abs=0.005)


def test_chance_of_whole_layers_is_certain_and_of_nothing_is_0():
    everything, nothing = sets_of(WIDE, range(len(WIDE)), [])
    assert chance_jaccard(everything, everything) == 1
    assert chance_jaccard(nothing, everything) == 0
    assert chance_jaccard(nothing, nothing) == 0
