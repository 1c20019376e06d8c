"""What is fluent: at most as unlikely and as repetitive as native answers, with a guarantee for a fresh one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.errors import OptionError
from lape.measure.answer_fluency import Bounds, Written, joint_rank, repetition, written
from lape.model.loss import find_head
from support.brute import logits_of, model_of, some_texts, tokenizer_of


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab 猫", max_size=30))
def test_repetition_is_the_share_of_4_grams_that_occurred_before(text):
    grams = [text[at : at + 4] for at in range(len(text) - 3)]
    again = sum(gram in grams[:at] for at, gram in enumerate(grams))
    assert repetition(text) == pytest.approx(again / len(grams) if grams else 0)


@pytest.mark.parametrize("bos", [True, False])
def test_what_the_model_thinks_of_an_answer_alone_is_the_loss_of_its_full_logits(bos):
    model, tokenizer = model_of("llama"), tokenizer_of(bos)
    texts = [*some_texts(4, 3), "", "a"]
    for text, one in zip(texts, written(model, tokenizer, find_head(model), texts), strict=True):
        ids = tokenizer_of(False)(text)["input_ids"]
        scored = ids if bos else ids[1:]
        row = [1, *ids] if bos else ids
        logs = logits_of(model, torch.tensor([row]))[0].log_softmax(-1) if scored else None
        expected = [-float(logs[k, token]) for k, token in enumerate(row[1:])]
        np.testing.assert_allclose(one.nll, expected, rtol=2e-6, atol=2e-5)
        ends = [len(tokenizer.decode(ids[: k + 1])) for k in range(len(ids))]
        assert one.ends.tolist() == ends[len(ids) - len(scored) :]
        if scored:
            assert one.at(3)[0] == pytest.approx(np.mean(expected[:3]), rel=1e-5)
            assert one.at(999)[1] == pytest.approx(repetition(text))
            first = text[: ends[min(3, len(scored)) - 1 + len(ids) - len(scored)]]
            assert one.at(3)[1] == pytest.approx(repetition(first))


# --- the rank ---


def rank_by_hand(values):
    """From the definition: a fresh answer ranks within the ⌈.95 (n + 1)⌉ best, were every other pushed down by it."""
    n = len(values)
    wanted = math.ceil(19 * (n + 1) / 20)
    pushed = sorted(max(2 + sum(other[k] < one[k] for other in values) for k in range(2)) for one in values)
    return pushed[wanted - 1] if n >= 59 else n


@settings(max_examples=80, deadline=None)
@given(st.integers(19, 130), st.integers(0, 10_000), st.booleans())
def test_the_rank_is_that_of_the_definition_and_never_above_the_number_of_answers(n, seed, tied):
    values = np.random.default_rng(seed).normal(size=(n, 2))
    values = np.round(values) if tied else values
    assert joint_rank(values) == rank_by_hand(values.tolist())
    assert 1 <= joint_rank(values) <= n


def drawn(random, count, kind):
    """(…, 2) skewed measures of native answers, independent, alike, or against each other; or one of them mostly 0."""
    normal = random.normal(size=(*count, 2))
    if kind in ("alike", "against"):
        normal[..., 1] = (0.8 if kind == "alike" else -0.8) * normal[..., 0] + 0.6 * normal[..., 1]
    values = np.exp(normal)
    if kind == "mostly 0":
        values[..., 1] = np.maximum(0, np.round(normal[..., 1] - 0.8, 1))
    return values


def coverage(n, kind, runs=400):
    random = np.random.default_rng(n)
    found = []
    for native, fresh in zip(drawn(random, (runs, n), kind), drawn(random, (runs, 150), kind), strict=True):
        bounds = np.sort(native, axis=0)[joint_rank(native) - 1]
        found.append((fresh <= bounds).all(1).mean())
    return np.mean(found)


@pytest.mark.parametrize("kind", ["independent", "alike", "against", "mostly 0"])
@pytest.mark.parametrize("n", [40, 100, 150])
def test_a_fresh_native_answer_is_within_both_bounds_19_times_in_20_and_not_much_oftener(n, kind):
    assert 0.945 <= coverage(n, kind) <= 0.975


def test_with_19_answers_it_is_9_times_in_10():
    assert 0.89 <= coverage(19, "independent") <= 0.93


def test_two_sided_quantiles_of_24_answers_covered_less():
    """What counted as fluent before: the central 95 % of 24 answers in each measure."""
    random = np.random.default_rng(0)
    native, fresh = drawn(random, (400, 24), "independent"), drawn(random, (400, 150), "independent")
    low, high = np.quantile(native, [0.025, 0.975], axis=1)
    before = ((fresh >= low[:, None]) & (fresh <= high[:, None])).all(2).mean()
    assert before == pytest.approx(0.78, abs=0.02)
    assert before + 0.1 < coverage(24, "independent")


# --- the bounds ---


def made(length, random, shift=0.0, alphabet="ab"):
    """An answer of so many tokens of 1 to 3 letters."""
    sizes = random.integers(1, 4, length)
    text = "".join(random.choice(list(alphabet), sizes.sum()))
    return Written(text, random.normal(3 + shift, 1, length), np.cumsum(sizes))


def fluent_by_hand(native, answer):
    """At most the bounds of the native answers of at least its length, cut to it; half of them, 19 to 39, must be as long."""
    lengths = sorted((len(one.nll) for one in native if len(one.nll)), reverse=True)
    tokens = min(len(answer.nll), lengths[max(19, min(39, len(lengths) // 2)) - 1])
    if tokens == 0:
        return False, 0

    def measured(one):
        return np.mean(one.nll[:tokens]), repetition(one.text[: one.ends[tokens - 1]])

    of = [measured(one) for one in native if len(one.nll) >= tokens]
    at = rank_by_hand(of)
    return all(measured(answer)[k] <= sorted(one[k] for one in of)[at - 1] for k in range(2)), len(of)


@pytest.mark.parametrize("count", [24, 60, 130])
def test_an_answer_is_fluent_at_most_at_the_bounds_of_its_length(count):
    random = np.random.default_rng(count)
    native = [made(int(random.integers(0, 25)), random) for _ in range(count)]
    answers = [made(int(random.integers(0, 40)), random, random.choice([0, 0.7, -1])) for _ in range(60)]
    bounds = Bounds(native)
    found = [(bounds.fluent(answer), bounds.calibrated_on(answer)) for answer in answers]
    assert found == [fluent_by_hand(native, answer) for answer in answers]
    assert {True, False} == {fluent for fluent, _ in found}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.integers(1, 30), st.floats(0, 9), st.integers(19, 70))
def test_a_likelier_answer_is_never_less_fluent_nor_a_less_repetitive_one(seed, length, likelier, count):
    random = np.random.default_rng(seed)
    bounds = Bounds([made(int(random.integers(5, 20)), random, alphabet="abc") for _ in range(count)])
    answer = made(length, random, 0.5, "abc")
    better = Written(answer.text, answer.nll - likelier, answer.ends)
    letters = iter(map(chr, range(0x4E00, 0x9000)))
    varied = Written("".join(next(letters) for _ in answer.text), answer.nll, answer.ends)
    for other in (better, varied):
        assert bounds.fluent(other) >= bounds.fluent(answer)


@pytest.mark.parametrize(("shift", "alphabet", "fluent"), [(9, "abcdefghij", 0), (0, "a", 0), (-9, "abcdefghij", 1)])
def test_loss_or_repetition_too_high_is_not_fluent_and_too_low_there_is_none(shift, alphabet, fluent):
    random = np.random.default_rng(1)
    letters = "".join(chr(0x4E00 + k) for k in range(500))
    bounds = Bounds([made(15, random, alphabet=letters[:60]) for _ in range(40)])
    answers = [made(15, random, shift, letters if fluent else alphabet) for _ in range(10)]
    assert [bounds.fluent(one) for one in answers] == [bool(fluent)] * 10


@pytest.mark.parametrize("held", [18, 19])
def test_bounds_need_19_native_answers_that_are_not_empty(held):
    random = np.random.default_rng(2)
    native = [made(5 if k < held else 0, random) for k in range(30)]
    if held < 19:
        with pytest.raises(OptionError, match=r"Only 18 native answers.*at least 19, better 100: ask 1 more"):
            Bounds(native)
    else:
        assert not Bounds(native).fluent(made(0, random))
        assert Bounds(native).calibrated_on(made(0, random)) == 0
