"""Entropy minus λ times the largest probability, both normalised: the released rule in plain loops, and its search for λ."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape import identify
from lape.detect.alignment import alignment, bisected
from lape.values.stats import ActivationStats
from support import published_alignment as published
from support.published_lape import counts, percentile_by_hand, table

LAW = settings(deadline=None, max_examples=60)
SEED = st.integers(0, 2**32)
SHARE = st.sampled_from([0.05, 0.1, 0.3, 0.5, 0.8])
WEIGHT = st.sampled_from([0.0, 0.05, 0.109375, 0.2, 1.0, 5.0])
TAGS = ["en", "zh", "fr", "es", "vi", "id", "ja", "ru", "bn", "th"]
CLOSE = 1e-12


def drawn(seed, languages, neurons=60):
    """(tokens, fires): some neurons never fire, some fire in one language alone, some are equal, some were counted too often."""
    random = np.random.default_rng(seed)
    tokens = random.integers(10**6, 10**7, languages)
    fires = random.binomial(tokens[:, None], random.beta(0.4, 2, (languages, neurons)))
    fires[:, random.random(neurons) < 0.1] = 0
    alone = random.random(neurons) < 0.1
    fires[1:, alone] = 0
    fires[:, random.integers(neurons)] = fires[:, 0]
    over = random.random((languages, neurons)) < 0.03
    fires[over] = (tokens[:, None] + random.integers(1, 5, (languages, neurons)))[over]
    return tokens.tolist(), fires.tolist()


def stats_of(tokens, fires):
    return ActivationStats.from_counts(TAGS[: len(tokens)], tokens, torch.tensor(fires)[:, None, :])


def sets(found):
    return [list(one) for one in found.sets.values()]


# The released rule


@pytest.mark.filterwarnings("ignore::lape.errors.LapeWarning")
@LAW
@given(SEED, st.integers(2, 10), SHARE, SHARE, WEIGHT)
def test_with_a_given_weight_it_is_the_released_rule(seed, languages, rate, bar, weight):
    tokens, fires = drawn(seed, languages)
    p = published.probabilities(tokens, fires)
    found = alignment(stats_of(tokens, fires), weight=weight, rate=rate, bar=bar)
    assert sets(found) == published.sets(p, weight, rate, bar)
    assert found.options["kept_by_languages"] == published.by_languages(p, weight, rate, bar)
    assert found.options["λ"] == weight
    every = published.scores(p, weight)
    assert found.scores.tolist() == pytest.approx([every[j] for j in found.union], abs=CLOSE)


@pytest.mark.filterwarnings("ignore::lape.errors.LapeWarning")
@settings(deadline=None, max_examples=150)
@given(
    st.integers(2, 4).flatmap(
        lambda k: st.lists(st.lists(st.integers(0, 4), min_size=k, max_size=k), min_size=2, max_size=12)
    ),
    SHARE,
    WEIGHT,
)
def test_equal_scores_are_as_in_the_released_rule_up_to_rounding(columns, rate, weight):
    # Of 3 tokens, so that many scores are equal, some counts are too large, and many neurons never fire.
    fires = [list(row) for row in zip(*columns, strict=True)]
    tokens = [3] * len(fires)
    p = published.probabilities(tokens, fires)
    mine = sets(alignment(stats_of(tokens, fires), weight=weight, rate=rate, bar=0.3))
    value, count = published.scores(p, weight), round(rate * len(columns))
    for own, theirs in zip(mine, published.sets(p, weight, rate, 0.3), strict=True):
        for j in set(own) ^ set(theirs):
            assert value[j] == pytest.approx(sorted(value)[count - 1], abs=CLOSE), "a tie for the last place"
        assert all(columns.index(columns[j]) in own for j in own), "of equal neurons the first"


def test_by_hand_of_four_neurons():
    # H / ln 2 − 1 · max / (1.5 / 2)
    stats = table([90, 50, 0, 10], [0, 50, 0, 10])
    found = alignment(stats, weight=1.0, rate=0.99, bar=0.01)
    assert found.scores.tolist() == pytest.approx([0 - 0.9 / 0.75, 1 - 0.5 / 0.75, 1 - 0.1 / 0.75])
    assert sets(found) == [[0, 1, 3], [1, 3]]
    assert found.options["kept_by_languages"] == [1, 1, 2], "the neuron that never fires is kept, and belongs to none"


def test_a_neuron_that_never_fires_comes_last_and_not_first_as_its_entropy_of_0_would():
    stats = table([0, 99, 5, 5], [0, 0, 5, 5])
    assert sets(alignment(stats, weight=0.0, rate=0.25, bar=0.5)) == [[1], []]
    assert sets(alignment(stats, weight=0.1, rate=0.75, bar=0.3)) == [[1, 2, 3], [2, 3]]


def test_there_is_no_filter_unless_one_is_given():
    # The second neuron is of French alone, but rare.
    stats = table([99, 0, 90, 90], [0, 3, 90, 90])
    plain = alignment(stats, weight=0.01, rate=0.5, bar=0.7)
    assert sets(plain) == [[0], []]
    assert plain.options["kept_by_languages"] == [1, 1, 0]
    assert "1 of 2 kept neurons" in plain.notes[0]
    filtered = alignment(stats, weight=0.01, rate=0.5, bar=0.7, filter=0.7)
    assert filtered.options["kept_by_languages"] == [0, 1, 0]
    assert filtered.notes == ()
    assert plain == alignment(stats, weight=0.01, rate=0.5, bar=0.7, filter=0)


@LAW
@given(SEED, st.integers(2, 5), SHARE, SHARE, SHARE, st.sampled_from([0.0, 0.1, 1.0, 3.0]))
def test_with_a_filter_only_candidates_are_kept(seed, languages, rate, filter_, bar, weight):
    stats = counts(seed, languages)
    p = stats.probabilities().tolist()
    threshold, limit = percentile_by_hand(p, filter_), percentile_by_hand(p, bar)
    candidates = [j for j in range(len(p[0])) if any(row[j] > threshold for row in p)]
    value = published.scores(p, weight)
    kept = sorted(candidates, key=lambda j: (value[j], j))[: round(rate * len(p[0]))]
    found = alignment(stats, weight=weight, rate=rate, filter=filter_, bar=bar)
    assert sets(found) == [sorted(j for j in kept if row[j] > limit) for row in p]


@LAW
@given(SEED, SHARE, SHARE)
def test_weight_0_with_lapes_filter_is_lape(seed, rate, filter_):
    stats = counts(seed)
    options = {"rate": rate, "filter": filter_, "bar": filter_}
    assert sets(alignment(stats, weight=0.0, **options)) == sets(identify(stats, reliability=False, **options))


# The search for λ


@pytest.mark.filterwarnings("ignore::lape.errors.LapeWarning")
@LAW
@given(SEED, st.integers(2, 10), SHARE, SHARE)
def test_the_weight_is_found_as_the_released_search_finds_it(seed, languages, rate, bar):
    tokens, fires = drawn(seed, languages)
    p = published.probabilities(tokens, fires)
    found, expected = alignment(stats_of(tokens, fires), rate=rate, bar=bar), published.sweep(p, rate, bar)
    assert found.options["weight"] == "auto"
    if expected is None:
        assert found.options["λ"] == 0
        assert "every language" in found.notes[0]
    else:
        assert found.options["λ"] == expected
        assert found.options["kept_by_languages"][-1] == 0
    assert sets(found) == published.sets(p, expected or 0.0, rate, bar)


def test_the_weight_stops_where_a_neuron_of_every_language_would_come_first():
    # At λ the first has .918 − .4 λ, the second, above the bar in both, 1 − 1.2 λ: it is ahead from λ = .1021 on.
    stats = table([30, 90, 10, 10], [15, 90, 10, 10])
    found = alignment(stats, rate=0.25, bar=0.6)
    assert found.options["λ"] == 0.2 * 130 / 256 < 0.1021 < 0.2 * 131 / 256
    assert sets(found) == [[0], []]
    assert sets(alignment(stats, rate=0.25, bar=0.6, weight=0.103)) == [[1], [1]]


@settings(deadline=None, max_examples=200)
@given(st.floats(0, 0.25))
def test_where_all_weights_up_to_one_pass_it_is_found_to_a_thousandth(largest):
    found = bisected(lambda weight: weight <= largest)
    assert found <= largest
    assert min(largest, 0.2) - found <= 1e-3


def test_where_the_ends_decide():
    assert bisected(lambda _: False) is None
    assert bisected(lambda weight: weight == 0) == 0
    assert bisected(lambda weight: weight in (0, 0.2)) == 0.2
    assert bisected(lambda _: True) == 0.2 * 255 / 256, "one step below the highest, as the released search ends"


def test_a_neuron_of_every_language_that_is_always_first_is_kept_with_a_note():
    found = alignment(table([99, 10, 10, 10], [50, 10, 10, 10]), rate=0.25, bar=0.5)
    assert sets(found) == [[0], [0]]
    assert (found.options["λ"], found.options["kept_by_languages"]) == (0, [0, 0, 1])
    assert "every language" in found.notes[0]


# A number per language, and the rest


@LAW
@given(SEED, st.integers(1, 20), SHARE)
def test_a_number_per_language_takes_the_lowest_scores_above_the_bar(seed, count, bar):
    stats = counts(seed)
    found = alignment(stats, weight=0.7, per_language=count, bar=bar)
    p = stats.probabilities().tolist()
    limit, score = percentile_by_hand(p, bar), published.scores(p, 0.7)
    for row, chosen in zip(p, sets(found), strict=True):
        above = [j for j in range(len(row)) if row[j] > limit]
        assert chosen == sorted(sorted(above, key=lambda j: (score[j], j))[:count])
