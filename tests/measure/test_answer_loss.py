"""The loss of an answer behind its prompt is that of the full logits of the two alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.measure.answer_loss import answer_losses, ids_of
from lape.model.loss import find_head
from support.brute import hooks_on, lively, logits_of, model_of, tokenizer_of

KINDS = ("llama", "gemma2", "gpt2", "gpt_neox", "opt", "bloom", "mpt", "lfm2")


def some_pairs(lengths, seed=0):
    """Random ids, (prompt, answer) of these lengths."""
    random = np.random.default_rng(seed)
    return [([1, *random.integers(3, 300, p - 1).tolist()], random.integers(3, 300, a).tolist()) for p, a in lengths]


def measured(model, pairs, fill=0, **kwargs):
    return answer_losses(model, find_head(model), pairs, fill, **kwargs)


def by_hand(model, prompt, answer):
    """-log P of each token of the answer, one sequence at a time."""
    logs = logits_of(model, torch.tensor([prompt + answer]))[0].double().log_softmax(-1)
    return [-float(logs[len(prompt) + k - 1, token]) for k, token in enumerate(answer)]


def assert_is_by_hand(model, pairs, **kwargs):
    losses = measured(model, pairs, **kwargs)
    assert len(losses) == len(pairs)
    for loss, (prompt, answer) in zip(losses, pairs, strict=True):
        assert (loss.dtype, loss.shape) == (np.float64, (len(answer),))
        np.testing.assert_allclose(loss, by_hand(model, prompt, answer), rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_one_sequence_at_a_time(kind):
    assert_is_by_hand(model_of(kind), some_pairs([(3, 5), (20, 1), (1, 9), (12, 30), (4, 4)]))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 12)), max_size=9), st.integers(0, 99))
def test_each_answer_s_loss_stays_in_its_place_and_an_empty_answer_has_none(lengths, seed):
    assert_is_by_hand(model_of("llama"), some_pairs(lengths, seed))


def test_more_tokens_than_run_at_once_and_one_row_longer_than_that():
    assert_is_by_hand(lively("llama", max_position_embeddings=4096), some_pairs([(2, 9)] * 300 + [(2100, 40), (5, 3)]))


def test_what_pads_changes_no_loss():
    pairs = some_pairs([(3, 5), (9, 14)])
    for a, b in zip(measured(model_of("llama"), pairs, 0), measured(model_of("llama"), pairs, 200), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_answer_behind_nothing_cannot_be_scored():
    (first, second) = measured(model_of("llama"), [([], [5, 6]), ([1], [5])])
    assert (len(first), len(second)) == (0, 1)


def test_no_answers_have_no_losses():
    assert measured(model_of("llama"), []) == []


def test_measuring_leaves_the_model_as_it_was():
    model = lively("gpt2", resid_pdrop=0.5).train()
    assert_is_by_hand(model.eval(), some_pairs([(3, 5)]))
    expected = measured(model, some_pairs([(3, 5)]))
    found = measured(model.train(), some_pairs([(3, 5)]))
    np.testing.assert_array_equal(found, expected)
    assert model.training
    assert hooks_on(model) == 0


def test_progress_ends_with_all_scored_answers():
    seen = []
    measured(model_of("llama"), some_pairs([(3, 5), (2, 0), (4, 1)]), progress=lambda *said: seen.append(said))
    assert seen[-1] == ("scoring answers", 2, 2)


@pytest.mark.parametrize("bos", [True, False])
def test_a_prompt_begins_as_the_tokenizer_begins_and_an_answer_has_no_special_tokens(bos):
    prompt, answer = ids_of(tokenizer_of(bos), "the cat", " sat")
    plain = [tokenizer_of(False)(text)["input_ids"] for text in ("the cat", " sat")]
    assert (prompt, answer) == ([1] * bos + plain[0], plain[1])
