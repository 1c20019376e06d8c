"""The neurons that fire most often: the rule by hand."""

from __future__ import annotations

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from lape.detect.lap import lap
from support.made import DENSE, EXPERTS, made_stats
from support.published_lape import table

LAW = settings(deadline=None, max_examples=40)
SEED = st.integers(0, 2**32)
SPACE = st.sampled_from([DENSE, EXPERTS])


def often(stats, language, denominator="tokens", folds=range(8)):
    """The share of a language's tokens, or of those that reached the neuron, on which each neuron fires."""
    one, result = stats[language], []
    for s, stretch in enumerate(stats.space):
        for j in range(stretch.start, stretch.stop):
            of = one.tokens if denominator == "tokens" else one.routed[:, s]
            result.append(sum(int(one.fires[k, j]) for k in folds) / max(sum(int(of[k]) for k in folds), 1))
    return result


def first(values, count):
    return set(sorted((j for j, x in enumerate(values) if x > 0), key=lambda j: (-values[j], j))[:count])


@LAW
@given(SEED, SPACE, st.integers(1, 25), st.sampled_from(["tokens", "routed"]))
def test_the_neurons_that_fire_most_often_are_chosen(seed, space, count, denominator):
    stats = made_stats(seed, space=space)
    found = lap(stats, per_language=count, denominator=denominator)
    for language in stats.languages:
        assert set(found[language]) == first(often(stats, language, denominator), count)


@LAW
@given(SEED, st.permutations(["en", "fr", "zh", "de"]))
def test_other_languages_change_nothing(seed, order):
    stats = made_stats(seed, ["en", "fr", "zh", "de"])
    fewer = dataclasses.replace(stats, by_language={k: stats[k] for k in order[:2]})
    assert all(lap(stats, per_language=5)[k] == lap(fewer, per_language=5)[k] for k in order[:2])


def test_what_fires_everywhere_is_in_every_set():
    found = lap(table([99, 50, 1, 0], [99, 1, 50, 0], [99, 1, 1, 2]), per_language=2)
    assert [list(one) for one in found.sets.values()] == [[0, 1], [0, 2], [0, 3]]


def test_equal_probabilities_take_the_lower_index_first():
    found = lap(table([7, 7, 7, 7], [0, 7, 7, 9]), per_language=2)
    assert [list(one) for one in found.sets.values()] == [[0, 1], [1, 3]]


def test_a_neuron_that_never_fires_is_not_chosen_and_a_note_names_the_language():
    found = lap(table([5, 5, 0, 0], [5, 5, 5, 0]), per_language=3)
    assert [list(one) for one in found.sets.values()] == [[0, 1], [0, 1, 2]]
    assert found.notes == ("en: only 2 neurons fire at all.",)
