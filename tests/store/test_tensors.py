"""Tensor files: what was changed since it was written is never read, at once where the file is small and else when its turn comes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lape.errors import FileError
from lape.store import tensors as module
from lape.store.lazy import FromFile
from lape.store.tensors import TensorFile, packed, write_tensors

TENSORS = {
    "fr/sum": torch.arange(5, dtype=torch.float64),
    "fr/fires": torch.arange(6).reshape(2, 3),
    "fr/none": torch.zeros(0),
}


@pytest.fixture
def path(tmp_path):
    write_tensors(tmp_path / "a.safetensors", TENSORS, {"kind": "things", "n": 1})
    return tmp_path / "a.safetensors"


def read(path):
    return dict(FromFile(TensorFile(path, "things", {"n": int})))


@pytest.mark.parametrize("bit", range(0, 8, 3))
def test_no_bit_can_change_unseen(path, bit):
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
        with pytest.raises(FileError, match=r"a\.safetensors"):
            read(path)


def test_a_large_file_opens_at_once_and_what_is_damaged_in_it_is_found_when_it_is_read(path, monkeypatch):
    content = path.read_bytes()
    at = content.index(TENSORS["fr/sum"].numpy().tobytes())
    path.write_bytes(content[: at + 9] + b"\1" + content[at + 10 :])
    with pytest.raises(FileError, match="fr/sum is not as it was written"):
        TensorFile(path, "things").obey(lambda _name, _tensor: None)
    monkeypatch.setattr(module, "SMALL", 10)
    file = TensorFile(path, "things")
    file.obey(lambda _name, _tensor: None)
    assert torch.equal(file.tensor("fr/fires"), TENSORS["fr/fires"])
    with pytest.raises(FileError, match="fr/sum is not as it was written"):
        file.tensor("fr/sum")


def test_whether_a_name_is_there_is_known_without_reading(path, monkeypatch):
    some = FromFile(TensorFile(path, "things"), "fr/")
    monkeypatch.setattr(TensorFile, "tensor", lambda *_: pytest.fail("read"))
    assert "sum" in some
    assert "x" not in some


def test_files_without_a_seal_are_refused(path):
    save_file(TENSORS, path, metadata={"lape": '{"kind": "things", "n": 1}'})
    with pytest.raises(FileError, match=r"is damaged: its header holds lape, not lape, seal, sha256"):
        read(path)


@pytest.mark.parametrize(
    "empty", [torch.from_numpy(np.unique(np.empty(0, np.int64))), torch.empty(0, 3).T, torch.empty(3, 0)]
)
def test_tensors_without_numbers_are_written_and_read(tmp_path, empty):
    write_tensors(tmp_path / "empty.safetensors", {"a": empty}, {"kind": "things", "n": 1})
    again = read(tmp_path / "empty.safetensors")["a"]
    assert (again.shape, again.dtype) == (empty.shape, empty.dtype)


def test_laws_are_asked_of_what_is_read_and_headers_of_their_types(path):
    with pytest.raises(FileError, match=r"its header.n is a whole number; expected text"):
        TensorFile(path, "things", {"n": str})
    with pytest.raises(FileError, match="sums are odd"):
        TensorFile(path, "things").obey(lambda name, _tensor: "sums are odd" if name == "fr/sum" else None)


def test_the_bytes_are_those_of_the_file(path):
    assert packed(TENSORS, {"kind": "things", "n": 1}) == path.read_bytes()
