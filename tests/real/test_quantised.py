"""The real model in 8 bits: large columns, which random models hardly have, make its rows depend on each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import lape
from lape.data import samples
from lape.model.body import hidden_states, tiny_ids
from lape.model.find import find
from lape.values.stats import ActivationStats


def test_the_model_in_8_bits_is_proven_and_fires_much_the_same(loaded: tuple[Any, Any]) -> None:
    pytest.importorskip("bitsandbytes")
    model, tokenizer = lape.load("sample", bits=8, device="cpu")
    ids = tiny_ids(model)
    other = ids.clone()
    other[1] = ids[1].flip(0)
    with torch.no_grad():
        assert not torch.equal(hidden_states(model, ids)[0], hidden_states(model, other)[0])
    assert find(model).space == find(loaded[0]).space
    texts = {language: source for language, source in samples.texts("record").items() if language in ("fr", "ja")}
    whole, eight = counted(*loaded, texts), counted(model, tokenizer, texts)
    for language in texts:
        a, b = (one[language].fires.sum(0).double() / int(one[language].tokens.sum()) for one in (whole, eight))
        assert float((a - b).abs().mean()) < 0.02, "a 50th of the tokens on average"
        assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.99


def counted(model: Any, tokenizer: Any, texts: dict[str, Any]) -> ActivationStats:
    return lape.record(model, tokenizer, texts, tokens=300, row_tokens=256)
