"""What every export owes: the edited model itself, whoever loads it; a manifest; nothing half-written; refusals that say what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from lape.edit.edit import Add, Off, Scale, Set, edited
from lape.errors import FileError, MismatchError, OptionError
from lape.ship.checkpoint import export
from lape.values.neurons import NeuronSet
from lape.values.space import NeuronSpace
from support.brute import assert_near, logits_of, model_of, tokenizer_of, width_of
from support.tiny import LAYERS

IDS = torch.tensor([[1, 20, 30, 40, 50, 60, 70]])


@dataclass(frozen=True)
class Export:
    """A format: how it is written, and how one who does not know lape loads it."""

    write: Callable[..., Path]
    load: Callable[[Path, Any], Any]
    """(what was written, the unedited model) -> a model."""
    bakes: tuple[type, ...]
    """The edits that a gated MLP can hold in it."""


EXPORTS = {
    "checkpoint": Export(
        export, lambda path, _: AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval(), (Off, Scale)
    ),
}
FAMILIES = ("llama", "gemma3_text", "phi3", "gpt2", "bloom")
each = pytest.mark.parametrize("form", EXPORTS.values(), ids=EXPORTS)


def some(kind: str, start: int, step: int) -> NeuronSet:
    space = NeuronSpace.dense(LAYERS, width_of(kind))
    return NeuronSet(space, torch.arange(start, len(space), step))


@each
@pytest.mark.parametrize("kind", FAMILIES)
def test_what_is_loaded_is_the_edited_model(form, kind, tmp_path):
    model = model_of(kind)
    edits = [Off(some(kind, 0, 5)), Scale(some(kind, 1, 3), -2.5), Scale(some(kind, 2, 4), 0.5)]
    path = form.write(model, edits, tmp_path / "out", tokenizer=tokenizer_of())
    with edited(model, edits):
        expected = logits_of(model, IDS)
    assert_near(logits_of(form.load(path, model), IDS), expected)
    assert not torch.equal(expected, logits_of(model, IDS)), "the model itself is as it was"


@each
def test_it_says_where_it_comes_from(form, tmp_path):
    path = form.write(model_of("llama"), Off(some("llama", 0, 5)), tmp_path / "out")
    said = json.loads((path / "lape.json").read_text())
    assert said["edits"][0]["edit"] == "off"
    assert said["edits"][0]["neurons"] == len(some("llama", 0, 5))
    assert len(said["made_from"]["model"]["checksum"]) == 64


@each
@pytest.mark.parametrize("edit", [Set(some("llama", 0, 5), 1.0), Add(some("llama", 0, 5), 1.0)], ids=["Set", "Add"])
def test_what_a_gated_mlp_cannot_hold_is_refused_with_what_to_use(form, edit, tmp_path):
    if isinstance(edit, form.bakes):
        pytest.skip("this format holds it")
    with pytest.raises(OptionError, match=r"lape\.edited"):
        form.write(model_of("llama"), edit, tmp_path / "out")
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
