"""Entropy minus λ times the largest probability: the rule by hand, and the search for λ against all λ there are."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lape import identify
from lape.detect.alignment import alignment, largest_weight
from lape.values.stats import ActivationStats
from support.made import DENSE, EXPERTS, made_stats
from support.published_lape import counts, entropy_by_hand, percentile_by_hand, table

LAW = settings(deadline=None, max_examples=60)
SEED = st.integers(0, 2**32)
SHARE = st.sampled_from([0.05, 0.1, 0.3, 0.5, 0.8])


def by_hand(p, weight, rate, filter_, bar):
    """Candidates, and the kept ones of lowest score in order; a kept one is of each language strictly above the bar."""
    neurons = range(len(p[0]))
    threshold, limit = percentile_by_hand(p, filter_), percentile_by_hand(p, bar)
    candidates = [j for j in neurons if any(row[j] > threshold for row in p)]
    score = {j: entropy_by_hand([row[j] for row in p]) - weight * max(row[j] for row in p) for j in candidates}
    kept = sorted(candidates, key=lambda j: (score[j], j))[: round(rate * len(neurons))]
    return [sorted(j for j in kept if row[j] > limit) for row in p]


def sets(found):
    return [list(one) for one in found.sets.values()]


@LAW
@given(SEED, st.integers(2, 5), SHARE, SHARE, SHARE, st.sampled_from([0.0, 0.1, 1.0, 3.0, 50.0]))
def test_with_a_given_weight_it_is_the_rule_by_hand(seed, languages, rate, filter_, bar, weight):
    stats = counts(seed, languages)
    found = alignment(stats, weight=weight, rate=rate, filter=filter_, bar=bar)
    assert sets(found) == by_hand(stats.probabilities().tolist(), weight, rate, filter_, bar)
    assert found.options["λ"] == weight


@LAW
@given(SEED, SHARE, SHARE)
def test_weight_0_is_lape(seed, rate, filter_):
    stats = counts(seed)
    options = {"rate": rate, "filter": filter_, "bar": filter_}
    assert sets(alignment(stats, weight=0.0, **options)) == sets(identify(stats, reliability=False, **options))


# The search for λ


def kept_every(plain, top, every, count, weight):
    """How many of the `count` lowest scores are neurons of every language."""
    order = sorted(range(len(plain)), key=lambda j: (plain[j] - weight * top[j], j))
    return sum(every[j] for j in order[:count])


def scan(plain, top, every, count):
    """The upper end of the last stretch between two crossings of scores in which no neuron of every language is kept."""
    crossings = {0.0, 2.0**20}
    for a in range(len(plain)):
        for b in range(a):
            if top[a] != top[b]:
                crossings.add((plain[a] - plain[b]) / (top[a] - top[b]))
    ends = sorted(x for x in crossings if 0 <= x <= 2.0**20)
    good = [
        upper
        for lower, upper in pairwise(ends)
        if upper - lower > 1e-9 and not kept_every(plain, top, every, count, (lower + upper) / 2)
    ]
    if good:
        return good[-1]
    return 0.0 if not kept_every(plain, top, every, count, 0.0) else None


def searched(plain, top, every, count):
    plain, top = torch.tensor(plain, dtype=torch.float64), torch.tensor(top, dtype=torch.float64)
    return largest_weight(plain, top, torch.tensor(every), count)


def drawn(seed, neurons):
    random = np.random.default_rng(seed)
    plain, top = random.uniform(0, 1.4, neurons), random.uniform(0, 1, neurons)
    if random.random() < 0.5:  # nearly all have their turn at being first
        plain = top**2 + random.normal(0, 0.02, neurons)
    return plain.tolist(), top.tolist(), (random.random(neurons) < random.choice([0.05, 0.2, 0.5])).tolist()


@settings(deadline=None, max_examples=300)
@given(SEED, st.integers(1, 16), st.integers(0, 16))
def test_the_weight_is_that_of_a_scan_over_all(seed, neurons, count):
    plain, top, every = drawn(seed, neurons)
    count = min(count, neurons)
    expected = scan(plain, top, every, count)
    found = searched(plain, top, every, count)
    if expected is None:
        assert found is None
    else:
        assert found == pytest.approx(expected, rel=1e-8, abs=1e-8)
        assert kept_every(plain, top, every, count, found) == 0


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.booleans()), min_size=1, max_size=9), st.integers(0, 9)
)
@example([(1, 2, False), (1, 2, True)], 1)
@example([(1, 2, True), (1, 2, False)], 1)
@example([(1, 2, False), (1, 2, True), (3, 3, True)], 1)
def test_equal_scores_are_no_trouble(lines, count):
    plain, top = [float(a) for a, _, _ in lines], [float(b) for _, b, _ in lines]
    every, count = [c for _, _, c in lines], min(count, len(lines))
    expected = scan(plain, top, every, count)
    found = searched(plain, top, every, count)
    assert found is None if expected is None else found == pytest.approx(expected, rel=1e-8, abs=1e-8)


def test_a_weight_is_found_though_0_is_none():
    plain, top, every = [1.0, 0.5, 9.0], [0.9, 0.2, 2.0], [False, True, False]
    assert [kept_every(plain, top, every, 1, weight) for weight in (0.0, 1.0)] == [1, 0], "not at 0, but at 1"
    found = searched(plain, top, every, 1)
    assert found == 2.0**20


def test_how_many_are_of_every_language_is_not_monotone_and_the_last_stretch_counts():
    plain, top, every = [0.0, 0.5, 9.0, 100.0], [0.1, 1.0, 3.0, 4.0], [False, True, False, True]
    at = [kept_every(plain, top, every, 1, weight) for weight in (0.1, 2.0, 10.0, 1000.0)]
    assert at == [0, 1, 0, 1]
    found = searched(plain, top, every, 1)
    assert found == pytest.approx(91.0)


@LAW
@given(SEED, st.integers(2, 4), SHARE, SHARE)
def test_without_a_weight_no_kept_neuron_is_of_every_language_or_a_note_says_that_it_cannot_be_helped(
    seed, languages, rate, filter_
):
    stats = counts(seed, languages, 1, 30)
    options = {"rate": rate, "filter": filter_, "bar": filter_}
    found = alignment(stats, **options)
    everywhere = set.intersection(*(set(one) for one in found.sets.values()))
    if found.notes:
        assert everywhere
        assert found.options["λ"] == 0
    else:
        assert not everywhere
        again = alignment(stats, weight=found.options["λ"], **options)
        assert sets(again) == sets(found)


def test_a_neuron_of_every_language_that_is_always_first_is_kept_with_a_note():
    stats = table([99, 1, 1, 1], [98, 1, 1, 1])
    found = alignment(stats, rate=0.25, filter=0.5, bar=0.5)
    assert sets(found) == [[0], [0]]
    assert found.options["λ"] == 0
    assert "every language" in found.notes[0]


# A number per language, and the rest


@LAW
@given(SEED, st.integers(1, 20), SHARE)
def test_a_number_per_language_takes_the_lowest_scores_above_the_bar(seed, count, bar):
    stats = counts(seed)
    found = alignment(stats, weight=0.7, per_language=count, bar=bar, filter=bar)
    p = stats.probabilities().tolist()
    limit = percentile_by_hand(p, bar)
    for row, chosen in zip(p, sets(found), strict=True):
        above = [j for j in range(len(row)) if row[j] > limit]
        score = {j: entropy_by_hand([q[j] for q in p]) - 0.7 * max(q[j] for q in p) for j in above}
        assert chosen == sorted(sorted(above, key=lambda j: (score[j], j))[:count])


def test_at_any_rate_candidates_alone_are_chosen_with_their_scores():
    stats = counts(5)
    p = stats.probabilities().tolist()
    found = alignment(stats, rate=0.99, weight=2.0, filter=0.8, bar=0.8)
    threshold = percentile_by_hand(p, 0.8)
    columns = {j: column for j in range(len(p[0])) if max(column := [row[j] for row in p]) > threshold}
    assert list(found.union) == list(columns)
    by_hand = [entropy_by_hand(column) - 2 * max(column) for column in columns.values()]
    assert found.scores.tolist() == pytest.approx(by_hand, abs=1e-12)


@LAW
@given(SEED, st.permutations(range(4)))
def test_the_order_of_languages_changes_no_set(seed, order):
    stats = counts(seed, 4)
    shuffled = dataclasses.replace(stats, by_language={stats.languages[k]: stats[stats.languages[k]] for k in order})
    options = {"rate": 0.1, "filter": 0.8, "bar": 0.8, "weight": 1.0}
    a, b = alignment(stats, **options), alignment(shuffled, **options)
    assert all(a[k] == b[k] for k in stats.languages)


@LAW
@given(SEED, st.sets(st.integers(0, 7), min_size=1))
def test_some_folds_are_statistics_of_those_folds_alone(seed, folds):
    stats, chosen = made_stats(seed), sorted(folds)
    alone = ActivationStats.from_counts(
        stats.languages,
        [int(stats[k].tokens[chosen].sum()) for k in stats.languages],
        torch.stack([stats[k].fires[chosen].sum(0).reshape(2, 10) for k in stats.languages]),
    )
    options = {"rate": 0.3, "filter": 0.6, "bar": 0.6}
    assert sets(alignment(stats, folds=chosen, **options)) == sets(alignment(alone, **options))


def test_neurons_of_experts_that_few_tokens_reached_are_not_scored():
    stats = made_stats(space=EXPERTS)
    stats["fr"].tensors["routed"][:, 1] = 10
    found = alignment(stats, rate=0.9, filter=0.1, bar=0.1)
    assert not set(found.union) & {5, 6, 7, 8}


def test_it_says_how_it_was_found():
    stats = made_stats(space=DENSE)
    found = identify(stats, "alignment", rate=0.2, weight=3.0, filter=0.7)
    assert (found.method, found.options["rate"], found.options["filter"], found.options["λ"]) == (
        "alignment",
        0.2,
        0.7,
        3,
    )
    assert found.manifest == stats.manifest
    assert set(found.stability) == set(stats.languages)
