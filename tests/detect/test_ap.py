"""Average precision of a neuron's answer to single texts: the definition threshold by threshold, and planted neurons."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.detect.ap import ap, average_precision
from lape.values.space import NeuronSpace
from lape.values.stats import LanguageStats
from support.made import DENSE, EXPERTS, made_stats

LAW = settings(deadline=None, max_examples=40)
SEED = st.integers(0, 2**32)
SPACE = st.sampled_from([DENSE, EXPERTS])


def with_texts(seed=0, space=DENSE, languages=("en", "fr", "zh"), texts=(9, 14)):
    """Made statistics with random answers, many of them equal."""
    stats, random = made_stats(seed, languages, space), torch.Generator().manual_seed(seed)
    by_language = {}
    for k in languages:
        count = int(torch.randint(*texts, (1,), generator=random))
        answers = (torch.randn(count, len(space), generator=random) * 4).round().half() / 4
        by_language[k] = LanguageStats({**stats[k].tensors, "texts": answers})
    return dataclasses.replace(stats, by_language=by_language)


def precision_by_thresholds(scores, labels):
    """Σ (recall − recall before) · precision over the different scores, from the largest down."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = [label for score, label in zip(scores, labels, strict=True) if score >= threshold]
        recall = sum(taken) / sum(labels)
        total += (recall - before) * sum(taken) / len(taken)
        before = recall
    return total


def expected(stats, language, neuron):
    scores = [float(x) for k in stats.languages for x in stats[k].extra("texts")[:, neuron]]
    labels = [k == language for k in stats.languages for _ in stats[k].extra("texts")]
    return precision_by_thresholds(scores, labels)


def test_the_definition_on_a_case_worked_out_by_hand():
    # Scores 4, 3, 3, 1 of a positive, a positive, a negative and a positive: 1/3 · 1 + 1/3 · 2/3 + 1/3 · 3/4.
    own, other = torch.tensor([[4.0], [3.0], [1.0]]).half(), torch.tensor([[3.0]]).half()
    assert average_precision([own, other])[0].item() == pytest.approx((1 + 2 / 3 + 3 / 4) / 3, abs=1e-15)


@LAW
@given(SEED)
def test_average_precision_is_the_sum_over_thresholds(seed):
    stats = with_texts(seed)
    found = average_precision([stats[k].extra("texts") for k in stats.languages])
    assert (found.dtype, found.shape) == (torch.float64, (3, 20))
    for row, language in zip(found, stats.languages, strict=True):
        for neuron in range(20):
            assert row[neuron].item() == pytest.approx(expected(stats, language, neuron), abs=1e-12)


def test_numbers_of_any_size_and_sign_are_ranked_right():
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16)
    finite = numbers[torch.isfinite(numbers)]
    chosen = finite[torch.randperm(len(finite), generator=torch.Generator().manual_seed(1))[:40]]
    chosen = torch.cat([chosen, finite[1000:1010], finite[-1010:-1000]])  # neighbours below 0 and above it
    answers = torch.cat([chosen, torch.tensor([0.0, -0.0, 6e-8, -6e-8, 65504, -65504]).half()])[:, None]
    found = average_precision([answers[::2], answers[1::2]])
    scores = answers[::2, 0].tolist() + answers[1::2, 0].tolist()
    assert found[0].item() == pytest.approx(precision_by_thresholds(scores, [1] * 33 + [0] * 33), abs=1e-12)


def test_more_neurons_than_are_ranked_at_once():
    stats = with_texts(3, NeuronSpace.dense(1, 700), texts=(3, 6))
    found = average_precision([stats[k].extra("texts") for k in stats.languages])
    for neuron in (0, 255, 256, 511, 512, 699):
        assert found[1, neuron].item() == pytest.approx(expected(stats, "fr", neuron), abs=1e-12)


@LAW
@given(SEED)
def test_the_order_of_texts_and_a_larger_scale_change_no_bit(seed):
    answers = [s.extra("texts") for s in with_texts(seed).by_language.values()]
    random = torch.Generator().manual_seed(seed)
    mixed = [one[torch.randperm(len(one), generator=random)] * 2 for one in answers]
    assert torch.equal(average_precision(answers), average_precision(mixed))


def test_equal_neurons_have_equal_precision_wherever_they_lie():
    answers = [torch.randn(40, 1, generator=torch.Generator().manual_seed(k)).half().repeat(1, 600) for k in range(3)]
    found = average_precision(answers)
    assert torch.equal(found, found[:, :1].expand(3, 600))


def test_a_language_without_texts_has_no_precision_and_no_neurons():
    stats = with_texts()
    stats["zh"].tensors["texts"] = stats["zh"].tensors["texts"][:0]
    found = ap(stats, per_language=4)
    assert [len(found[k]) for k in stats.languages] == [4, 4, 0]
    assert found.notes == ("zh: only 0 neurons can be ranked.",)


@LAW
@given(SEED, SPACE, st.integers(1, 12), st.sampled_from(["both", "top", "bottom"]))
def test_neurons_of_largest_and_smallest_precision_are_chosen(seed, space, count, side):
    stats = with_texts(seed, space)
    found = ap(stats, per_language=count, side=side)
    rows = average_precision([stats[k].extra("texts") for k in stats.languages])
    rising = {
        k: sorted(range(len(space)), key=lambda j, row=row: (float(row[j]), j))
        for k, row in zip(found, rows, strict=True)
    }
    falling = {
        k: sorted(range(len(space)), key=lambda j, row=row: (-float(row[j]), j))
        for k, row in zip(found, rows, strict=True)
    }
    top = {"both": count - count // 2, "top": count, "bottom": 0}[side]
    for k in stats.languages:
        high = falling[k][:top]
        low = [j for j in rising[k] if j not in high][: count - top]
        assert set(found[k]) == set(high) | set(low)


def test_where_all_are_equal_the_two_sides_still_share_no_neuron():
    stats = with_texts()
    for k in stats.languages:
        stats[k].tensors["texts"].fill_(1)
    assert list(ap(stats, per_language=7)["fr"]) == [0, 1, 2, 3, 4, 5, 6]


def test_planted_neurons_come_out_on_their_side():
    languages, random = ["en", "fr", "zh"], torch.Generator().manual_seed(0)
    answers = {k: torch.rand(50, 40, generator=random) for k in languages}
    answers["fr"][:, 7] += 3  # answers to French only
    answers["fr"][:, 8] -= 3  # quiet in French only
    for k in languages:
        answers[k][:, 9] += 5  # active in all of them
    answers["en"][:, 10] += 2  # answers to two languages
    answers["zh"][:, 10] += 2
    stats = made_stats(languages=languages, space=NeuronSpace.dense(1, 40))
    tensors = {k: {**stats[k].tensors, "texts": answers[k].half()} for k in languages}
    stats = dataclasses.replace(stats, by_language={k: LanguageStats(tensors[k]) for k in languages})
    assert list(ap(stats, per_language=1, side="top")["fr"]) == [7]
    assert set(ap(stats, per_language=2, side="bottom")["fr"]) == {8, 10}
    assert {7, 8} <= set(ap(stats, per_language=4)["fr"])
    assert not any(9 in one for one in ap(stats, per_language=4).sets.values())
