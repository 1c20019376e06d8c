"""The difference method: the neurons whose mean activation in a language lies furthest above that in the others."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape import identify
from lape.detect.difference import difference
from lape.errors import OptionError
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats
from support.made import DENSE, EXPERTS, made_stats

LAW = settings(deadline=None, max_examples=40)
SEED = st.integers(0, 2**32)
SPACE = st.sampled_from([DENSE, EXPERTS])
PLAIN = {"per_language": 100, "of": "activation", "against": "mean"}


def gaps(stats, language):
    """E_k[a] minus the mean of E_j[a] over the other languages, neuron by neuron; E over the tokens that reached it."""
    result = []
    for s, stretch in enumerate(stats.space):
        for j in range(stretch.start, stretch.stop):
            mean = {k: float(stats[k].sums("sum")[j]) / int(stats[k].routed[:, s].sum()) for k in stats.languages}
            others = [mean[k] for k in stats.languages if k != language]
            result.append(mean[language] - sum(others) / len(others))
    return result


@LAW
@given(SEED, SPACE, st.integers(1, 30))
def test_the_neurons_of_largest_gap_are_chosen_as_long_as_it_is_above_nothing(seed, space, count):
    stats = made_stats(seed, space=space, sums=True)
    found = difference(stats, per_language=count)
    assert list(found) == stats.languages
    for language in stats.languages:
        gap = gaps(stats, language)
        above = sorted((j for j in range(len(space)) if gap[j] > 0), key=lambda j: -gap[j])
        assert set(found[language]) == set(above[:count])


@LAW
@given(SEED, st.permutations(["en", "fr", "zh", "de"]))
def test_the_order_of_the_languages_changes_nothing(seed, order):
    stats = made_stats(seed, ["en", "fr", "zh", "de"], sums=True)
    other = dataclasses.replace(stats, by_language={k: stats[k] for k in order})
    assert all(difference(stats, per_language=5)[k] == difference(other, per_language=5)[k] for k in order)


@LAW
@given(SEED, st.integers(1, 10), st.integers(1, 10))
def test_a_larger_set_holds_the_smaller(seed, few, more):
    stats = made_stats(seed, sums=True)
    small, large = (difference(stats, per_language=n) for n in sorted((few, more)))
    assert all(set(small[k]) <= set(large[k]) for k in stats.languages)


def test_it_says_how_it_was_found_and_from_what(tmp_path):
    stats = made_stats(sums=True)
    found = identify(stats, "difference", per_language=3)
    assert (found.method, found.options, found.manifest) == ("difference", PLAIN | {"per_language": 3}, stats.manifest)
    assert found.stability == {}
    everything = {int(one) for k in stats.languages for one in stats[k].fingerprints}
    assert set(found.fingerprints.tolist()) == everything
    loaded = LanguageNeurons.load(found.save(tmp_path / "a.safetensors"))
    assert (loaded.sets, loaded.method, loaded.options) == (found.sets, found.method, found.options)


def test_options_are_keywords():
    stats = made_stats(sums=True)
    assert difference(stats).options == PLAIN
    assert difference(stats, per_language=4).options == PLAIN | {"per_language": 4}


@pytest.mark.parametrize(
    ("options", "says"),
    [({"per_language": 0}, "1 or more"), ({"folds": [0, 1]}, "fold")],
)
def test_what_it_cannot_do_is_refused(options, says):
    with pytest.raises(OptionError, match=says):
        difference(made_stats(sums=True), **options)


def test_it_needs_sums():
    with pytest.raises(OptionError, match="lape record"):
        difference(made_stats())
    counts = ActivationStats.from_counts(["en", "fr"], [5, 5], torch.ones(2, 1, 3, dtype=torch.int64))
    with pytest.raises(OptionError, match="lape record"):
        difference(counts)


@pytest.mark.parametrize("of", ["activation", "probability"])
def test_neurons_of_experts_that_few_tokens_reached_are_not_chosen(of):
    stats = made_stats(space=EXPERTS, sums=True)
    stats["fr"].tensors["routed"][:, 1] = 10
    assert not set(difference(stats, per_language=13, of=of).union) & {5, 6, 7, 8}
