"""lape is a good guest: whatever it is used for, the process, its packages and its machine are left as they were, and nothing runs unasked."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import guest


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: Ray's sockets lie in it, whose paths may have 107 bytes."""
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


@pytest.mark.parametrize("name", guest.SCENARIOS)
def test_nothing_of_the_host_changes_and_nothing_runs_that_it_did_not_ask_for(folder: Path, name: str) -> None:
    package = guest.PACKAGES.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}")
    (folder / "tmp").mkdir()
    place = {
        "HOME": folder,
        "LAPE_CACHE": folder / "cache",
        "TMPDIR": folder / "tmp",
        "PYTHONPATH": guest.ROOT.parent,
    }
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("LAPE_", "XDG_", "GRADIO_", "HF_"))}
    done = subprocess.run(
        [sys.executable, guest.__file__, name, str(folder)],
        env={
            **plain,
            **{key: str(value) for key, value in place.items()},
            "HF_HUB_OFFLINE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == []
