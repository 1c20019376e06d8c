"""What verbs are given, and what they look for where nothing is given."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from lape.cli.demo import demo
from lape.cli.inputs import DEMO, run_of
from lape.errors import OptionError


def test_sample_finds_the_run_that_demo_leaves_where_the_documentation_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=r"Make the demo's, runs/demo, with lape demo, or record one"):
        run_of("sample", None)
    DEMO.mkdir(parents=True)
    (DEMO / "stats.safetensors").touch()
    assert run_of("sample", None) == DEMO == inspect.signature(demo).parameters["to"].default == Path("runs/demo")
    with pytest.raises(OptionError, match=r"No run was given\. Record one"):
        run_of("another", None)
