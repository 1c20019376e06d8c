"""How far tuning moved each neuron's weights: against state dicts read by name, and what cannot be compared."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.errors import LapeError, MismatchError, ModelError, OptionError, TextError
from lape.model.find import find
from lape.model.identity import checksum
from lape.model.site import SiteNames
from lape.recording.weight_change import compared, weight_changes
from support.brute import KINDS, MLPS, width_of
from support.tiny import LAYERS, tiny

SINGLE = torch.float32


def moved(model, seed=1, size=0.01, dtype=None):
    """A copy whose every parameter moved by random numbers."""
    other = copy.deepcopy(model).to(dtype or model.dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_((torch.randn(parameter.shape, generator=generator) * size).to(parameter.dtype))
    return other


def pieces(state, kind, layer, j):
    """The weights of one neuron, from a state dict, as one vector."""
    mlp, width = MLPS[kind], width_of(kind)

    def row(name, at):
        weight = state[name.format(layer) + ".weight"]
        return (weight[:, at] if kind == "gpt2" else weight[at]).double()

    down = state[mlp.down.format(layer) + ".weight"]
    parts = [row(mlp.gate, j), (down[j] if kind == "gpt2" else down[:, j]).double()]
    if mlp.up:
        parts.append(row(mlp.up, j + (width if mlp.up == mlp.gate else 0)))
    return torch.cat(parts)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_relative_change_of_rows_and_column_together(kind):
    base = tiny(kind, SINGLE)
    tuned = moved(base)
    delta = weight_changes(base, {"fr": tuned})["fr"]
    assert (delta.dtype, delta.shape) == (torch.float64, (LAYERS * width_of(kind),))
    ours, theirs = base.state_dict(), tuned.state_dict()
    for layer in range(LAYERS):
        for j in range(width_of(kind)):
            before, after = (pieces(state, kind, layer, j) for state in (ours, theirs))
            expected = float((after - before).norm() / before.norm())
            assert float(delta[layer * width_of(kind) + j]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["llama", "phi3", "gpt2", "opt"])
def test_a_single_changed_number_moves_its_neuron_alone(kind):
    base, width = tiny(kind, SINGLE), width_of(kind)
    for name, conv in ((MLPS[kind].gate, kind == "gpt2"), (MLPS[kind].down, kind != "gpt2")):
        tuned = copy.deepcopy(base)
        weight = tuned.get_submodule(name.format(1)).weight
        with torch.no_grad():
            (weight.T if conv else weight)[7, 3] += 0.5
        delta = weight_changes(base, {"fr": tuned})["fr"]
        assert delta.nonzero().flatten().tolist() == [width + 7]


def test_a_neuron_without_weights_in_the_base_has_not_moved():
    base = tiny("llama", SINGLE)
    with torch.no_grad():
        mlp = base.model.layers[0].mlp
        mlp.gate_proj.weight[5], mlp.up_proj.weight[5], mlp.down_proj.weight[:, 5] = 0, 0, 0
    delta = weight_changes(base, {"fr": moved(base)})["fr"]
    assert delta.eq(0).nonzero().flatten().tolist() == [5]


@settings(deadline=None, max_examples=10)
@given(st.floats(-0.5, 2.0).filter(lambda x: abs(x) > 0.01))
def test_scaling_every_weight_moves_every_neuron_alike(share):
    base = tiny("llama")
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.mul_(1 + share)
    delta = weight_changes(base, {"fr": tuned})["fr"]
    assert torch.allclose(delta, torch.full_like(delta, abs(share)), rtol=1e-12)


def test_checkpoints_on_disk_need_no_tokenizer_and_give_what_models_give(tmp_path):
    base = tiny("llama", SINGLE)
    tuned = {"fra_Latn": moved(base, 1), "zh": moved(base, 2)}
    for k, model in enumerate(tuned.values()):
        model.save_pretrained(tmp_path / str(k))
    paths = {language: tmp_path / str(k) for k, language in enumerate(tuned)}
    before = checksum(base)
    told = []
    found = compared(base, paths, progress=lambda task, done, of: told.append((task, done, of)))
    assert list(found) == ["fr", "zh"]
    for one, model in zip(found.values(), tuned.values(), strict=True):
        assert torch.equal(one.delta, weight_changes(base, {"fr": model})["fr"])
        assert one.checkpoint["checksum"] == checksum(model)
    assert found["zh"].checkpoint["id"] == str(tmp_path / "1")
    assert ("comparing weights zh", LAYERS, LAYERS) in told
    assert checksum(base) == before


# --- number formats ---


def test_halves_are_compared_as_they_are_and_with_what_was_tuned_from_them():
    half = tiny("llama", torch.bfloat16)
    delta = weight_changes(half, {"fr": moved(half, size=0.1)})["fr"]
    assert bool((delta > 0).all())
    exact = copy.deepcopy(half).float()
    for tuned in (moved(half, size=0.1), moved(exact)):
        assert bool((weight_changes(exact, {"fr": tuned})["fr"] > 0).all())


def test_a_base_coarser_than_what_was_tuned_is_refused():
    exact = tiny("llama", SINGLE)
    with pytest.raises(MismatchError, match=r"loaded in bfloat16.*fr=.*dtype='float32'"):
        weight_changes(copy.deepcopy(exact).bfloat16(), {"fr": moved(exact)})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_tuned_checkpoint_that_was_rounded_is_refused(dtype):
    exact = tiny("llama", SINGLE)
    rounded = moved(exact).to(dtype)
    for tuned in (rounded, copy.deepcopy(rounded).float()):
        with pytest.raises(MismatchError, match=r"rounded to .*float16.*Save the tuned checkpoint in float32"):
            weight_changes(exact, {"fr": tuned})


def test_one_rounded_to_the_other_half_format_is_refused():
    half = tiny("llama", torch.bfloat16).float()
    with torch.no_grad():
        half.model.layers[0].mlp.up_proj.weight[0, 0] = 2.0**-40  # as real weights have them: too small for float16
    with pytest.raises(MismatchError, match="rounded to float16"):
        weight_changes(half, {"fr": moved(half).half()})


# --- what cannot be compared ---


def test_one_identical_to_the_base_says_so():
    base = tiny("llama", SINGLE)
    with pytest.raises(MismatchError, match=r"fr=.* is identical to the base"):
        weight_changes(base, {"fr": copy.deepcopy(base)})


def test_one_whose_mlps_were_not_tuned_says_so():
    base = tiny("llama", SINGLE)
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        tuned.model.layers[0].self_attn.q_proj.weight.add_(1)
    with pytest.raises(MismatchError, match="not one MLP weight differs"):
        weight_changes(base, {"fr": tuned})


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ("mistral", {}, "the class is MistralForCausalLM there and LlamaForCausalLM in the base"),
        ("llama", {"intermediate_size": 48}, r"mlp\.\w+\.weight is \(48, 32\) there and \(44, 32\) in the base"),
        ("llama", {"num_hidden_layers": 2}, "missing there"),
        ("llama", {"num_hidden_layers": 4}, "and missing in the base"),
        ("llama", {"vocab_size": 310}, r"\(310, 32\) there"),
    ],
)
def test_one_of_another_architecture_or_shape_is_refused_naming_both(kind, changes, says):
    with pytest.raises(MismatchError, match=says):
        weight_changes(tiny("llama", SINGLE), {"fr": tiny(kind, SINGLE, **changes)})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value):
    base = tiny("llama", SINGLE)
    tuned = moved(base)
    with torch.no_grad():
        tuned.model.layers[1].mlp.up_proj.weight[3, 3] = value
    with pytest.raises(ModelError, match="not finite"):
        weight_changes(base, {"fr": tuned})


def test_quantised_weights_are_refused():
    base = tiny("llama", SINGLE)
    tuned = moved(base)
    down = tuned.model.layers[0].mlp.down_proj
    down.weight = torch.nn.Parameter(torch.zeros(32, 44, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ModelError, match=r"down_proj is quantised to torch\.int8"):
        weight_changes(base, {"fr": tuned})


def test_sites_named_by_hand_are_refused():
    base = tiny("llama", SINGLE)
    find(base, SiteNames("model.layers.*.mlp.act_fn", "model.layers.*.mlp.down_proj"))
    with pytest.raises(ModelError, match="layers 0 to 2 were named by hand"):
        weight_changes(base, {"fr": moved(base)})


@pytest.mark.parametrize(
    ("tuned", "kind", "says"),
    [
        ({}, OptionError, "No tuned checkpoints"),
        (["fr"], OptionError, "No tuned checkpoints"),
        ({"fr": "a", "fra_Latn": "b"}, TextError, "Two tuned checkpoints were given for fr"),
        ({"nonsense!": "a"}, LapeError, "nonsense"),
        ({"fr": "nowhere/at-all"}, ModelError, "nowhere/at-all"),
    ],
)
def test_what_names_no_checkpoints_is_refused(tuned, kind, says):
    with pytest.raises(kind, match=says):
        weight_changes(tiny("llama", SINGLE), tuned)
