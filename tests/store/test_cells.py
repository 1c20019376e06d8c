"""Cells: made once and found again, whole or not at all, and never kept without a folder."""

from __future__ import annotations

import json
import unicodedata
import warnings
from pathlib import Path

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.store.cells import Cells

TABLE = pl.DataFrame({"language": ["en", "fr"], "pieces": [["a"], []], "value": [0.5, None]})
TENSORS = {"nll": torch.tensor([0.5, 2.0], dtype=torch.float64), "tokens": torch.tensor([3, 4])}
KINDS = {
    "parquet": (lambda cells, name, make: cells.table(name, make), TABLE),
    "safetensors": (lambda cells, name, make: cells.tensors(name, make, "a loss"), TENSORS),
    "json": (lambda cells, name, make: cells.record(name, make), {"tables": ["a"], "notes": ["é"]}),
}
each = pytest.mark.parametrize("ending", list(KINDS))


def same(a, b):
    if isinstance(a, pl.DataFrame):
        return a.equals(b) and a.schema == b.schema
    if isinstance(next(iter(a.values())), torch.Tensor):
        return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)
    return a == b


def never():
    pytest.fail("made again")


@each
def test_a_cell_is_made_once_and_found_again(tmp_path, ending):
    get, made = KINDS[ending]
    cells = Cells(tmp_path / "cells")
    assert not cells.has("en.fr", ending)
    assert same(get(cells, "en.fr", lambda: made), made)
    assert cells.has("en.fr", ending)
    assert [path.name for path in (tmp_path / "cells").iterdir()] == [f"en.fr.{ending}"]
    assert same(get(Cells(tmp_path / "cells"), "en.fr", never), made)


@each
def test_without_a_folder_a_cell_is_made_each_time(tmp_path, monkeypatch, ending):
    monkeypatch.chdir(tmp_path)
    get, made = KINDS[ending]
    times = []
    for _ in range(2):
        assert same(get(Cells(None), "en", lambda: (times.append(1), made)[1]), made)
    assert len(times) == 2
    assert not Cells(None).has("en", ending)
    assert not list(tmp_path.iterdir())


@each
def test_what_fails_or_is_killed_leaves_no_cell(tmp_path, monkeypatch, ending):
    get, made = KINDS[ending]

    def killed():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(Cells(tmp_path), "en", killed)
    monkeypatch.setattr("lape.store.files.os.replace", lambda *_: killed())
    with pytest.raises(KeyboardInterrupt):
        get(Cells(tmp_path), "en", lambda: made)
    assert not list(tmp_path.iterdir())
    assert not Cells(tmp_path).has("en", ending)


def flipped(content: bytes) -> list[bytes]:
    """With one bit changed, in some places."""
    places = range(0, len(content), max(1, len(content) // 60))
    return [content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in places]


@each
def test_a_damaged_cell_is_said_by_name_and_made_again(tmp_path, ending):
    get, made = KINDS[ending]
    path = tmp_path / f"en.{ending}"
    get(Cells(tmp_path), "en", lambda: made)
    for damaged in [b"PAR1 no", *flipped(path.read_bytes())]:
        path.write_bytes(damaged)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert same(get(Cells(tmp_path), "en", lambda: made), made)
        assert all(path.name in str(one.message) for one in said)
        assert said or damaged != b"PAR1 no"
        assert same(get(Cells(tmp_path), "en", never), made)


def test_a_table_can_be_written_over_another(tmp_path):
    cells = Cells(tmp_path)
    cells.table("a", lambda: TABLE)
    cells.keep("a", TABLE[:1])
    assert same(cells.table("a", never), TABLE[:1])
    Cells(None).keep("a", TABLE)


def test_kinds_of_one_name_are_told_apart(tmp_path):
    cells = Cells(tmp_path)
    cells.table("layers", lambda: TABLE)
    assert not cells.has("layers", "json")
    assert cells.record("layers", lambda: {"x": 1}) == json.loads((tmp_path / "layers.json").read_text())["record"]


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1, max_size=400))
def test_every_name_is_a_file_in_the_folder(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("cells")
    cells = Cells(folder)
    cells.record(name, lambda: {"name": name})
    assert cells.record(name, never) == {"name": name}
    (path,) = folder.glob("[!.]*.json")
    assert path.parent == folder
    plain = set("abcdefghijklmnopqrstuvwxyz0123456789.-_")
    assert set(name) - plain or name[0] == "." or len(name) > 90 or path.name == f"{name}.json"


def folded(name: str) -> str:
    """As the least careful file system sees it: no capitals, and one way to write each letter."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


LIKE = [
    "a b",
    "a_b",
    "a/b",
    "a%20b",
    "A b",
    "a%b",
    "é",
    "e\u0301",
    ".a",
    "a.",
    "",
    "%",
    "%%",
    "x" * 300,
    "x" * 301,
    "X" * 300,
]
names = st.one_of(st.sampled_from(LIKE), st.text(alphabet="aA/_ %.é", max_size=6), st.text(max_size=300))


@settings(max_examples=500, deadline=None)
@given(st.lists(names, min_size=2, max_size=6, unique=True))
def test_different_names_are_different_files_on_every_file_system(names):
    cells = Cells(Path("cells"))
    places = [folded(str(cells.place(name))) for name in names]
    assert len(set(places)) == len(names)
    assert all(len(Path(place).name.encode()) < 200 for place in places)


def test_a_name_is_never_answered_with_another_ones_cell(tmp_path):
    cells = Cells(tmp_path)
    for name in LIKE:
        assert cells.record(name, lambda name=name: {"name": name}) == {"name": name}
    for name in LIKE:
        assert cells.record(name, never) == {"name": name}
