"""What is added at the gate: to what goes into the activation function, on every position but the first of a text."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from lape.edit.edit import Add, Off, Scale, Set, edited
from lape.edit.steer import SHIPPED, SteerOptions
from lape.errors import ModelError, OptionError
from lape.model.find import find
from lape.model.site import FUNCTIONS
from lape.model.weights import preactivation
from support.brute import KINDS, MLPS, assert_near, hooks_on, lively, logits_of, model_of, width_of
from support.by_hand import chosen
from support.tiny import LAYERS, PACKING

IDS = torch.tensor([[1, 20, 30, 40, 50, 60, 70], [1, 200, 33, 44, 55, 66, 77]])
FIRST = torch.arange(7)[None].expand(2, -1) == 0


@contextmanager
def by_hand(model, kind, edit, first, turn=lambda: 0):
    """While inside, each gate projection's output is raised, neuron by neuron, where no text begins. `first`: (rows, tokens) bool."""
    mlp, width, handles = MLPS[kind], width_of(kind), []
    for layer in range(LAYERS):
        by = torch.zeros(width, dtype=torch.float64)
        for flat in edit.neurons:
            if layer * width <= flat < (layer + 1) * width:
                value = edit.value[flat] if torch.is_tensor(edit.value) else edit.value
                by[flat - layer * width] = edit.strength * inverse(mlp.function, float(value))

        def hook(_module, _args, out, by=by):
            there = (~first).to(out).reshape(*out.shape[:-1], 1)
            return torch.cat([out[..., :width] + there * by, out[..., width:]], -1)

        handles.append(model.get_submodule(mlp.gate.format(layer)).register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def inverse(function, value):
    """Of two inputs that an activation function takes to a value, the larger."""
    if value == 0:
        return 0.0
    grid = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
    curve = function(grid)
    lowest = float(grid[len(grid) - 1 - int(curve.flip(0).argmin())])
    return brentq(lambda x: float(function(torch.tensor(x, dtype=torch.float64))) - value, lowest, 500.0, xtol=1e-13)


def values_of(kind):
    """Activations of about the size of means."""
    return torch.rand(LAYERS * width_of(kind), generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_it_raises_what_goes_into_the_activation_function_but_at_first_positions(kind):
    model, edit = model_of(kind), Add(chosen(kind), values_of(kind), 1.5, at="gate")
    with by_hand(model, kind, edit, FIRST):
        expected = logits_of(model, IDS)
    with edited(model, edit):
        found = logits_of(model, IDS)
    plain = logits_of(model, IDS)
    assert_near(found, expected, 1e-7)
    assert torch.equal(found[:, 0], plain[:, 0])
    assert float((found - plain)[:, 1:].abs().amax(-1).min()) > 1e-3
    assert not hooks_on(model)


@pytest.mark.parametrize("kind", ["llama", "phi3", "gpt2"])
def test_edits_of_the_activation_come_after_it_whatever_the_order(kind):
    raised = Add(chosen(kind, 1), 0.5, at="gate")
    others = [Scale(chosen(kind, 1), 2.0), Off(chosen(kind, 2)), Set(chosen(kind, 3), 0.3)]
    model = model_of(kind)
    with edited(model, [raised, *others]):
        before = logits_of(model, IDS)
    with edited(model, [*others, raised]):
        assert torch.equal(logits_of(model, IDS), before)
    with edited(model, others), edited(model, raised):
        assert_near(logits_of(model, IDS), before)
    with edited(model, raised), edited(model, others):
        assert_near(logits_of(model, IDS), before)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_first_position_is_that_of_the_text_not_of_the_row(side):
    kind, pad = "llama", torch.zeros(1, 3, dtype=torch.long)
    model, edit = model_of(kind), Add(chosen(kind), 0.8, at="gate")
    alone = IDS[:1, :4]
    ids = torch.cat([pad, alone] if side == "left" else [alone, pad], 1)
    mask = (ids != 0).long()
    where = slice(3, None) if side == "left" else slice(4)
    with edited(model, edit):
        expected = logits_of(model, alone)
        found = model(input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp_min(0)).logits
        found_by_mask = model(input_ids=ids, attention_mask=mask).logits if side == "right" else found
    assert_near(found[:, where].detach(), expected)
    assert_near(found_by_mask[:, where].detach(), expected)


@pytest.mark.parametrize("kind", sorted(PACKING & {"llama", "gemma3_text", "gpt2"}))
def test_every_document_of_a_row_has_a_first_position(kind):
    model, edit = model_of(kind), Add(chosen(kind), 0.8, at="gate")
    first, second = [1, 20, 30, 40], [1, 50, 60]
    ids, positions = torch.tensor([first + second]), torch.tensor([[0, 1, 2, 3, 0, 1, 2]])
    with edited(model, edit), torch.no_grad():
        packed = model(input_ids=ids, position_ids=positions, use_cache=False).logits
        alone = [logits_of(model, torch.tensor([one])) for one in (first, second)]
    assert_near(packed, torch.cat(alone, 1), 1e-6)


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "opt", "lfm2"])
def test_generate_with_a_cache_and_left_padding_writes_what_whole_forwards_choose(kind):
    model, edit = lively(kind, torch.float64), Add(chosen(kind), 0.8, 2.0, at="gate")
    ids = torch.tensor([[0, 0, 1, 20, 30], [1, 40, 50, 60, 70]])
    mask = (ids != 0).long()
    how = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    with edited(model, edit):
        both = model.generate(ids, attention_mask=mask, **how)[:, 5:]
    for row, text in enumerate(([1, 20, 30], [1, 40, 50, 60, 70])):
        for _ in range(5):
            whole = torch.tensor([text])
            with by_hand(model, kind, edit, torch.arange(len(text))[None] == 0):
                logits = logits_of(model, whole)[0, -1]
            logits[2] = -torch.inf  # the end, of which `generate` writes none before there are enough tokens
            text = [*text, int(logits.argmax())]
        assert text[-5:] == both[row].tolist()


