"""The ranking of heads beside its definition: the slope of log P(right) − log P(wrong) in the scale of each head."""

from __future__ import annotations

import pytest
import torch

from lape.edit.edit import Scale, edited
from lape.errors import OptionError
from lape.measure.answer_loss import answer_losses
from lape.measure.heads import RANKED, rank_heads
from lape.model.heads import heads
from lape.model.loss import find_head
from support.brute import model_of
from support.tiny import LAYERS

RIGHT = [([1, 20, 30], [40, 50, 60]), ([1, 8], [9, 10])]
WRONG = [([1, 20, 30], [70, 71]), ([1, 8], [12, 13, 14, 15]), ([1, 5, 6], [7])]


def by_hand(model, right, wrong, step=1e-2):
    """Every head scaled up and down a little."""
    head = find_head(model)

    def gap(layer, number, factor):
        with edited(model, Scale(heads(model, [(layer, number)]), factor)):
            means = [
                sum(-one.sum() for one in answer_losses(model, head, pairs, 0)) / len(pairs) for pairs in (right, wrong)
            ]
        return means[0] - means[1]

    return {
        (layer, number): (gap(layer, number, 1 + step) - gap(layer, number, 1 - step)) / (2 * step)
        for layer in range(LAYERS)
        for number in range(4)
    }


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2", "phi3", "bloom"])
def test_it_is_the_slope(kind):
    model = model_of(kind)
    found = rank_heads(model, RIGHT, WRONG)
    assert found.schema == RANKED
    expected = by_hand(model, RIGHT, WRONG)
    assert {(row[0], row[1]): pytest.approx(row[2], rel=2e-2, abs=2e-3) for row in found.rows()} == expected
    assert found["nats"].is_sorted(descending=True)


def test_only_the_first_tokens_count():
    model = model_of("llama")
    longer = [(prompt, [*answer[:2], 99, 98]) for prompt, answer in WRONG[:2]]
    cut = [(prompt, answer[:2]) for prompt, answer in WRONG[:2]]
    assert rank_heads(model, RIGHT, longer, first=2).equals(rank_heads(model, RIGHT, cut, first=2))


@pytest.mark.parametrize(("right", "wrong"), [([], WRONG), (RIGHT, [([1], [])])])
def test_there_must_be_answers(right, wrong):
    with pytest.raises(OptionError, match="Expected right and wrong ones"):
        rank_heads(model_of("llama"), right, wrong)


def test_the_model_is_left_as_it_was():
    model = model_of("llama")
    ids = torch.tensor([[1, 2, 3]])
    before = model(ids).logits
    rank_heads(model, RIGHT, WRONG)
    assert torch.equal(model(ids).logits, before)
    assert all(parameter.grad is None for parameter in model.parameters())
