"""Act-Prob-90p: how often a neuron exceeds its threshold, against every token's activation; and planted neurons."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.detect.probability90 import exceeding, probability90, shares, threshold
from lape.values.histogram import BINS, EDGES, ZERO
from lape.values.space import NeuronSpace
from lape.values.stats import LanguageStats
from support.made import made_stats

LAW = settings(deadline=None, max_examples=25)
SEED = st.integers(0, 2**32)
PERCENTILE = st.floats(0.05, 0.95)
LANGUAGES = ("en", "fr", "zh")


def counted(activations, space=None):
    """Statistics of (tokens, neurons) activations of each language, counted in bins one by one."""
    width = next(iter(activations.values())).shape[1]
    space = space or NeuronSpace.dense(1, width)
    stats = made_stats(languages=list(activations), space=space)
    by_language = {}
    for k, a in activations.items():
        above = (a[:, :, None] > EDGES).sum(2)  # how many edges lie below = the bin
        histogram = torch.stack([(above == b).sum(0) for b in range(BINS)], 1)
        by_language[k] = LanguageStats({**stats[k].tensors, "histogram": histogram})
    return dataclasses.replace(stats, by_language=by_language)


def random_activations(seed, neurons=12, languages=LANGUAGES):
    """Pre-activations that differ between languages, through SiLU for some neurons and ReLU for the rest."""
    random = torch.Generator().manual_seed(seed)
    result = {}
    for k in languages:
        tokens = int(torch.randint(60, 200, (1,), generator=random))
        x = torch.randn(tokens, neurons, generator=random) + torch.randn(neurons, generator=random)
        result[k] = torch.cat([torch.nn.functional.silu(x[:, : neurons // 2]), x[:, neurons // 2 :].relu()], 1)
    return result


def scores(stats, percentile=0.9):
    bins, part = threshold(stats, percentile)
    return {k: exceeding(shares(stats, k), bins, part) for k in stats.languages}


def true_threshold(activations, neuron, percentile):
    """The smallest activation that at most 1 − percentile of the tokens exceed, each language weighing the same."""
    for value in sorted({float(x) for a in activations.values() for x in a[:, neuron]}):
        above = [float((a[:, neuron] > value).double().mean()) for a in activations.values()]
        if sum(above) / len(above) <= 1 - percentile + 1e-12:
            return value
    raise AssertionError


@LAW
@given(SEED, PERCENTILE)
def test_a_score_is_the_share_above_the_threshold_up_to_what_lies_in_its_bin(seed, percentile):
    activations = random_activations(seed)
    found = scores(counted(activations), percentile)
    for neuron in range(12):
        at = true_threshold(activations, neuron, percentile)
        place = int((at > EDGES).sum())
        low, high = ([-torch.inf, *EDGES.tolist()][place], [*EDGES.tolist(), torch.inf][place])
        for k, a in activations.items():
            exact = float((a[:, neuron] > at).double().mean())
            inside = float(((a[:, neuron] > low) & (a[:, neuron] <= high)).double().mean())
            assert abs(float(found[k][neuron]) - exact) <= inside + 1e-9


@LAW
@given(SEED, PERCENTILE)
def test_on_average_over_languages_every_neuron_exceeds_its_threshold_equally_often(seed, percentile):
    stats = counted(random_activations(seed))
    found = torch.stack(list(scores(stats, percentile).values())).mean(0)
    bins, _ = threshold(stats, percentile)
    assert bool((found <= 1 - percentile + 1e-9).all())
    torch.testing.assert_close(found[bins != ZERO], torch.full_like(found[bins != ZERO], 1 - percentile))


def test_a_neuron_that_rarely_fires_exceeds_0_as_often_as_it_fires():
    activations = {k: torch.zeros(50, 1) for k in LANGUAGES}
    activations["fr"][:7] = 0.3
    activations["zh"][:1] = 20.0
    found = scores(counted(activations))
    assert [float(found[k][0]) for k in LANGUAGES] == pytest.approx([0, 7 / 50, 1 / 50], abs=1e-15)


def test_languages_weigh_the_same_however_many_tokens_they_have():
    # Nine tenths of all tokens are English and at 1; by language, two thirds of the weight lie above 1.
    activations = {"en": torch.full((900, 1), 1.0), "fr": torch.full((50, 1), 4.0), "zh": torch.full((50, 1), 4.0)}
    found = scores(counted(activations), percentile=1 / 3 + 0.01)
    assert float(found["en"][0]) == 0
    assert float(found["fr"][0]) == float(found["zh"][0]) == pytest.approx((2 / 3 - 0.01) / (2 / 3), abs=1e-9)


@LAW
@given(SEED, st.integers(1, 12))
def test_the_neurons_of_largest_score_are_chosen(seed, count):
    stats = counted(random_activations(seed))
    found, expected = probability90(stats, per_language=count), scores(stats)
    assert list(found) == stats.languages
    for k in stats.languages:
        ranked = sorted((j for j in range(12) if expected[k][j] > 0), key=lambda j: -float(expected[k][j]))
        assert set(found[k]) == set(ranked[:count])


def test_planted_neurons_come_out_and_those_active_in_all_languages_do_not():
    random = torch.Generator().manual_seed(0)
    activations = {k: torch.randn(300, 30, generator=random) for k in LANGUAGES}
    activations["fr"][:, 7] += 4  # active in French only
    for k in LANGUAGES:
        activations[k][:, 9] += 8  # active in all of them, and most of all neurons
    activations["fr"][:20, 11] += 100  # large in French, but rarely
    stats = counted({k: torch.nn.functional.silu(a) for k, a in activations.items()})
    found = probability90(stats, per_language=1)
    assert list(found["fr"]) == [7]
    assert 9 not in found.union
    more = scores(stats)["fr"]
    assert float(more[7]) > 0.29 > 0.15 > float(more[11])


def test_a_neuron_no_token_reached_has_a_score_of_0():
    stats = counted(random_activations(0))
    for k in LANGUAGES:
        stats[k].tensors["histogram"][3] = 0
    assert [float(scores(stats)[k][3]) for k in LANGUAGES] == [0, 0, 0]
