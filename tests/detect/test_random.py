"""Random neurons of each language: every neuron alike, the same from the same seed, and nothing read."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from lape import identify
from lape.detect.random import random
from lape.errors import OptionError
from lape.values.neurons import LanguageNeurons
from support.made import DENSE, EXPERTS, made_stats

LAW = settings(deadline=None, max_examples=40)
SEED = st.integers(0, 2**62)


@LAW
@given(SEED, st.sampled_from([DENSE, EXPERTS]), st.integers(1, 30))
def test_each_language_gets_its_number_or_all_there_are(seed, space, count):
    found = random(made_stats(space=space), seed=seed, per_language=count)
    assert [len(one) for one in found.sets.values()] == [min(count, len(space))] * 3


@LAW
@given(SEED, st.integers(1, 20), st.integers(1, 20))
def test_the_larger_draw_of_a_seed_holds_the_smaller(seed, few, more):
    small, large = (random(made_stats(), seed=seed, per_language=n) for n in sorted((few, more)))
    assert all(set(small[k]) <= set(large[k]) for k in small)


@LAW
@given(SEED, SEED, SEED)
def test_the_counts_and_the_folds_change_nothing_and_the_seed_does_all(a, b, seed):
    first, second = random(made_stats(a), seed=seed), random(made_stats(b), seed=seed, folds=[0, 3])
    assert first.sets == second.sets


def test_other_seeds_draw_other_neurons_and_so_do_other_languages():
    drawn = {tuple(one) for seed in range(20) for one in random(made_stats(), seed=seed, per_language=10).sets.values()}
    assert len(drawn) > 55, "60 draws of 10 out of 20"


def test_every_neuron_is_drawn_equally_often():
    draws, size = 1000, 5
    hits = Counter(
        neuron
        for seed in range(draws)
        for one in random(made_stats(), seed=seed, per_language=size).sets.values()
        for neuron in one
    )
    low, high = binom.interval(1 - 1e-5, draws * 3, size / len(DENSE))
    assert all(low <= hits[j] <= high for j in range(len(DENSE)))


def test_the_draws_of_two_languages_are_independent():
    draws, size = 1000, 5
    shared = 0
    for seed in range(draws):
        found = random(made_stats(), seed=seed, per_language=size)
        shared += len(found["en"] & found["fr"])
    expected = draws * size * size / len(DENSE)
    assert abs(shared - expected) < 0.1 * expected


def test_it_says_how_it_was_found_and_has_no_stability(tmp_path):
    stats = made_stats()
    found = identify(stats, "random", per_language=3, seed=4)
    assert (found.method, found.options, found.manifest) == ("random", {"per_language": 3, "seed": 4}, stats.manifest)
    assert (found.stability, found.scores) == ({}, None)
    assert LanguageNeurons.load(found.save(tmp_path / "a.safetensors")) == found


def test_options_are_keywords():
    stats = made_stats()
    assert random(stats).options == {"per_language": 100, "seed": 0}
    assert random(stats, per_language=4, seed=3).options == {"per_language": 4, "seed": 3}


def test_what_it_cannot_do_is_refused():
    with pytest.raises(OptionError, match="1 or more"):
        random(made_stats(), per_language=0)
