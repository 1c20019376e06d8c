"""Writing in one step, and saying plainly what is wrong with a file."""

from __future__ import annotations

import errno
import json

import pytest
import torch
from safetensors.torch import save_file

from lape.errors import FileError, LapeWarning
from lape.store import files
from lape.store.tensors import TensorFile, write_tensors


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.safetensors"


def full_disk(temporary):
    temporary.write_text("half")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_tensors_and_header_come_back(path):
    tensors = {"a": torch.arange(6).reshape(2, 3), "b": torch.tensor([torch.inf, -0.0], dtype=torch.float64)}
    write_tensors(path, tensors, {"kind": "things", "language": "中文", "n": [1, None, 0.1]})
    file = TensorFile(path, "things")
    assert file.header == {"kind": "things", "language": "中文", "n": [1, None, 0.1]}
    assert sorted(file.names()) == ["a", "b"]
    assert all(torch.equal(file.tensor(name), tensor) for name, tensor in tensors.items())


def test_the_same_content_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_tensors(tmp_path / name, {"x": torch.ones(3), "y": torch.zeros(2)}, {"kind": "k", "b": 1, "a": 2})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_tensor_that_is_not_contiguous_comes_back(path):
    tensor = torch.arange(6).reshape(2, 3).T
    write_tensors(path, {"a": tensor}, {"kind": "k"})
    assert torch.equal(TensorFile(path, "k").tensor("a"), tensor)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(FileError, match="No space left"):
        files.write(path, full_disk)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_belongs_together_is_written_before_any_of_it_takes_an_older_ones_place(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for path in (first, second):
        path.write_text("old")
    with pytest.raises(FileError, match="No space left"), files.staged(second, lambda file: file.write_text("new")):
        files.write(first, full_disk)
    with pytest.raises(FileError, match="No space left"), files.staged(second, None):
        files.write(first, full_disk)
    assert (first.read_text(), second.read_text()) == ("old", "old")
    with files.staged(second, lambda file: file.write_text("new")):
        files.write_text(first, "new")
    assert (first.read_text(), second.read_text()) == ("new", "new")
    with files.staged(second, None):
        pass
    assert list(tmp_path.iterdir()) == [first]


@pytest.mark.parametrize("state", [b"", b"[]", b"\xff", b"5"])
def test_a_folder_whose_state_is_damaged_is_begun_anew(tmp_path, state):
    (tmp_path / "cells").mkdir()
    for name in ("cells/a.parquet", "b.json", "tokens.bin"):
        (tmp_path / name).write_text("")
    (tmp_path / files.STATE).write_bytes(state)
    with pytest.warns(LapeWarning, match=r"state\.checkpoint is damaged.*made again"):
        files.same_run(tmp_path, {"a": 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == [files.STATE, "tokens.bin"]
    files.same_run(tmp_path, {"a": 1})
    with pytest.raises(FileError, match="in which a was"):
        files.same_run(tmp_path, {"a": 2})


def test_a_failed_write_names_the_file_wanted_not_the_temporary_one(tmp_path):
    with pytest.raises(FileError) as error:
        files.write(tmp_path / "a.txt", full_disk)
    assert str(tmp_path / "a.txt") in str(error.value)


def test_an_error_of_another_kind_passes_and_leaves_nothing(tmp_path):
    def broken(temporary):
        temporary.write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        files.write(tmp_path / "a.txt", broken)
    assert list(tmp_path.iterdir()) == []


def test_missing_folders_are_made(tmp_path):
    files.write_json(tmp_path / "new" / "folder" / "a.json", {"a": 1})
    assert json.loads((tmp_path / "new" / "folder" / "a.json").read_text()) == {"a": 1}


def test_a_file_where_a_folder_should_be_is_an_error_of_ours(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(FileError):
        files.write_json(tmp_path / "a" / "b.json", {})


def test_json_is_readable_and_sorted(tmp_path):
    files.write_json(tmp_path / "a.json", {"z": "日本", "a": 1})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "日本" in text
    assert text.index('"a"') < text.index('"z"')


def test_an_existing_file_is_refused_unless_told(path):
    path.write_text("")
    with pytest.raises(FileError, match="overwrite=True"):
        files.refuse_existing(path, overwrite=False)
    files.refuse_existing(path, overwrite=True)
    files.refuse_existing(path.with_name("new"), overwrite=False)


@pytest.mark.parametrize("content", [b"", b"x", b"not a tensor file at all", b"\xff" * 100, b"\0" * 8])
def test_what_is_no_tensor_file_is_refused_with_its_name(path, content):
    path.write_bytes(content)
    with pytest.raises(FileError, match=path.name):
        TensorFile(path, "things")


def test_a_missing_file_is_refused_with_its_name(path):
    with pytest.raises(FileError, match=path.name):
        TensorFile(path, "things")


def test_another_kind_of_file_is_refused_naming_both_kinds(path):
    write_tensors(path, {"a": torch.ones(1)}, {"kind": "apples"})
    with pytest.raises(FileError, match=r"apples.*pears"):
        TensorFile(path, "pears")


def test_a_foreign_tensor_file_is_refused(path):
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(FileError, match="did not write"):
        TensorFile(path, "things")


@pytest.mark.parametrize("header", ["[]", "3", "{", "null"])
def test_a_header_that_is_no_object_is_refused(path, header):
    save_file({"a": torch.ones(1)}, path, metadata={"lape": header})
    with pytest.raises(FileError, match=path.name):
        TensorFile(path, "things")


def test_a_finished_folder_takes_the_place_of_an_older_one(tmp_path):
    path = tmp_path / "run"
    working = files.partial(path)
    assert working.name == "run.partial"
    for folder, text in ((path, "old"), (working, "new")):
        folder.mkdir()
        (folder / text).write_text(text)
    files.finish(working, path)
    assert [p.name for p in path.iterdir()] == ["new"]
    assert not working.exists()


@pytest.mark.parametrize("found", ["another kind", "a folder"])
def test_a_part_of_a_stopped_run_that_cannot_be_read_is_dropped_in_one_paragraph(tmp_path, found):
    path = tmp_path / "en.recorded"
    if found == "a folder":
        path.mkdir()
        (path / "x").touch()
    else:
        write_tensors(path, {"x": torch.ones(1)}, {"kind": "neurons"})
    with pytest.raises(FileError) as refused:
        TensorFile(path, "a recorded language")
    with pytest.warns(LapeWarning, match=r"Expected a recorded language\. It is dropped, and"):
        files.dropped(path, refused.value)
    assert not path.exists()


def test_a_state_whose_format_is_no_number_is_dropped(tmp_path):
    (tmp_path / files.STATE).write_text('{"format": "2"}', encoding="utf-8")
    with pytest.warns(LapeWarning, match="format is text; expected a whole number"):
        assert files.state_of(tmp_path) is None
