"""Neurons are found by structure and counted as the definitions say, on every architecture."""

from __future__ import annotations

import inspect

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, BertConfig, T5Config

from lape.data.texts import Documents
from lape.errors import ModelError
from lape.model.body import hidden_states, tiny_ids
from lape.model.find import find
from lape.model.hooks import watching
from lape.model.site import SiteNames
from lape.model.weights import down_norms
from lape.recording.record import record
from lape.values.space import NeuronSpace
from support.brute import (
    KINDS,
    MLPS,
    assert_near,
    hooks_on,
    lively,
    model_of,
    rounding_of,
    some_texts,
    sums_of,
    tokenizer_of,
    width_of,
)
from support.tiny import CONFIGS, LAYERS, PACKING, tiny

LLAMA_BY_HAND = SiteNames("model.layers.*.mlp.act_fn", "model.layers.*.mlp.down_proj")


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_s_neurons_are_found_in_order(kind):
    found = find(model_of(kind))
    assert found.space == NeuronSpace.dense(LAYERS, width_of(kind))
    assert [site.down for site in found.sites] == [MLPS[kind].down.format(layer) for layer in range(LAYERS)]


@pytest.mark.parametrize("kind", KINDS)
def test_packs_is_true_where_position_ids_keep_documents_apart(kind):
    """Newer versions of transformers keep them apart in more architectures."""
    packs = find(model_of(kind)).packs
    assert packs == keeps_apart(model_of(kind), [1, 20, 30, 40, 50], [1, 60, 70, 80, 90, 100, 110])
    assert packs or kind not in PACKING


