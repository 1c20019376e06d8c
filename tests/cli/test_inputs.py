"""What verbs are given, and what they look for where nothing is given."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from lape.cli import run
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
    with pytest.raises(OptionError, match=r"^another does not exist here, and no run was given\. Record one"):
        run_of("another", None)
    Path("another").mkdir()
    with pytest.raises(OptionError, match=r"^No run was given\. Record one"):
        run_of("another", None)


@pytest.mark.parametrize(
    "words",
    [
        ["export", "m", "none", "--to", "vi", "--out", "x"],
        ["export", "m", "none", "--off", "vi", "--out", "x"],
        ["show", "none"],
        ["show", "none", "--with", "none"],
    ],
    ids=" ".join,
)
def test_a_run_that_is_not_there_is_named_with_what_to_type(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(words) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: none does not exist. Expected a run's folder or a file of neurons.")
    assert "type: lape record MODEL --text TAG=PATH --out none" in told
