"""What all selection methods share: the largest scores, what lies over the others, and how a choice is kept."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.detect import DETECTORS
from lape.detect.common import each, found, languages_of, largest, over_others, short
from lape.detect.identify import identify
from lape.detect.lap import LapOptions
from lape.errors import OptionError
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.profile import Profile
from support.made import made_stats

LAW = settings(deadline=None, max_examples=100)
SCORE = st.one_of(st.integers(-3, 3).map(float), st.sampled_from([math.inf, -math.inf, math.nan]))


def largest_by_hand(scores, count, among):
    usable = [j for j, x in enumerate(scores) if not math.isnan(x) and x != -math.inf and (among is None or among[j])]
    return sorted(usable, key=lambda j: (-scores[j], j))[:count]


@LAW
@given(st.lists(SCORE, max_size=20), st.integers(0, 25), st.data())
def test_the_largest_come_in_order_the_lower_index_first_and_no_non_numbers(scores, count, data):
    among = data.draw(st.none() | st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    allowed = None if among is None else torch.tensor(among, dtype=torch.bool)
    before = None if allowed is None else allowed.clone()
    result = largest(torch.tensor(scores, dtype=torch.float64), count, allowed)
    assert result.tolist() == largest_by_hand(scores, count, among)
    assert result.dtype == torch.int64
    assert allowed is None or torch.equal(allowed, before), "what is passed is left as it was"


TABLE = st.integers(2, 6).flatmap(
    lambda n: st.lists(st.lists(st.integers(-5, 5), min_size=n, max_size=n), min_size=1, max_size=8)
)


@LAW
@given(TABLE, st.sampled_from(["mean", "largest"]))
def test_what_lies_over_the_others(columns, how):
    values = torch.tensor(columns, dtype=torch.float64).T
    result = over_others(values, how)
    for j, column in enumerate(columns):
        for k, own in enumerate(column):
            others = column[:k] + column[k + 1 :]
            expected = own - (sum(others) / len(others) if how == "mean" else max(others))
            assert result[k, j].item() == pytest.approx(expected, abs=1e-12)


@LAW
@given(st.lists(st.lists(st.integers(-4, 4), min_size=20, max_size=20), min_size=3, max_size=3), st.integers(1, 25))
def test_each_language_gets_its_largest_over_a_limit(scores, count):
    stats = made_stats()
    by_language = dict(zip(stats.languages, scores, strict=True))
    for limit in (-math.inf, 0.0):
        result = each(stats, lambda k: torch.tensor(by_language[k], dtype=torch.float64), count, above=limit)
        assert list(result) == stats.languages
        for language, row in by_language.items():
            assert result[language].tolist() == largest_by_hand(row, count, [x > limit for x in row])


def test_a_note_for_each_language_with_too_few():
    flat = {"en": torch.arange(3), "fr": torch.arange(2), "zh": torch.arange(0)}
    assert short(flat, 3, "hum") == ["fr: only 2 neurons hum.", "zh: only 0 neurons hum."]
    assert short(flat, 0, "hum") == []


def test_one_language_alone_is_refused_and_two_are_named_in_order():
    with pytest.raises(OptionError, match=r"Only fr was recorded.*two or more"):
        languages_of(made_stats(languages=["fr"]))
    assert languages_of(made_stats(languages=["zh", "en"])) == ["zh", "en"]


def test_a_choice_keeps_all_that_says_where_it_came_from():
    stats = made_stats()
    flat = {"en": torch.tensor([4, 1, 4]), "fr": torch.tensor([], dtype=torch.int64)}
    scores = torch.rand(len(stats.space), dtype=torch.float64)
    result = found(stats, "mine", LapOptions(7), flat, scores=scores, more={"bar": 0.5}, notes=["so it is"])
    assert {k: list(v) for k, v in result.items()} == {"en": [1, 4], "fr": []}
    assert (result.method, result.options) == ("mine", {"per_language": 7, "denominator": "tokens", "bar": 0.5})
    assert (result.manifest, result.notes, result.space) == (stats.manifest, ("so it is",), stats.space)
    assert torch.equal(result.scores, scores[[1, 4]])
    assert result.profile == Profile.of(stats, torch.tensor([1, 4]), scores)
    every = sorted({f for k in stats.languages for f in stats[k].fingerprints.tolist()})
    assert result.fingerprints.tolist() == every


def test_a_detector_stands_for_its_function_and_its_options():
    stats = made_stats(sums=True)
    assert identify(stats, DETECTORS["lap"], per_language=3) == identify(stats, "lap", per_language=3)
    with pytest.raises(OptionError, match="There is no option per_tongue"):
        identify(stats, DETECTORS["lap"], per_tongue=3)
    with pytest.raises(OptionError, match=r"Expected .*a function stats -> LanguageNeurons, or a Detector"):
        identify(stats, method=3)


def test_sets_of_a_function_of_ones_own_carry_what_the_statistics_say_of_them():
    stats = made_stats(sums=True)
    flat = torch.tensor([1, 5, 9])

    def mine(stats):
        return LanguageNeurons(stats.space, {"fr": NeuronSet(stats.space, flat)})

    neurons = identify(stats, mine)
    assert neurons.profile == Profile.of(stats, flat)
    assert neurons.manifest == neurons["fr"].manifest == stats.manifest
    assert torch.equal(neurons.fingerprints, found(stats, "lap", LapOptions(), {"fr": flat}).fingerprints)
    assert identify(stats, lambda stats: found(stats, "lap", LapOptions(), {"fr": flat})).method == "lap"