def keeps_apart(model, first, second):
    """Whether the second of two documents in a row gives the logits that it gives alone."""
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return False
    positions = torch.tensor([[*range(len(first)), *range(len(second))]])
    with torch.no_grad():
        packed = model(torch.tensor([[*first, *second]]), position_ids=positions, use_cache=False).logits
        alone = model(torch.tensor([second]), use_cache=False).logits
    return torch.allclose(packed[:, len(first) :], alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_sites_are_found_in_every_precision(kind, dtype):
    found = find(lively(kind, dtype))
    expected = find(model_of(kind))
    assert [(s.gate, s.up, s.down) for s in found.sites] == [(s.gate, s.up, s.down) for s in expected.sites]


@pytest.mark.parametrize("kind", KINDS)
def test_counts_and_sums_are_those_of_the_definition(kind):
    model, tokenizer, texts = model_of(kind), tokenizer_of(), some_texts(12)
    stats = record(model, tokenizer, {"en": Documents(texts)}, row_tokens=64, batch_tokens=128)
    expected = sums_of(model, kind, texts, tokenizer)
    assert int(stats["en"].tokens.sum()) == int(expected["tokens"])
    assert torch.equal(stats["en"].fires.sum(0), expected["fires"])
    for name in ("sum", "square", "positive", "written", "written_square"):
        assert_near(stats["en"].sums(name), expected[name], rounding_of(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_the_norm_of_a_down_column_is_that_of_the_weight(kind):
    model = model_of(kind)
    weight = model.get_submodule(MLPS[kind].down.format(1)).weight.detach()
    columns = weight.T if kind == "gpt2" else weight
    assert_near(down_norms(model, find(model).sites[1]), columns.square().sum(0))


@pytest.mark.parametrize("kind", KINDS)
def test_finding_leaves_no_hook_and_no_mode_behind(kind):
    model = tiny(kind).train()
    find(model)
    assert hooks_on(model) == 0
    assert all(module.training for module in model.modules())


def test_finding_keeps_the_mode_of_each_part():
    model = tiny("llama").train()
    model.model.layers[1].eval()
    find(model)
    assert model.training
    assert not model.model.layers[1].mlp.training


def test_watching_shows_each_layer_once_per_forward():
    model, seen = model_of("phi3"), []
    with torch.no_grad(), watching(model, find(model).sites, lambda k, a, _rows: seen.append((k, tuple(a.shape)))):
        hidden_states(model, tiny_ids(model, 2, 12))
    assert seen == [(k, (2, 12, 44)) for k in range(LAYERS)]


def bert():
    config = BertConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=44,
        num_hidden_layers=2,
        num_attention_heads=4,
        is_decoder=False,
    )
    return AutoModelForCausalLM.from_config(config).eval()


def mamba():
    return AutoModelForCausalLM.from_config(
        AutoConfig.for_model("mamba", vocab_size=300, hidden_size=32, num_hidden_layers=2, state_size=4)
    ).eval()


def t5():
    config = T5Config(vocab_size=300, d_model=32, d_ff=44, num_layers=2, num_heads=4, d_kv=8, decoder_start_token_id=0)
    return AutoModelForSeq2SeqLM.from_config(config).eval()


def test_an_encoder_is_refused_as_not_causal():
    with pytest.raises(ModelError, match=r"not causal.*decoder-only"):
        find(bert())


def test_an_encoder_decoder_is_refused():
    with pytest.raises(ModelError, match=r"encoder-decoder.*decoder-only"):
        find(t5())


def test_an_encoder_decoder_is_refused_even_where_its_sites_are_named():
    names = SiteNames("decoder.block.*.layer.2.DenseReluDense.act", "decoder.block.*.layer.2.DenseReluDense.wo")
    with pytest.raises(ModelError, match="encoder-decoder"):
        find(t5(), names)


def test_a_model_without_an_mlp_is_refused_with_what_was_found_and_what_to_type():
    with pytest.raises(ModelError) as error:
        find(mamba())
    message = str(error.value)
    assert "MambaForCausalLM" in message
    assert "Linear" in message
    assert "sites=(" in message
    assert "SiteNames" in message


def test_something_that_is_no_language_model_is_refused():
    with pytest.raises(ModelError, match="no config"):
        find(torch.nn.Linear(3, 3))


def test_sites_named_by_hand_count_the_same():
    texts = Documents(some_texts(5))
    found, named = lively("llama"), lively("llama")
    named.load_state_dict(found.state_dict())
    find(named, LLAMA_BY_HAND)
    a, b = (record(model, tokenizer_of(), {"en": texts})["en"] for model in (found, named))
    assert torch.equal(a.fires, b.fires)
    assert torch.equal(a.sums("sum"), b.sums("sum"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (SiteNames("model.layers.*.mlp.nothing", "model.layers.*.mlp.down_proj"), r"names 0 modules and .* names 3"),
        (SiteNames("model.layers.0.mlp.act_fn", "model.layers.*.mlp.down_proj"), r"names 1 modules and .* names 3"),
        (SiteNames("model.layers.*.mlp.act_fn", "model.layers.*.input_layernorm"), "not a linear layer"),
        (SiteNames("model.layers.*.input_layernorm", "model.layers.*.mlp.down_proj"), r"Layer 0: .*44 columns"),
    ],
)
def test_hand_names_that_do_not_fit_are_refused_with_what_they_name(names, message):
    with pytest.raises(ModelError, match=message):
        find(tiny("llama"), names)


def test_a_refused_name_does_not_spoil_the_model():
    model = tiny("llama")
    with pytest.raises(ModelError):
        find(model, SiteNames("model.layers.*.input_layernorm", "model.layers.*.mlp.down_proj"))
    assert hooks_on(model) == 0
    assert len(find(model).space) == LAYERS * 44


def test_a_compiled_model_has_the_same_sites():
    model = tiny("llama")
    assert find(torch.compile(model, backend="eager")) is find(model)


@pytest.mark.parametrize("hidden_act", ["relu2", "quick_gelu", "gelu", "tanh"])
def test_the_gate_s_function_is_whatever_the_model_uses(hidden_act, monkeypatch):
    monkeypatch.setitem(CONFIGS, "llama", {"hidden_act": hidden_act})
    assert len(find(tiny("llama")).sites) == LAYERS


def test_layers_may_differ_in_width():
    model = tiny("llama")
    mlp = model.model.layers[1].mlp
    for name, shape in {"gate_proj": (32, 20), "up_proj": (32, 20), "down_proj": (20, 32)}.items():
        setattr(mlp, name, torch.nn.Linear(*shape, bias=False, dtype=torch.float64))
    assert find(model).space == NeuronSpace.of([(0, None, 44), (1, None, 20), (2, None, 44)])
