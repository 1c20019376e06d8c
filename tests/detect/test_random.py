"""Random neurons of each language: every neuron alike, the same from the same seed, and nothing read."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from lape.detect.random import random
from support.made import DENSE, EXPERTS, made_stats

LAW = settings(deadline=None, max_examples=40)
SEED = st.integers(0, 2**62)


@LAW
@given(SEED, st.sampled_from([DENSE, EXPERTS]), st.integers(1, 30))
def test_each_language_gets_its_number_or_all_there_are(seed, space, count):
    found = random(made_stats(space=space), seed=seed, per_language=count)
    assert [len(one) for one in found.sets.values()] == [min(count, len(space))] * 3


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
