"""What every export owes: the edited model itself, whoever loads it; a manifest and a card; nothing half-written; refusals that say what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM

from lape.data.texts import Documents
from lape.edit.edit import Add, Off, Scale, Set, edited
from lape.errors import FileError, MismatchError, OptionError
from lape.ship.export import FORMATS, edits_in, export
from lape.values.neurons import NeuronSet
from lape.values.space import NeuronSpace
from support.brute import assert_near, logits_of, model_of, tokenizer_of, width_of
from support.tiny import LAYERS

IDS = torch.tensor([[1, 20, 30, 40, 50, 60, 70]])


def with_peft(path: Path, model: Any) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(deepcopy(model), path).eval()


def as_llama_cpp_does(path: Path, model: Any) -> Any:
    """The base with B·A of each tensor pair added; without alpha the factor is 1."""
    model = deepcopy(model)
    reader = gguf.GGUFReader(path / "adapter.gguf")
    assert reader.fields["adapter.type"].contents() == "lora"
    assert reader.fields["general.type"].contents() == "adapter"
    assert "adapter.lora.alpha" not in reader.fields
    tensors = {one.name: torch.tensor(one.data).double() for one in reader.tensors}
    kind = {"gemma3_text": "gemma3", "gpt_neox": "gptneox"}.get(model.config.model_type, model.config.model_type)
    arch = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == kind)
    names = gguf.get_tensor_name_map(arch, LAYERS)
    for module, linear in model.named_modules():
        name = names.get_name(module)
        if name and f"{name}.weight.lora_a" in tensors:
            update = tensors[f"{name}.weight.lora_b"] @ tensors[f"{name}.weight.lora_a"]
            linear.weight.data += update.T if hasattr(linear, "nx") else update
    return model


@dataclass(frozen=True)
class Export:
    """A format: how one who does not know lape loads it."""

    load: Callable[[Path, Any], Any]
    """(what was written, the unedited model) -> a model."""
    families: tuple[str, ...] = ("llama", "gemma3_text", "phi3", "gpt2", "bloom")

    def write(self, *args: Any, **more: Any) -> Path:
        return export(*args, format=next(name for name, one in EXPORTS.items() if one is self), **more)


EXPORTS = {
    "checkpoint": Export(lambda path, _: AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()),
    "lora": Export(with_peft),
    "gguf-lora": Export(as_llama_cpp_does),
}
each = pytest.mark.parametrize("form", EXPORTS.values(), ids=EXPORTS)
each_family = pytest.mark.parametrize(
    ("form", "kind"),
    [pytest.param(form, kind, id=f"{name}-{kind}") for name, form in EXPORTS.items() for kind in form.families],
)
NEAR = 1e-5
"""Of adapters, which are kept in float32."""


def test_every_format_is_here():
    assert set(EXPORTS) == set(FORMATS)


def some(kind: str, start: int, step: int) -> NeuronSet:
    space = NeuronSpace.dense(LAYERS, width_of(kind))
    return NeuronSet(space, torch.arange(start, len(space), step))


@each_family
def test_what_is_loaded_is_the_edited_model(form, kind, tmp_path):
    model = model_of(kind)
    edits = [Off(some(kind, 0, 5)), Scale(some(kind, 1, 3), -2.5), Scale(some(kind, 2, 4), 0.5)]
    path = form.write(model, edits, tmp_path / "out", tokenizer=tokenizer_of())
    with edited(model, edits):
        expected = logits_of(model, IDS)
    assert_near(logits_of(form.load(path, model), IDS), expected, NEAR)
    assert not torch.equal(expected, logits_of(model, IDS)), "the model itself is as it was"


@each
def test_it_says_where_it_comes_from(form, tmp_path):
    path = form.write(model_of("llama"), Off(some("llama", 0, 5)), tmp_path / "out")
    said = json.loads((path / "lape.json").read_text())
    assert said["edits"][0]["edit"] == "off"
    assert said["edits"][0]["neurons"] == len(some("llama", 0, 5))
    assert len(said["made_from"]["model"]["checksum"]) == 64
    assert said["largest_difference"] < NEAR
    card = (path / "README.md").read_text()
    assert card.startswith("---\nbase_model: LlamaForCausalLM\n")
    assert f"{len(some('llama', 0, 5))} neurons switched off" in card


@each
def test_it_tells_its_edits_to_whoever_compares(form, tmp_path):
    model, texts = model_of("llama"), {"en": Documents(["the cat sat on the mat. " * 200])}
    edits = [
        Off(some("llama", 0, 5)),
        Scale(some("llama", 1, 5), 2.0),
        Set(some("llama", 2, 5), 0.5),
        Add(some("llama", 3, 5), 0.25, 2.0, at="gate"),
    ]
    path = form.write(model, edits, tmp_path / "out", tokenizer=tokenizer_of(), texts=texts)
    with edited(model, edits):
        expected = logits_of(model, IDS)
    with edited(model, edits_in(path, model)):
        assert torch.equal(logits_of(model, IDS), expected)


@pytest.mark.parametrize("form", [EXPORTS["lora"], EXPORTS["gguf-lora"]], ids=["lora", "gguf-lora"])
def test_what_is_added_at_the_gate_is_there_where_the_input_holds_a_constant(form, tmp_path):
    """In a model whose gates read a constant beside the text, the direction is found and the edit is exact, but at first positions."""
    model = constant_input()
    edit = Add(some("llama", 0, 5), 0.5, 2.0, at="gate")
    path = form.write(
        model,
        edit,
        tmp_path / "out",
        tokenizer=tokenizer_of(),
        texts={"en": Documents(["the cat sat on the mat. " * 200])},
    )
    with edited(model, edit):
        expected = logits_of(model, IDS)
    found = logits_of(form.load(path, model), IDS)
    assert_near(found, expected, 1e-3)
    assert float((expected - logits_of(model, IDS)).abs().max()) > 0.1


def constant_input() -> Any:
    """Every MLP input has 1 in its first dimension, and what a first position has there is another's: 0."""
    model = deepcopy(model_of("llama"))

    class Norm(torch.nn.Module):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Any) -> Any:
            first = torch.arange(x.shape[1]) == 0
            return torch.cat([(~first).to(x)[None, :, None].expand(len(x), -1, 1), self.inner(x)[..., 1:]], -1)

    for layer in model.model.layers:
        layer.post_attention_layernorm = Norm(layer.post_attention_layernorm)
    return model


