"""A model in float32 for a while."""

from __future__ import annotations

import copy

import pytest
import torch

import lape
from lape.errors import ModelError
from lape.model.identity import describe
from lape.model.precision import in_float32
from lape.values.same import compared
from support.tiny import CONFIGS, tiny, tiny_tokenizer


@pytest.mark.parametrize("kind", sorted(CONFIGS))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_inside_it_runs_as_a_float32_copy_and_afterwards_it_is_the_same(kind, dtype):
    model = tiny(kind, dtype)
    ids = torch.arange(3, 19)[None]
    before = {name: (tensor, tensor.dtype, tensor.clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    expected = copy.deepcopy(model).float()(input_ids=ids).logits
    with in_float32(model):
        found = model(input_ids=ids).logits
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    after = model.state_dict(keep_vars=True)
    assert set(after) == set(before)
    for name, (tensor, kept, values) in before.items():
        assert after[name] is tensor, name
        assert after[name].dtype == kept
        assert torch.equal(after[name], values)


def test_shared_weights_stay_shared():
    model = tiny("llama", torch.bfloat16, tie_word_embeddings=True)
    model.tie_weights()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    with in_float32(model):
        assert model.lm_head.weight is model.model.embed_tokens.weight


def test_it_comes_back_after_an_error():
    model = tiny("llama", torch.bfloat16)
    with pytest.raises(KeyError), in_float32(model):
        raise KeyError
    assert {one.dtype for one in model.parameters()} == {torch.bfloat16}


def test_weights_that_are_not_there_are_refused_and_nothing_is_changed():
    model = tiny("llama", torch.bfloat16)
    model.model.layers[1].mlp.up_proj.to("meta")
    with pytest.raises(ModelError, match="offloaded"), in_float32(model):
        pass
    assert model.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16


def test_it_is_still_the_model_that_was_loaded(tmp_path):
    """What was made with it in its own format is known to be its own, without a guess."""
    tiny("llama", torch.bfloat16).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    model, tokenizer = lape.load(tmp_path)
    before = describe(model, tokenizer)
    with in_float32(model):
        inside = describe(model, tokenizer)
        assert inside["model"]["dtype"] == "float32"
        assert compared(before, inside).unsure == compared(before, inside).differ == ()
        with torch.no_grad():
            model.model.layers[0].mlp.up_proj.weight.add_(1)
        assert describe(model, tokenizer)["model"]["source"] is None
    assert describe(model, tokenizer) == before
