"""LAPE against the published identify.py, written again in plain loops from its description."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape import identify
from lape.detect.lape import LapeOptions, entropy, percentile, select
from lape.errors import OptionError
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.space import NeuronSpace
from lape.values.stats import ActivationStats, merge
from support.made import EXPERTS, made_stats
from support.published_lape import (
    counts,
    entropy_by_hand,
    per_language_by_hand,
    percentile_by_hand,
    published,
    table,
)

LAW = settings(deadline=None, max_examples=40)
SEED = st.integers(0, 2**32)
SHARE = st.sampled_from([0.02, 0.1, 0.3, 0.5, 0.8, 0.95])
WIDE = NeuronSpace.dense(3, 40)


def sets(stats: ActivationStats, **options) -> dict[str, list[int]]:
    found = identify(stats, reliability=False, **options)
    return {language: list(neurons) for language, neurons in found.items()}


# The published rule, by hand


@LAW
@given(SEED, st.integers(2, 7), SHARE, SHARE, SHARE)
def test_the_selection_is_the_published_one(seed, languages, rate, filter_, bar):
    stats = counts(seed, languages)
    expected = published(stats.probabilities().tolist(), rate, filter_, bar)
    assert list(sets(stats, rate=rate, filter=filter_, bar=bar).values()) == expected


@LAW
@given(SEED, st.integers(2, 5), st.integers(1, 30), SHARE)
def test_a_number_per_language_takes_the_lowest_entropies_above_a_bar_lowered_where_needed(seed, languages, count, bar):
    stats = counts(seed, languages)
    expected = per_language_by_hand(stats.probabilities().tolist(), bar, count)
    assert list(sets(stats, per_language=count, bar=bar, filter=bar).values()) == expected


@LAW
@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.floats(0.001, 0.999))
def test_the_percentile_is_the_kth_smallest_counted_from_1(numbers, share):
    k = min(max(round(share * len(numbers)), 1), len(numbers))
    below = sum(x < percentile(torch.tensor([numbers]).double(), share) for x in numbers)
    up_to = sum(x <= percentile(torch.tensor([numbers]).double(), share) for x in numbers)
    assert below < k <= up_to


# Entropy

COLUMN = st.lists(st.integers(0, 1000), min_size=2, max_size=8)


@LAW
@given(COLUMN)
def test_entropy_is_that_of_the_definition(column):
    found = entropy(torch.tensor(column).double()[:, None] / 1000)
    assert found.item() == pytest.approx(entropy_by_hand([x / 1000 for x in column]), abs=1e-12)


@LAW
@given(COLUMN)
def test_entropy_lies_between_0_and_the_log_of_the_number_of_languages(column):
    found = entropy(torch.tensor(column).double()[:, None]).item()
    assert 0 <= found <= math.log(len(column)) + 1e-12


@pytest.mark.parametrize(
    ("column", "expected"), [([0, 0, 0], 0), ([0, 5, 0], 0), ([2, 2, 0], math.log(2)), ([7, 7, 7], math.log(3))]
)
def test_entropy_of_known_columns(column, expected):
    assert entropy(torch.tensor(column).double()[:, None]).item() == pytest.approx(expected, abs=1e-15)


@LAW
@given(COLUMN, st.sampled_from([0.5, 0.1, 1e-6]))
def test_entropy_is_blind_to_how_often_a_neuron_fires_in_all(column, factor):
    p = torch.tensor(column).double()[:, None]
    assert entropy(p * factor).item() == pytest.approx(entropy(p).item(), abs=1e-12)


@pytest.mark.parametrize("languages", [2, 3, 5, 7, 9, 16])
def test_equal_probabilities_have_equal_entropy_wherever_the_neuron_lies(languages):
    random = torch.Generator().manual_seed(languages)
    for neurons in (5, 13, 101):
        for _ in range(20):
            column = torch.rand(languages, 1, generator=random, dtype=torch.float64)
            assert len(entropy(column.repeat(1, neurons)).unique()) == 1


# Thresholds


@pytest.mark.parametrize(("width", "kept"), [(100, 1), (149, 1), (151, 2), (250, 2), (350, 4), (1000, 10)])
def test_the_number_kept_is_the_rounded_share_of_all_neurons(width, kept):
    assert len(identify(counts(1, 5, 1, width), filter=0.5, bar=0.5).union) == kept


@LAW
@given(SEED, st.integers(2, 7))
def test_with_one_threshold_every_kept_neuron_has_a_language(seed, languages):
    found = identify(counts(seed, languages, 4, 50), filter=0.9, bar=0.9, rate=0.02)
    assert len(found.union) == 4


def test_equal_entropies_keep_the_lower_index_first():
    columns = [[1, 1, 90, 90, 90, 90, 1, 1], [1, 1, 0, 0, 0, 0, 1, 1]]
    assert sets(table(*columns), rate=0.25, filter=0.8, bar=0.8) == {"en": [], "zh": []}, "90 is the percentile itself"
    assert sets(table(*columns), rate=0.25, filter=0.5, bar=0.5) == {"en": [2, 3], "zh": []}


def test_ties_do_not_depend_on_where_the_neurons_lie():
    random = np.random.default_rng(0)
    for _ in range(20):
        fires = torch.tensor(np.repeat(random.integers(60, 100, (7, 1, 1)), 103, axis=2))
        stats = ActivationStats.from_counts(["en", "zh", "fr", "es", "vi", "id", "ja"], [100] * 7, fires)
        assert list(identify(stats, filter=0.02, bar=0.02, rate=0.03).union) == [0, 1, 2]


def test_a_probability_equal_to_the_percentile_is_not_above_it():
    assert sets(table([50] * 10, [50] * 10), rate=0.5, filter=0.5, bar=0.5) == {"en": [], "zh": []}


def test_a_kept_neuron_serves_every_language_where_it_is_above_the_bar():
    found = sets(table([90, 1, 1, 1, 1], [80, 1, 1, 1, 1], [0, 1, 1, 1, 1]), rate=0.2, filter=0.8, bar=0.8)
    assert found == {"en": [0], "zh": [0], "fr": []}


def test_a_bar_above_the_filter_may_leave_a_kept_neuron_without_language():
    columns = [[50, 90, 2, 1], [0, 80, 2, 1]]
    assert sets(table(*columns), rate=0.25, filter=0.5, bar=0.95) == {"en": [], "zh": []}


def test_a_neuron_that_never_fires_is_no_languages():
    found = identify(counts(3), filter=0.1, bar=0.1, rate=0.9, reliability=False)
    silent = (counts(3).probabilities() == 0).all(0)
    assert silent.any()
    assert not set(found.union) & set(silent.nonzero().flatten().tolist())


@pytest.mark.parametrize("options", [{"rate": 0.5, "filter": 0.5, "bar": 0.5}, {"per_language": 2}])
def test_a_language_in_which_nothing_fires_stays_with_an_empty_set(options):
    found = sets(table([9, 1, 0, 2], [1, 9, 2, 0], [0, 0, 0, 0]), **options)
    assert list(found) == ["en", "zh", "fr"]
    assert found["fr"] == []
    assert found["en"]


# A number per language


@LAW
@given(SEED, st.integers(1, 60))
def test_each_language_gets_its_number_or_all_that_fire(seed, count):
    stats = counts(seed)
    fire = (stats.probabilities() > 0).sum(1).tolist()
    assert [len(found) for found in sets(stats, per_language=count).values()] == [min(count, k) for k in fire]


def test_a_lowered_bar_is_named_with_its_language_only():
    rows = [[90, 80, 70, 60, 50, 40, 30, 20], [1, 1, 1, 1, 1, 1, 9, 8]]
    found = identify(table(*rows), per_language=2, bar=0.6, filter=0.6)
    assert set(found["zh"]) == {6, 7}
    assert any("zh" in note for note in found.notes)
    assert not any("en" in note.split(":")[0] for note in found.notes)


def test_no_neuron_below_the_filter_is_chosen_while_enough_are_above_the_bar():
    rows = [[90, 80, 10, 10, 1, 1, 1, 1], [90, 80, 1, 1, 10, 10, 1, 1]]
    found = sets(table(*rows), per_language=2, filter=0.7, bar=0.4)
    assert found == {"en": [0, 1], "zh": [0, 1]}, "2 to 5 have lower entropy but are no candidates"


# What it reads and what it says


@LAW
@given(SEED, st.permutations(range(3)))
def test_merged_shards_give_the_same_sets_in_any_order(seed, order):
    shards = [made_stats(seed + k, space=WIDE, sums=True) for k in range(3)]
    options = {"rate": 0.1, "filter": 0.8, "bar": 0.8}
    assert sets(merge(shards), **options) == sets(merge(shards[k] for k in order), **options)


def test_scores_are_the_entropies_of_candidates_and_infinite_elsewhere():
    stats = counts(5)
    p = stats.probabilities()
    options = {"rate": 0.99, "filter": 0.8, "bar": 0.8}
    every, found = select(p, LapeOptions(**options)).entropy, identify(stats, **options, reliability=False)
    candidate = (p > percentile_by_hand(p.tolist(), 0.8)).any(0)
    assert torch.equal(every.isfinite(), candidate)
    by_hand = [entropy_by_hand(p[:, j].tolist()) for j in candidate.nonzero().flatten()]
    assert every[candidate].tolist() == pytest.approx(by_hand, abs=1e-12)
    assert torch.equal(found.union.flat, candidate.nonzero()[:, 0])
    assert torch.equal(found.scores, every[candidate])


# Experts


def routed_to(tokens: int) -> ActivationStats:
    """Statistics in which `tokens` tokens of French reached expert 0."""
    stats = made_stats(space=EXPERTS)
    french = stats["fr"].tensors
    routed, fires = french["routed"].clone(), french["fires"].clone()
    routed[:, 1] = torch.tensor([tokens, 0, 0, 0, 0, 0, 0, 0])
    fires[:, 5:9] = torch.minimum(fires[:, 5:9], routed[:, 1:2])
    changed = dataclasses.replace(stats["fr"], tensors={**french, "routed": routed, "fires": fires})
    return dataclasses.replace(stats, by_language={**stats.by_language, "fr": changed})


@pytest.mark.parametrize("options", [{"rate": 0.9, "filter": 0.1, "bar": 0.1}, {"per_language": 13}])
def test_an_expert_under_200_routed_tokens_in_some_language_is_not_scored_and_counted(options):
    found = identify(routed_to(199), reliability=False, **options)
    assert not set(found.union) & {5, 6, 7, 8}
    assert any("4 neurons" in note for note in found.notes)


def test_an_expert_of_200_routed_tokens_is_scored():
    found = identify(routed_to(200), rate=0.9, filter=0.1, bar=0.1, reliability=False)
    assert set(found.union) & {5, 6, 7, 8}
    assert found.notes == ()


def test_a_rate_is_of_all_neurons_even_where_some_are_not_scored():
    found = identify(routed_to(199), rate=0.5, filter=0.1, bar=0.1, reliability=False)
    assert len(found.union) == round(0.5 * 13)


@pytest.mark.parametrize("denominator", ["tokens", "routed"])
def test_the_denominator_is_an_option(denominator):
    stats = made_stats(7, space=EXPERTS)
    expected = published(stats.probabilities(denominator).tolist(), 0.3, 0.6, 0.6)
    assert list(sets(stats, denominator=denominator, rate=0.3, filter=0.6, bar=0.6).values()) == expected


# Selection methods


def test_a_function_of_ones_own_is_a_method():
    def first(stats: ActivationStats, count: int = 1) -> LanguageNeurons:
        return LanguageNeurons(stats.space, {k: NeuronSet(stats.space, torch.arange(count)) for k in stats.languages})

    assert list(identify(made_stats(), method=first, count=3)["fr"]) == [0, 1, 2]


def test_an_unknown_method_is_refused_naming_the_known_ones():
    with pytest.raises(OptionError, match=r"laep.*lape"):
        identify(made_stats(), method="laep")
