"""What languages are compared by, against the definitions, token by token or neuron by neuron."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from lape.detect.contrasts import BY_FOLDS, LEVELS, PAIRS, above_others
from lape.errors import OptionError
from lape.values.histogram import BINS, EDGES
from lape.values.stats import LanguageStats
from support.made import EXPERTS, made_stats

LAW = settings(deadline=None, max_examples=25)
SEED = st.integers(0, 2**32)
LANGUAGES = ("en", "fr", "zh", "de")
EVERY = [*LEVELS, *PAIRS]
AGAINST = st.sampled_from(["mean", "largest"])


def full(seed=0, space=EXPERTS, languages=LANGUAGES):
    """Made statistics with all that is compared."""
    stats, random = made_stats(seed, languages, space, sums=True, written=True), torch.Generator().manual_seed(1)
    columns = torch.rand(len(space), generator=random, dtype=torch.float64) + 0.5
    by_language = {}
    for k in languages:
        tensors = dict(stats[k].tensors)
        routed = space.per_neuron(tensors["routed"].sum(0))
        tensors["square"] = tensors["sum"].square() / routed + tensors["square"]  # no variance below 0
        histogram = torch.randint(0, 20, (len(space), BINS), generator=random)
        by_language[k] = LanguageStats({**tensors, "columns": columns, "histogram": histogram})
    return dataclasses.replace(stats, by_language=by_language)


def moments(stats, language, j):
    """The mean and variance of a neuron's activation over the tokens that reached it."""
    one, stretch = stats[language], next(k for k, part in enumerate(stats.space) if part.start <= j < part.stop)
    count = int(one.routed[:, stretch].sum())
    mean = float(one.sums("sum")[j]) / count
    return mean, float(one.sums("square")[j]) / count - mean**2


def median(values):
    """The lower of the two in the middle, as torch has it."""
    return sorted(values)[(len(values) - 1) // 2]


def by_hand(stats, of, one, other, j):
    """By how much a neuron lies above another language, from the definition."""
    (mean, variance), (their_mean, their_variance) = (moments(stats, k, j) for k in (one, other))
    if of == "activation":
        return mean - their_mean
    tokens = [int(stats[k].tokens.sum()) for k in (one, other)]
    fires = [int(stats[k].fires[:, j].sum()) for k in (one, other)]
    if of == "probability":
        return fires[0] / tokens[0] - fires[1] / tokens[1]
    if of == "log-odds":
        rates = [int(stats[k].fires[:, j].sum()) / int(stats[k].tokens.sum()) for k in stats.languages]
        usual = min(max(sum(rates) / len(rates), 1e-6), 1 - 1e-6)
        yes = [f + 0.1 * n * usual for n, f in zip(tokens, fires, strict=True)]
        no = [n - f + 0.1 * n * (1 - usual) for n, f in zip(tokens, fires, strict=True)]
        error = math.sqrt(sum(1 / x for x in (*yes, *no)))
        return (math.log(yes[0] / no[0]) - math.log(yes[1] / no[1])) / error
    part = next(part for part in stats.space if part.start <= j < part.stop)
    if of == "d-prime":
        around = [moments(stats, k, i)[1] for k in stats.languages for i in range(part.start, part.stop)]
        return (mean - their_mean) / math.sqrt((variance + their_variance) / 2 + median(around))
    if of == "written":
        lengths = [abs(float(stats[k].sums("written")[j])) for k in (one, other)]
        counts = [int(stats[k].routed[:, list(stats.space).index(part)].sum()) for k in (one, other)]
        return (lengths[0] / counts[0] - lengths[1] / counts[1]) * float(stats[one].extra("columns")[j])
    ours, theirs = (stats[k].extra("histogram")[j].tolist() for k in (one, other))
    wins = sum(
        a * b * (1.0 if x > y else 0.5 if x == y else 0.0) for x, a in enumerate(ours) for y, b in enumerate(theirs)
    )
    return wins / (sum(ours) * sum(theirs)) - 0.5


@pytest.mark.parametrize("of", EVERY)
@LAW
@given(seed=SEED, against=AGAINST)
def test_a_neuron_is_as_far_above_the_others_as_the_definition_says(of, seed, against):
    stats = full(seed)
    found = above_others(stats, of, against)
    assert list(found) == stats.languages
    for one in stats.languages:
        for j in (0, 4, 5, 11):
            gaps = [by_hand(stats, of, one, other, j) for other in stats.languages if other != one]
            expected = sum(gaps) / len(gaps) if against == "mean" else min(gaps)
            assert float(found[one][j]) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("of", EVERY)
def test_of_two_languages_what_one_is_above_the_other_is_below(of):
    stats = full(languages=("en", "fr"))
    found = above_others(stats, of, "mean")
    assert torch.allclose(found["en"], -found["fr"], atol=1e-12)
    assert all(torch.allclose(found[k], above_others(stats, of, "largest")[k], atol=1e-12) for k in found)


def test_the_area_is_that_of_the_rank_sum_test_over_the_activations_themselves():
    """Activations that lie in the middle of bins, so that nothing is lost by counting."""
    random = torch.Generator().manual_seed(3)
    middles = (EDGES[25:60] + EDGES[26:61]) / 2
    stats = full(languages=("en", "fr"))
    drawn, by_language = {}, {}
    for k, shift in (("en", 0), ("fr", 4)):
        places = torch.randint(0, 25, (300, len(stats.space)), generator=random) + shift
        drawn[k] = middles[places]
        bins = (drawn[k][:, :, None] > EDGES).sum(2)
        histogram = torch.stack([(bins == b).sum(0) for b in range(BINS)], 1)
        by_language[k] = LanguageStats({**stats[k].tensors, "histogram": histogram})
    found = above_others(dataclasses.replace(stats, by_language=by_language), "distribution", "largest")["fr"]
    for j in range(len(stats.space)):
        area = mannwhitneyu(drawn["fr"][:, j].double(), drawn["en"][:, j].double()).statistic / 300**2
        assert float(found[j]) == pytest.approx(area - 0.5, abs=1e-12)


@pytest.mark.parametrize("of", sorted(BY_FOLDS))
def test_what_is_made_of_counts_can_be_had_of_some_folds(of):
    stats = full()
    half = above_others(stats, of, "largest", folds=[0, 2, 5])
    by_language = {}
    for k in stats.languages:
        tensors = dict(stats[k].tensors)
        by_language[k] = LanguageStats({**tensors, **{n: tensors[n][[0, 2, 5]] for n in ("tokens", "routed", "fires")}})
    alone = above_others(dataclasses.replace(stats, by_language=by_language), of, "largest")
    assert all(torch.equal(half[k], alone[k]) for k in half)


@pytest.mark.parametrize(("of", "flag"), [("written", "--also columns"), ("distribution", "--histogram")])
def test_what_was_not_recorded_is_asked_for_by_its_option(of, flag):
    with pytest.raises(OptionError, match=flag):
        above_others(made_stats(sums=True, written=True), of, "mean")
