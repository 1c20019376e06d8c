"""Tensors that are read or added only when asked for: the same values, never more than one of them held."""

from __future__ import annotations

import weakref

import pytest
import torch
from safetensors.torch import load_file

from lape.store import files
from lape.store.lazy import Deferred, FromFile, Together, later, like
from lape.store.tensors import TensorFile, write_tensors

TENSORS = {
    "fr/fires": torch.arange(24).reshape(2, 12),
    "fr/sum": torch.rand(12, dtype=torch.float64),
    "fr/texts": torch.rand(
        3, 5
    ).half(),  # 15 numbers of two bytes: what comes after must still begin where eight divides
    "en/fires": torch.zeros(0, 4, dtype=torch.int32),
    "en/one": torch.tensor(True),
}


@pytest.fixture
def path(tmp_path):
    write_tensors(tmp_path / "a.safetensors", TENSORS, {"kind": "things"})
    return tmp_path / "a.safetensors"


def test_what_is_written_is_read_by_the_safetensors_library(path):
    read = load_file(path)
    assert read.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


def test_a_part_of_a_file_is_read_by_names_without_the_prefix(path):
    part = FromFile(TensorFile(path, "things"), "fr/")
    assert sorted(part) == ["fires", "sum", "texts"]
    assert len(part) == 3
    for name in part:
        assert torch.equal(part[name], TENSORS[f"fr/{name}"])
        assert like(part, name).is_meta
        assert (like(part, name).shape, like(part, name).dtype) == (part[name].shape, part[name].dtype)
    with pytest.raises(KeyError):
        part["one"]


def test_two_collections_are_joined_when_asked_and_alike_without_content(path):
    a = FromFile(TensorFile(path, "things"), "fr/")
    b = {"fires": torch.ones(2, 12, dtype=torch.int64), "texts": torch.rand(4, 5).half()}
    both = Together(a, b, {"fires": torch.add, "texts": lambda x, y: torch.cat([x, y])})
    assert torch.equal(both["fires"], TENSORS["fr/fires"] + 1)
    for name in both:
        assert like(both, name).is_meta
        assert (like(both, name).shape, like(both, name).dtype) == (both[name].shape, both[name].dtype)


def test_a_file_is_written_one_tensor_at_a_time(tmp_path):
    alive: list[int] = []

    class Counted(Deferred):
        def like(self, _name):
            return torch.empty(1000, device="meta")

        def __getitem__(self, name):
            alive.append(1)
            tensor = torch.full((1000,), float(name))
            assert sum(alive) <= 2, "the one before it may still be about to go"
            weakref.finalize(tensor, alive.pop)
            return tensor

        def __iter__(self):
            return iter(map(str, range(20)))

        def __len__(self):
            return 20

    some = Counted()
    write_tensors(tmp_path / "a.safetensors", {name: later(some, name) for name in some}, {"kind": "k"})
    assert all(
        torch.equal(tensor, torch.full((1000,), float(n)))
        for n, tensor in load_file(tmp_path / "a.safetensors").items()
    )
    assert later({"a": TENSORS["fr/sum"]}, "a") is TENSORS["fr/sum"]


def test_what_a_killed_process_left_of_a_file_goes_when_the_file_is_written_again(tmp_path):
    gone, ours, other = (tmp_path / name for name in (".a.json.999999999.tmp", f".b.json.{1}.tmp", ".a.json.x.tmp"))
    for path in (gone, ours, other):
        path.write_text("half")
    files.write_json(tmp_path / "a.json", {})
    assert not gone.exists()
    assert ours.exists()
    assert other.exists()
