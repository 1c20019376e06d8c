"""Adapters for quantised models: as near to the edit as the number format in which the model computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lape.edit.edit import Add, Edit, Off, Scale, Set, by_unit, edited
from lape.errors import LapeError
from lape.model.find import find
from lape.model.load import load
from lape.ship import lora
from lape.ship.changes import changes, gates, matrix
from lape.ship.constant import Constant
from lape.ship.export import export
from lape.ship.fit import served
from lape.values.neurons import NeuronSet
from support.brute import logits_of, tokenizer_of
from support.tiny import tiny

IDS = torch.randint(40, 300, (2, 9), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("bitsandbytes")
    path = tmp_path_factory.mktemp("quantised") / "model"
    tiny("llama", torch.float32, hidden_size=64, intermediate_size=128).save_pretrained(path)
    tokenizer_of().save_pretrained(path)
    return path


def quantised(folder, bits, dtype="bfloat16"):
    return load(folder, bits=bits, dtype=dtype, device="cpu")[0]


def in_float32(folder) -> Any:
    """Weights in 4 bits that are multiplied in float32."""
    model = quantised(folder, 4, "float32")
    for module in model.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype, module.compute_type_is_set = torch.float32, True
            module.support_avx512bf16_for_cpu = False
    return model


def some(model: Any, start: int) -> NeuronSet:
    space = find(model).space
    return NeuronSet(space, torch.arange(start, len(space), 7))


def apart(model: Any, edits: list[Edit]) -> tuple[float, float]:
    """The largest difference of a logit between edit and adapter, and between edit and none, as shares of the range of the logits."""
    parts = lora.updates(model, changes(model, by_unit(model, edits), biases=False), {})
    plain = logits_of(model, IDS).double()
    with edited(model, edits):
        wanted = logits_of(model, IDS).double()
    with served(model, parts):
        got = logits_of(model, IDS).double()
    span = float(wanted.max() - wanted.min())
    return float((got - wanted).abs().max()) / span, float((plain - wanted).abs().max()) / span


def test_an_adapter_of_4_bit_weights_is_the_edit_up_to_rounding(folder):
    """The columns are those that the model computes with: what is apart is its rounding, gone where it rounds less."""
    model = quantised(folder, 4)
    edits: list[Edit] = [Off(some(model, 0)), Scale(some(model, 1), 2.0)]
    rounded, effect = apart(model, edits)
    assert effect > 0.1
    assert rounded < 0.02
    exact, effect = apart(in_float32(folder), edits)
    assert effect > 0.1
    assert exact < 1e-5


def test_the_columns_are_not_those_of_the_unquantised_model(folder):
    """What would be wrong: an adapter made from other weights than it is used with."""
    plain = load(folder, dtype="float32", device="cpu")[0]
    model = in_float32(folder)
    edits: list[Edit] = [Off(some(model, 0)), Scale(some(model, 1), 2.0)]
    of_plain = lora.updates(plain, changes(plain, by_unit(plain, edits), biases=False), {})
    with edited(model, edits):
        wanted = logits_of(model, IDS)
    with served(model, of_plain):
        got = logits_of(model, IDS)
    assert float((got - wanted).abs().max() / (wanted.max() - wanted.min())) > 1e-3


def test_the_matrix_of_a_4_bit_layer_is_what_it_gives(folder):
    linear = in_float32(folder).model.layers[1].mlp.down_proj
    x = torch.randn(5, 128, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(x.double() @ matrix(linear).T, linear(x).double(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["lora", "checkpoint"])
def test_8_bit_weights_are_refused(form, folder, tmp_path):
    model = quantised(folder, 8)
    with pytest.raises(LapeError, match=r"quantised to 8 bits.*whole row.*unquantised"):
        export(model, Off(some(model, 0)), tmp_path / "out", format=form)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_4_bit_weights_is_refused(folder, tmp_path):
    model = quantised(folder, 4)
    with pytest.raises(LapeError, match=r"quantised; its weights cannot be changed exactly.*format='lora'"):
        export(model, Off(some(model, 0)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bits", [8, 4])
def test_what_is_added_at_the_gate_needs_no_weights(bits, folder):
    """Of rank one: the direction, and how much; so 8 bits are no hindrance. What is set needs the rows of the gate."""
    model = quantised(folder, bits)
    chosen = some(model, 0)
    todo = changes(model, by_unit(model, [Add(chosen, 0.3, 1.5, at="gate")]), biases=False)
    v = torch.sin(torch.arange(64, dtype=torch.float64))
    fitted = {name: Constant(v, torch.zeros(64, 64).double(), {}, 0, 0, 0) for name in gates(todo)}
    parts = lora.updates(model, todo, fitted)
    assert [one.module for one in parts] == [f"model.layers.{k}.mlp.gate_proj" for k in range(len(parts))]
    for one, change in zip(parts, todo, strict=True):
        torch.testing.assert_close(one.b @ one.a, change.raised[:, None] * v, rtol=0, atol=0)
    held = changes(model, by_unit(model, [Set(chosen, 0.3)]), biases=False)
    if bits == 8:
        with pytest.raises(LapeError, match="quantised to 8 bits"):
            lora.updates(model, held, fitted)
    else:
        assert all(len(one.a) for one in lora.updates(model, held, fitted))
