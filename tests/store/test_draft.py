"""A folder while it is made: whole in its place, or not there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import polars as pl
import pytest

from lape.errors import FileError
from lape.store import files
from lape.store.draft import Draft

TABLE = pl.DataFrame({"language": ["fr"], "value": [1.5]})


def stopped(draft: Draft, *finished: str) -> None:
    """A run that is stopped when some cells are finished."""
    with draft.cells() as cells:
        files.write_json(cells / files.STATE, {"of": "this run"})
        for name in finished:
            files.write_text(cells / name, "{}")
        raise KeyboardInterrupt


def test_nothing_is_in_place_before_the_end_and_everything_after_it(tmp_path):
    draft = Draft(tmp_path / "run")
    with draft.anew() as folder:
        draft.write({"tables/one": TABLE}, run={"verb": "x"})
        assert folder != draft.target
        assert not draft.target.exists()
    assert pl.read_parquet(draft.target / "tables" / "one.parquet").equals(TABLE)
    assert json.loads((draft.target / "run.json").read_text()) == {"verb": "x"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_failed_leaves_nothing_and_what_was_there_stays(tmp_path):
    old = Draft(tmp_path / "run")
    with old.anew():
        old.write({}, run={"verb": "old"})
    new = Draft(tmp_path / "run", overwrite=True)

    def fail() -> None:
        with new.anew():
            new.write({"one": TABLE}, run={"verb": "new"})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == {"verb": "old"}


def test_finished_cells_wait_for_the_rest_and_do_not_outlast_it(tmp_path):
    draft = Draft(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        stopped(draft, "a.json")
    again = Draft(tmp_path / "run")
    with again.cells() as cells:
        assert {path.name for path in cells.iterdir()} == {files.STATE, "a.json"}
        again.write({"one": TABLE}, run={"verb": "x"})
        again.finish()
    assert sorted(path.name for path in draft.target.iterdir()) == ["one.parquet", "run.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_cells_of_which_none_is_finished_do_not_stay(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        stopped(Draft(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_the_way_is_refused_before_anything_is_done(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(FileError, match="exists already"):
        Draft(tmp_path / "notes")
    with pytest.raises(FileError, match="did not write"):
        Draft(tmp_path / "notes", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_what_killed_processes_left_in_a_draft_does_not_outlast_it(tmp_path):
    draft = Draft(tmp_path / "run")
    (draft.folder / "tables").mkdir(parents=True)
    for name in (".recorded.lock", f"tables/.a.parquet.{os.getppid()}.tmp"):  # the number is another process's by now
        (draft.folder / name).touch()
    draft.write({}, run={})
    draft.finish()
    assert {path.name for path in (tmp_path / "run").rglob("*")} == {"run.json", "tables"}


def test_what_is_in_the_way_says_which_command_made_it(tmp_path):
    """A command with other settings can be told from the same one."""
    target = tmp_path / "before"
    target.mkdir()
    files.write_json(target / "run.json", {"command": ["confusion", "m", "--system", "Be brief."], "options": {}})
    with pytest.raises(
        FileError, match=r"before exists already, made by: lape confusion m --system 'Be brief\.'\. Choose"
    ):
        Draft(target)
    for content in ("{", '{"command": 3}', "{}"):
        (target / "run.json").write_text(content)
        with pytest.raises(FileError, match=r"before exists already\. Choose"):
            Draft(target)


def test_a_place_where_nothing_can_be_written_is_refused_and_left_as_it_is(tmp_path):
    files.refuse_unwritable(tmp_path / "a" / "b")
    assert not [*tmp_path.iterdir()]
    with pytest.raises(FileError, match=r"/proc/x could not be written"):
        files.refuse_unwritable(Path("/proc/x"))
