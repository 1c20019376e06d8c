"""Attention heads: where they are told to write, a changed query arrives and nothing else; scaling one is scaling its columns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lape.edit.edit import Add, Off, Scale, Set, edited
from lape.errors import MismatchError, ModelError, OptionError
from lape.model.heads import find_heads, heads
from lape.model.hooks import at_product, hooked
from lape.model.weak_cache import WeakCache
from lape.ship.changes import matrix
from lape.ship.export import edits_in, export
from lape.ship.fit import served
from lape.ship.lora import read
from lape.values.heads import HeadSpace
from lape.values.neurons import NeuronSet
from support.brute import KINDS, assert_near, lively, logits_of, model_of
from support.tiny import LAYERS, tiny
from support.zoo.table import KINDS as ZOO
from support.zoo.written import build

IDS = torch.tensor([[1, 20, 30, 40, 50, 60, 70], [1, 8, 9, 10, 11, 12, 13]])
HEADS = 4
WITH_QUERIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi", "opt")
"""Those whose queries have a layer of their own, named q_proj."""


def scaled_by_hand(kind, layer, head, factor):
    """Logits of a model whose output projection has one head's columns times a factor."""
    model = lively(kind)
    site = next(one for one in find_heads(model).sites if one.layer == layer)
    linear = model.get_submodule(site.down)
    width = site.width // HEADS
    with torch.no_grad():
        weight = linear.weight.T if hasattr(linear, "nx") else linear.weight
        weight[:, head * width : (head + 1) * width] *= factor
    return logits_of(model, IDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_attention_has_its_heads(kind):
    found = find_heads(model_of(kind))
    expected = [1] if kind == "lfm2" else [*range(LAYERS)]
    assert [site.layer for site in found.sites] == expected, "the others of lfm2 are convolutions"
    assert set(found.space.widths) == {8}
    assert len(found.space.heads(torch.arange(len(found.space)))) == HEADS * len(expected)


@pytest.mark.parametrize("kind", WITH_QUERIES)
def test_a_query_arrives_in_its_own_head_and_nowhere_else(kind):
    """The proof looks at values; queries say where a head begins and ends as well."""
    model = lively(kind)
    found = find_heads(model)
    site = found.sites[0]
    linear = model.get_submodule(f"{site.down.rpartition('.')[0]}.q_proj")
    seen = []

    def run():
        with torch.inference_mode(), hooked(model, at_product(model, site, lambda x, _rows: seen.append(x.clone()))):
            logits_of(model, IDS)
        return seen[-1]

    before = run()
    width = linear.out_features // HEADS
    for head in range(HEADS):
        own = slice(head * width, (head + 1) * width)
        kept = linear.weight.detach().clone()
        with torch.no_grad():
            linear.weight[own] = torch.randn_like(linear.weight[own])
        changed = (run() - before).abs().amax((0, 1)) > 1e-9
        with torch.no_grad():
            linear.weight.copy_(kept)
        assert {(k // (site.width // HEADS)) for k in changed.nonzero()[:, 0].tolist()} == {head}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [2.0, 0.0, -1.5])
def test_a_scaled_head_has_scaled_columns(kind, factor):
    with edited(model_of(kind), Scale(heads(model_of(kind), [(1, 2)]), factor)):
        ours = logits_of(model_of(kind), IDS)
    assert_near(ours, scaled_by_hand(kind, 1, 2, factor))


def test_off_is_scaling_by_zero_and_set_holds_a_constant():
    model = model_of("llama")
    head = heads(model, [(0, 1), (2, 3)])
    with edited(model, Off(head)):
        off = logits_of(model, IDS)
    with edited(model, Set(head, 0.0)):
        assert_near(logits_of(model, IDS), off)
    with edited(model, [Set(head, 0.0), Add(head, 1.0, strength=0.5)]):
        moved = logits_of(model, IDS)
    with edited(model, Set(head, 0.5)):
        assert_near(logits_of(model, IDS), moved)


@pytest.mark.parametrize("format", ["lora", "checkpoint"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "phi3", "bloom"])
def test_heads_and_neurons_are_exported_together(kind, format, tmp_path):
    from transformers import AutoModelForCausalLM

    from lape.model.find import find

    model = model_of(kind)
    space = find(model).space
    edits = [Scale(heads(model, [(1, 2), (2, 0)]), 2.0), Off(NeuronSet(space, torch.arange(0, len(space), 7)))]
    with edited(model, edits):
        expected = logits_of(model, IDS)
    out = export(model, edits, tmp_path / "out", format=format)
    if format == "lora":
        with served(model, read(out)):
            assert_near(logits_of(model, IDS), expected, 1e-5)
    else:
        assert_near(logits_of(AutoModelForCausalLM.from_pretrained(out, dtype=torch.float64).eval(), IDS), expected)
    with edited(model, edits_in(out, model)):
        assert_near(logits_of(model, IDS), expected)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "head 2 of layer 1 and head 0 of layer 2 multiplied by 2" in card
    assert "edits of neurons and attention heads" in card


def test_an_adapter_of_a_head_has_the_rank_of_its_width(tmp_path):
    model = model_of("llama")
    (one,) = read(export(model, Scale(heads(model, [(1, 2)]), 3.0), tmp_path / "out", format="lora"))
    assert one.module == "model.layers.1.self_attn.o_proj"
    assert one.a.shape == (8, 32)
    assert_near(one.b @ one.a, _only(matrix(model.get_submodule(one.module)), slice(16, 24)) * 2, 1e-6)


def _only(weight, columns):
    found = torch.zeros_like(weight)
    found[:, columns] = weight[:, columns]
    return found


@pytest.mark.parametrize("edit", [Set, Add])
def test_what_no_weights_hold_is_refused(edit, tmp_path):
    model = model_of("llama")
    with pytest.raises(OptionError, match="attention heads, here of layer 1, cannot be written into weights"):
        export(model, edit(heads(model, [(1, 2)]), 1.0), tmp_path / "out")
    with (
        pytest.raises(OptionError, match="Nothing can be added at the gate of layer 1"),
        edited(model, Add(heads(model, [(1, 2)]), 1.0, at="gate")),
    ):
        pass


def test_heads_of_another_model_are_refused():
    with (
        pytest.raises(MismatchError, match="attention heads"),
        edited(model_of("llama"), Off(heads(tiny("llama", num_attention_heads=2), [(0, 0)]))),
    ):
        pass
    with pytest.raises(OptionError, match="has attention heads 0 to 3, not 4"):
        heads(model_of("llama"), [(0, 4)])
    assert len(heads(model_of("llama"), [])) == 0


@pytest.mark.parametrize("kind", ["codegen", "mamba2", "bitnet"])
def test_a_model_without_heads_one_after_another_is_refused(kind):
    """CodeGen's lie apart in shards, Mamba has none, and BitNet norms all of them together."""
    with pytest.raises(ModelError, match=r"cannot be proven|No MLP neurons"):
        find_heads(build(kind, ZOO[kind]))


@pytest.mark.parametrize(
    ("kind", "down"),
    [
        ("gemma3n_text", "self_attn.o_proj"),
        ("gemma4_text", "self_attn.o_proj"),
        ("jamba", "self_attn.o_proj"),
        ("qwen3_next", "self_attn.o_proj"),
        ("recurrent_gemma", "temporal_block.o_proj"),
        ("olmo2", "self_attn.o_proj"),
        ("gpt_oss", "self_attn.o_proj"),
        ("deepseek_v3", "self_attn.o_proj"),
        ("falcon_h1", "self_attn.o_proj"),
        ("llama4_text", "self_attn.o_proj"),
    ],
)
def test_what_is_no_softmax_attention_has_no_heads(kind, down):
    """Not projections of embeddings by layer, scans, linear attention or convolutions, which share a block or a model with attention."""
    assert {site.down.removeprefix(f"{site.block}.") for site in find_heads(build(kind, ZOO[kind])).sites} == {down}


def test_a_projection_with_an_adapter_is_scaled_whole():
    """What peft puts into a layer reads the layer's input too."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj", "o_proj"], init_lora_weights=False)
    model = get_peft_model(lively("llama"), config).eval()
    assert {site.down.removeprefix(f"{site.block}.") for site in find_heads(model).sites} == {"self_attn.o_proj"}
    with edited(model, Scale(heads(model, [(1, 2)]), 3.0)):
        ours = logits_of(model, IDS)
    merged = model.merge_and_unload()
    with torch.no_grad():
        merged.model.layers[1].self_attn.o_proj.weight[:, 16:24] *= 3
    assert_near(ours, logits_of(merged, IDS), 1e-6)


def test_a_dead_channel_hides_no_head():
    model = lively("llama")
    with torch.no_grad():
        model.model.layers[1].self_attn.v_proj.weight[3] = 0
    assert len(find_heads(model).sites) == LAYERS


def test_heads_that_lie_elsewhere_now_are_not_edited(tmp_path, monkeypatch):
    from lape.model import heads as module

    model = model_of("llama")
    out = export(model, Scale(heads(model, [(1, 2)]), 2.0), tmp_path / "out", format="lora")
    whole = find_heads(model)
    fewer = HeadSpace.laid_out((site.layer, HEADS, 8) for site in whole.sites[1:])
    proven_of, _ = module._FOUND.get(model)
    monkeypatch.setattr(module, "_FOUND", WeakCache())
    module._FOUND.set(model, (proven_of, replace(whole, space=fewer, sites=whole.sites[1:])))
    with pytest.raises(MismatchError, match="other channels than where it was made"):
        edits_in(out, model)


def test_an_attention_that_was_replaced_is_proven_again():
    model = lively("llama")
    first = find_heads(model)
    assert find_heads(model) is first
    other = lively("llama", num_key_value_heads=4)
    model.model.layers[1].self_attn = other.model.layers[1].self_attn
    again = find_heads(model)
    assert again is not first
    assert again.space == first.space
    assert find_heads(model) is again


def test_it_is_not_proven_inside_of_an_edit():
    model = lively("llama")
    head = heads(lively("llama"), [(0, 0)])
    from lape.model.find import find

    with (
        edited(model, Off(NeuronSet(find(model).space, torch.arange(5)))),
        pytest.raises(ModelError, match="is edited, and the verification"),
    ):
        find_heads(model)
    with edited(model, Off(head)):
        assert find_heads(model).space == head.space, "what was proven before is known"