@each
def test_add_at_the_activation_of_a_gated_mlp_is_refused_with_what_to_use(form, tmp_path):
    with pytest.raises(OptionError, match=r'at="gate".*lape\.edited'):
        form.write(model_of("llama"), Add(some("llama", 0, 5), 1.0), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@each
@pytest.mark.parametrize(
    "edit", [Set(some("llama", 0, 5), 1.0), Add(some("llama", 0, 5), 1.0, at="gate")], ids=["Set", "Add"]
)
def test_a_constant_needs_text_and_enough_of_it(form, edit, tmp_path):
    with pytest.raises(OptionError, match="texts="):
        form.write(model_of("llama"), edit, tmp_path / "out")
    with pytest.raises(OptionError, match="Expected at least 64"):
        form.write(
            model_of("llama"), edit, tmp_path / "out", tokenizer=tokenizer_of(), texts={"en": Documents(["the cat"])}
        )
    assert list(tmp_path.iterdir()) == []


@each
def test_neurons_of_another_model_are_refused(form, tmp_path):
    with pytest.raises(MismatchError):
        form.write(model_of("llama"), Off(NeuronSet(NeuronSpace.dense(LAYERS, 7), torch.arange(3))), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@each
def test_what_is_there_is_replaced_only_when_told_and_foreign_files_never(form, tmp_path):
    edit = Off(some("llama", 0, 5))
    path = form.write(model_of("llama"), edit, tmp_path / "out")
    before = {one.name: one.read_bytes() for one in path.iterdir()}
    with pytest.raises(FileError, match=r"out.*overwrite=True"):
        form.write(model_of("llama"), edit, tmp_path / "out")
    assert {one.name: one.read_bytes() for one in path.iterdir()} == before
    form.write(model_of("llama"), Off(some("llama", 1, 5)), tmp_path / "out", overwrite=True)
    assert {one.name: one.read_bytes() for one in path.iterdir()} != before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(FileError, match="mine"):
        form.write(model_of("llama"), edit, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


@each
def test_a_disk_that_fails_leaves_what_was_there(form, tmp_path, monkeypatch):
    edit = Off(some("llama", 0, 5))
    path = form.write(model_of("llama"), edit, tmp_path / "out")
    before = {one.name: one.read_bytes() for one in path.iterdir()}

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lape.store.files.write_json", fail)
    with pytest.raises((OSError, FileError), match="space"):
        form.write(model_of("llama"), edit, tmp_path / "out", overwrite=True)
    assert [one.name for one in tmp_path.iterdir()] == ["out"]
    assert {one.name: one.read_bytes() for one in path.iterdir()} == before
