"""One process at a time makes an output, and a process that is killed stands in nobody's way."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

import pytest

from lape.errors import FileError
from lape.store.draft import Draft
from lape.store.files import refuse_existing
from lape.store.lock import Lock

HOLD = "import sys, time; from pathlib import Path; from lape.store.lock import Lock; lock = Lock(Path(sys.argv[1])); print(1, flush=True); time.sleep(60)"


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "new" / "run")], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_what_another_process_makes_is_refused_until_it_is_killed(tmp_path, other):
    for _ in range(2):
        with pytest.raises(FileError, match=r"new/run is being written by another process"):
            Draft(tmp_path / "new" / "run", overwrite=True)
    Lock(tmp_path / "new" / "another").release()
    other.kill()
    other.wait()
    with Lock(tmp_path / "new" / "run"):
        pass
    assert not list((tmp_path / "new").iterdir())


def test_a_lock_leaves_nothing_and_a_process_does_not_lock_itself_out(tmp_path):
    target = tmp_path / "a" / "b" / "run"
    with Lock(target), Lock(target):
        assert [path.name for path in target.parent.iterdir()] == [".run.lock"]
    assert not list(tmp_path.iterdir())
    lock = Lock(target)
    assert target.parent.exists()
    del lock
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_where_no_file_can_be_made_nothing_is_locked(tmp_path):
    (tmp_path / "a").write_text("")
    with Lock(tmp_path / "a" / "run"):
        assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_lock_of_a_process_that_was_killed_when_all_was_in_place_goes_with_the_next_refusal(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / ".run.lock").touch()
    with pytest.raises(FileError, match="overwrite=True"):
        refuse_existing(tmp_path / "run", overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_threads_take_and_release_one_lock_at_once(tmp_path):
    """One process does not lock itself out, whichever of its threads asks; in the end nothing is locked or left."""
    failed = []

    def take():
        try:
            for _ in range(200):
                with Lock(tmp_path / "run"):
                    pass
        except (FileError, KeyError) as error:
            failed.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=take) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert failed == []
    assert not list(tmp_path.iterdir())
