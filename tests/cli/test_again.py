"""`lape --again PATH` runs the command that made a result once more."""

from __future__ import annotations

import json

import polars as pl
import pytest

from lape.cli import run as cli
from lape.cli.again import recall
from lape.errors import FileError, OptionError
from support.planted import planted_folder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("more", "command"),
    [
        ([], ["run", "layers", "--run", "r", "--parts", "a", "b", "--out=o", "--dry"]),
        (["--out", "n"], ["run", "layers", "--run", "r", "--parts", "a", "b", "--dry", "--out", "n"]),
        (["--parts=c"], ["run", "layers", "--run", "r", "--out=o", "--dry", "--parts=c"]),
        (["--dry"], ["run", "layers", "--run", "r", "--parts", "a", "b", "--out=o", "--dry"]),
        (["--overwrite"], ["run", "layers", "--run", "r", "--parts", "a", "b", "--out=o", "--dry", "--overwrite"]),
    ],
)
def test_options_take_the_place_of_those_of_the_command(tmp_path, more, command):
    made = ["run", "layers", "--run", "r", "--parts", "a", "b", "--out=o", "--dry"]
    (tmp_path / "run.json").write_text(json.dumps({"command": made}))
    for place in (tmp_path, tmp_path / "layers.parquet"):
        (tmp_path / "layers.parquet").touch()
        assert recall([str(place), *more]) == command


def test_a_result_without_a_command_is_refused(tmp_path):
    with pytest.raises(FileError, match=r"which command made .*run\.json"):
        recall([str(tmp_path)])
    with pytest.raises(FileError, match="There is no"):
        recall([str(tmp_path / "layers.parquet")])
    with pytest.raises(OptionError, match="no path"):
        recall([])


def test_a_table_is_made_again_with_the_same_content(tmp_path, capsys):
    run = planted_folder(tmp_path) / "run"
    assert cli(["run", "layers", "--run", str(run), "--resamples", "50"]) == 0
    before = pl.read_parquet(run / "layers" / "layers.parquet")
    capsys.readouterr()
    assert cli(["--again", str(run / "layers")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert cli(["--again", str(run / "layers"), "--overwrite"]) == 0
    assert capsys.readouterr().err.startswith(f"lape run layers --run {run} --resamples 50 --overwrite\n")
    assert pl.read_parquet(run / "layers" / "layers.parquet").equals(before)
    kept = json.loads((run / "layers" / "run.json").read_text())["command"]
    assert kept == ["run", "layers", "--run", str(run), "--resamples", "50", "--overwrite"]
