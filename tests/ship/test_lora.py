"""An adapter belongs to the model it was made for: others are refused, those tuned from it and those of which nothing is known are warned of."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import lape
from lape.errors import FileError, LapeWarning, MismatchError
from lape.model.find import find
from lape.ship import lora
from lape.ship.export import edits_in
from lape.values.neurons import NeuronSet
from support.tiny import tiny


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny("llama", torch.float32)


@pytest.fixture
def adapter(model: Any, tmp_path: Path) -> Path:
    neurons = NeuronSet(find(model).space, torch.tensor([1, 50]))
    return lape.export(model, lape.Off(neurons), tmp_path / "a", format="lora")


def tuned(model: Any, share: float) -> Any:
    """The model with every weight moved by a share of its size."""
    other = copy.deepcopy(model)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in other.parameters():
            weight += share * weight.abs().mean() * torch.randn_like(weight)
    return other


def one_weight(model: Any) -> Any:
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.model.layers[0].mlp.up_proj.weight[0, 0] += 2**-10
    return other


OTHERS: dict[str, Callable[[Any], Any]] = {
    "other weights": lambda _: tiny("llama", torch.float32, seed=1),
    "other weights, in another number format": lambda _: tiny("llama", torch.bfloat16, seed=1),
    "another activation": lambda model: _configured(model, "gelu"),
    "another size": lambda _: tiny("llama", torch.float32, hidden_size=64),
    "another architecture": lambda _: tiny("gpt2", torch.float32),
}
SIBLINGS: dict[str, Callable[[Any], Any]] = {
    "one weight": one_weight,
    "tuned": lambda model: tuned(model, 0.02),
    "tuned much": lambda model: tuned(model, 0.1),
    "another number format": lambda model: copy.deepcopy(model).bfloat16(),
}


def _configured(model: Any, activation: str) -> Any:
    other = tiny("llama", torch.float32, hidden_act=activation)
    other.load_state_dict(model.state_dict())
    return other


@pytest.mark.parametrize("name", OTHERS)
def test_an_adapter_of_another_model_is_refused(name: str, model: Any, adapter: Path) -> None:
    other = OTHERS[name](model)
    with pytest.raises(MismatchError, match="this model"):
        lora.read_for(other, adapter)
    with pytest.raises(lape.LapeError):
        lape.edited(other, edits_in(adapter, other)).__enter__()


@pytest.mark.parametrize("name", SIBLINGS)
def test_an_adapter_of_a_model_that_this_was_tuned_from_is_warned_of(name: str, model: Any, adapter: Path) -> None:
    with pytest.warns(LapeWarning, match=r"tuned from it, or the same in another number format.*lape export") as said:
        assert lora.read_for(SIBLINGS[name](model), adapter)
    assert len(said) == 1


def test_an_adapter_of_this_model_is_read_without_a_word(model: Any, adapter: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lora.read_for(copy.deepcopy(model), adapter)


@pytest.mark.parametrize("base", ["org/base", None])
def test_an_adapter_of_which_nothing_is_known_is_warned_of(base: str | None, model: Any, adapter: Path) -> None:
    (adapter / lora.MANIFEST).unlink()
    changed(adapter, base_model_name_or_path=base)
    with pytest.warns(LapeWarning, match=f"nothing shows which model.*names {base or 'none either'}"):
        lora.read_for(model, adapter)


@pytest.mark.parametrize("content", ["", "[]", '{"made_from": 5}', '{"made_from": {"model": {"id": 5}}}'])
def test_a_damaged_manifest_is_no_missing_one(content: str, model: Any, adapter: Path) -> None:
    (adapter / lora.MANIFEST).write_text(content)
    with pytest.raises(FileError, match="is damaged"):
        lora.read_for(model, adapter)


def changed(adapter: Path, **config: Any) -> None:
    path = adapter / lora.CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"r": 0, "lora_alpha": 0}, "rank 0"),
        ({"r": -1, "lora_alpha": -1}, "rank -1"),
        ({"r": 7, "lora_alpha": 7}, "not of a rank"),
        ({"r": "1"}, "expected a whole number"),
        ({"lora_alpha": 16}, "a factor other than 1"),
        ({"lora_alpha": None}, "expected a number"),
        ({"fan_in_fan_out": "no"}, "expected true or false"),
        ({"peft_type": "IA3"}, "peft_type"),
        ({"bias": "all"}, "bias"),
        ({"rank_pattern": {"x": 0}, "alpha_pattern": {"x": 0}}, "rank 0"),
        ({"rank_pattern": {"x": 2}}, "a factor other than 1"),
        ({"target_modules": ["q_proj"]}, "not among its target_modules"),
        ({"use_rslora": True}, "use_rslora"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(config: Any, said: str, adapter: Path) -> None:
    changed(adapter, **config)
    with pytest.raises(FileError, match=said):
        lora.read(adapter)


@pytest.mark.parametrize("number", ["Infinity", "NaN", "1e400"])
def test_a_factor_that_is_no_number_is_refused(number: str, adapter: Path) -> None:
    path = adapter / lora.CONFIG
    path.write_text(path.read_text().replace('"lora_alpha": 1', f'"lora_alpha": {number}'))
    with pytest.raises(FileError, match="holds no adapter"):
        lora.read(adapter)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensor: tensor * torch.nan, "not finite"),
        (lambda tensor: tensor[:0], "not of a rank"),
        (lambda tensor: tensor.flatten(), "not of a rank"),
        (lambda tensor: torch.cat([tensor, tensor]), "not of a rank"),
        (lambda tensor: tensor.long(), "not finite"),
    ],
)
def test_weights_that_cannot_be_are_refused(change: Callable[[Any], Any], said: str, adapter: Path) -> None:
    weights = load_file(adapter / lora.WEIGHTS)
    name = next(name for name in weights if name.endswith("lora_A.weight"))
    save_file({**weights, name: change(weights[name])}, adapter / lora.WEIGHTS)
    with pytest.raises(FileError, match=said):
        lora.read(adapter)