def test_where_edits_act_is_where_it_acts_too():
    kind = "llama"
    model, edit = model_of(kind), Add(chosen(kind), 0.8, at="gate")
    with edited(model, edit, tokens="generated"):
        found = logits_of(model, IDS)
    untouched = torch.arange(7)[None].expand(2, -1) != 6
    with by_hand(model, kind, edit, untouched):
        assert_near(found, logits_of(model, IDS), 1e-7)


def test_sparing_the_first_position_holds_for_any_edit():
    kind = "llama"
    model, edits = model_of(kind), [Off(chosen(kind, 1)), Set(chosen(kind, 2), 0.7)]
    with edited(model, edits, spare=True):
        found = logits_of(model, IDS)
    with edited(model, edits):
        everywhere = logits_of(model, IDS)
    plain = logits_of(model, IDS)
    assert torch.equal(found[:, 0], plain[:, 0])
    assert not torch.equal(everywhere[:, 0], plain[:, 0])
    assert not torch.equal(found[:, 1:], plain[:, 1:])


@settings(max_examples=60, deadline=None)
@example("sigmoid", 0.99999)
@given(st.sampled_from(sorted(FUNCTIONS)), st.floats(-0.1, 30))
def test_the_inverse_is_the_larger_input_that_gives_the_value(name, value):
    """On models whose activation is that function; one that never falls so low, or rises so high, refuses."""
    model = model_of("llama")
    site = find(model).sites[0]
    site = type(site)(**{**vars(site), "rule": "down input", "activation": name})
    function = FUNCTIONS[name]
    grid = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
    reachable = (
        float(function(grid).min()) + 1e-4 < value < float(function(torch.tensor(1e3, dtype=torch.float64))) - 1e-4
    )
    try:
        found = float(preactivation(model, site, torch.tensor([value], dtype=torch.float64))[0])
    except Exception:
        assert not reachable
        return
    assert float(function(torch.tensor(found, dtype=torch.float64))) == pytest.approx(value, rel=2e-3, abs=2e-6)
    above = torch.linspace(found + 1e-3, found + 20, 2000, dtype=torch.float64)
    assert bool((function(above) >= value - 1e-9).all())


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_a_value_just_above_all_that_a_function_gives_is_refused(name):
    model = model_of("llama")
    site = dataclasses.replace(find(model).sites[0], rule="down input", activation=name)
    with pytest.raises(ModelError, match="no input"):
        preactivation(model, site, torch.tensor([1.0005]))


def test_a_value_that_no_input_gives_is_refused_with_the_layer():
    with (
        pytest.raises(OptionError, match=r"gate of layer 0: no input .* gives -5"),
        edited(model_of("llama"), Add(chosen("llama"), -5.0, at="gate")),
    ):
        pass


def test_another_place_is_refused():
    with (
        pytest.raises(OptionError, match="Expected activation or gate"),
        edited(model_of("llama"), Add(chosen("llama"), 1.0, at="up")),
    ):
        pass


def test_only_what_is_added_can_be_added_at_the_gate():
    with pytest.raises(OptionError, match="how='add'"):
        SteerOptions(how="set", at="gate")
    assert SHIPPED.at == "gate"
