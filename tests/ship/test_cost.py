"""What an adapter costs on text, against the plain losses of each document."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch

from lape.data.texts import Documents
from lape.errors import TextError
from lape.ship.changes import LowRank
from lape.ship.cost import COST, cost
from support.brute import hooks_on, model_of, some_texts, tokenizer_of

torch.set_num_threads(1)

FEW, MANY = some_texts(5, 1, (2, 9)), some_texts(30, 2, (2, 9))
TEXTS = {"en": Documents(FEW), "fr": Documents(MANY)}
MODULE = "model.layers.1.mlp.gate_proj"


def update(size: float = 0.25) -> LowRank:
    drawn = torch.Generator().manual_seed(1)
    a, b = ((torch.randn(*shape, generator=drawn) * size).double() for shape in ((2, 32), (44, 2)))
    return LowRank(MODULE, a, b, False)


def nats(model: Any, texts: list[str]) -> tuple[float, int]:
    """Σ −log p of every token after BOS, each text by itself, and how many."""
    total, count = 0.0, 0
    for text in texts:
        ids = torch.tensor([tokenizer_of()(text)["input_ids"]])
        with torch.inference_mode():
            of = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
        total -= float(of[:-1].gather(1, ids[0, 1:, None]).sum())
        count += ids.shape[1] - 1
    return total, count


def test_it_is_the_change_of_loss_per_token():
    part = update()
    changed = deepcopy(model_of("llama"))
    changed.get_submodule(MODULE).weight.data += part.b @ part.a
    table = cost(model_of("llama"), tokenizer_of(), [part], TEXTS, tokens=10_000, resamples=200)
    assert dict(table.schema) == COST
    assert table["language"].to_list() == ["en", "fr"]
    for row, texts in zip(table.iter_rows(named=True), (FEW, MANY), strict=True):
        (before, count), (after, _) = nats(model_of("llama"), texts), nats(changed, texts)
        assert row["tokens"] == count
        assert row["cost"] == pytest.approx((after - before) / count, abs=1e-6)
        assert abs(row["cost"]) > 1e-3
    assert hooks_on(model_of("llama")) == 0


def test_an_interval_needs_twenty_documents():
    few, many = cost(model_of("llama"), tokenizer_of(), [update()], TEXTS, resamples=200).iter_rows(named=True)
    assert (few["low"], few["high"]) == (None, None)
    assert many["low"] < many["cost"] < many["high"]


def test_no_update_costs_nothing_and_a_larger_one_more():
    texts = {"en": TEXTS["en"]}
    nothing, small, large = (
        cost(model_of("llama"), tokenizer_of(), parts, texts, resamples=10)["cost"].item()
        for parts in ([], [update(0.25)], [update(2.0)])
    )
    assert nothing == 0
    assert 0 < abs(small) < large


def test_no_more_tokens_are_scored_than_asked_for():
    table = cost(model_of("llama"), tokenizer_of(), [update()], {"fr": TEXTS["fr"]}, tokens=40, resamples=10)
    assert table["tokens"].to_list() == [40]


def test_text_that_is_empty_is_refused():
    with pytest.raises(TextError, match="fr is empty"):
        cost(model_of("llama"), tokenizer_of(), [update()], {"fr": Documents([""])})
