"""LAVE: the published selection by hand, on how strongly neurons are active instead of how often they fire."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lape import identify
from lape.detect.lave import lave
from lape.values.space import NeuronSpace
from support.made import DENSE, EXPERTS, made_stats
from support.published_lape import entropy_by_hand, per_language_by_hand, percentile_by_hand, published

LAW = settings(deadline=None, max_examples=40)
SEED = st.integers(0, 2**32)
SHARE = st.sampled_from([0.1, 0.3, 0.5, 0.8, 0.95])
WIDE = NeuronSpace.dense(2, 40)


def strong(seed, languages=("en", "fr", "zh"), space=WIDE):
    """Statistics whose positive sums are not negative, as real ones are; some are 0."""
    stats = made_stats(seed, languages, space, sums=True)
    for language in languages:
        stats[language].tensors["positive"].abs_()[::7] = 0
    return stats


def strength(stats, denominator="tokens"):
    """E_k[max(a, 0)] of every language and neuron."""
    rows = []
    for language in stats.languages:
        one, row = stats[language], []
        for s, stretch in enumerate(stats.space):
            of = int(one.tokens.sum()) if denominator == "tokens" else int(one.routed[:, s].sum())
            row += [float(one.sums("positive")[j]) / of for j in range(stretch.start, stretch.stop)]
        rows.append(row)
    return rows


def sets(found):
    return [list(one) for one in found.sets.values()]


@LAW
@given(SEED, SHARE, SHARE, SHARE, st.sampled_from([WIDE, EXPERTS]), st.sampled_from(["tokens", "routed"]))
def test_the_selection_is_the_published_one_on_strengths(seed, rate, filter_, bar, space, denominator):
    stats = strong(seed, space=space)
    found = lave(stats, rate=rate, filter=filter_, bar=bar, denominator=denominator)
    assert sets(found) == published(strength(stats, denominator), rate, filter_, bar)


@LAW
@given(SEED, SHARE, st.integers(1, 30))
def test_a_number_per_language_is_that_of_lape_on_strengths(seed, bar, count):
    stats = strong(seed)
    found = lave(stats, per_language=count, bar=bar, filter=bar)
    assert sets(found) == per_language_by_hand(strength(stats), bar, count)


@LAW
@given(SEED)
def test_how_often_neurons_fire_and_negative_activations_change_nothing(seed):
    stats, other = strong(seed), made_stats(seed + 1, space=WIDE, sums=True)
    kept = ("tokens", "routed", "positive")
    changed = {
        k: dataclasses.replace(stats[k], tensors={**other[k].tensors, **{n: stats[k].tensors[n] for n in kept}})
        for k in stats.languages
    }
    options = {"rate": 0.2, "filter": 0.7, "bar": 0.7}
    assert sets(lave(dataclasses.replace(stats, by_language=changed), **options)) == sets(lave(stats, **options))


def test_a_strong_neuron_that_fires_rarely_is_found_where_lape_misses_it():
    stats = strong(0, space=DENSE)
    for language in stats.languages:
        stats[language].tensors["fires"][:, :10] = 200
        stats[language].tensors["fires"][:, 10:] = 1
        stats[language].tensors["positive"].fill_(10.0)
    stats["fr"].tensors["positive"][15] = 10_000.0
    options = {"rate": 0.05, "filter": 0.95, "bar": 0.95}
    assert sets(lave(stats, **options)) == [[], [15], []]
    assert not set(identify(stats, **options, reliability=False).union) & {15}


def test_at_any_rate_candidates_alone_are_chosen_and_their_scores_are_entropies():
    stats = strong(3)
    v = strength(stats)
    found = lave(stats, rate=0.99, filter=0.8, bar=0.8)
    threshold = percentile_by_hand(v, 0.8)
    candidates = [j for j in range(len(v[0])) if max(row[j] for row in v) > threshold]
    assert list(found.union) == candidates
    assert found.scores.tolist() == pytest.approx(
        [entropy_by_hand([row[j] for row in v]) for j in candidates], abs=1e-12
    )
    found = lave(stats, filter=0.8, bar=0.9)
    assert found.options["threshold"] == pytest.approx(threshold)
    assert found.options["bars"] == pytest.approx(dict.fromkeys(stats.languages, percentile_by_hand(v, 0.9)))
