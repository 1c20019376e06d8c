"""`lape run NAME`: one experiment on a run, by its own options; what it lacks is said with what to type."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

import lape
from lape.cli import run as cli
from lape.experiments import experiments
from lape.reporting.gather import gather
from support.planted import LANGUAGES, planted_folder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A model, a recorded run with its neurons, and parallel text."""
    return planted_folder(tmp_path_factory.mktemp("made"))


def parallel(folder: Path) -> list[str]:
    return [word for language in LANGUAGES for word in ("--parallel", f"{language}={folder}/{language}2.txt")]


def test_an_experiment_that_needs_no_model_runs_on_a_run_alone(made, capsys):
    assert cli(["run", "layers", "--run", str(made / "run"), "--resamples", "50"]) == 0
    said = capsys.readouterr().out
    assert "Layers" in said
    assert "by chance" in " ".join(said.split())
    shown = experiments()["layers"].tables["layers"].columns
    assert all(column.label in said for column in shown), "every column is there, since nothing here is a terminal"
    neurons = lape.LanguageNeurons.load(made / "run")
    assert pl.read_parquet(made / "run" / "layers" / "histogram.parquet").equals(neurons.by_layer())
    assert set(gather(made / "run").tables) >= {"layers", "histogram", "layer_claims"}
    assert cli(["run", "layers", "--run", str(made / "run")]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_an_experiment_on_a_model_takes_its_own_options_and_keeps_them(made, tmp_path, capsys):
    words = ["run", "sweep", str(made / "model"), "--run", str(made / "run"), *parallel(made), "--device", "cpu"]
    words += ["--rates", "0.002", "0.02", "--tokens", "0.25k", "--resamples", "50", "--out", str(tmp_path / "sweep")]
    assert cli(words) == 0
    assert "Set sizes" in capsys.readouterr().out
    kept = json.loads((tmp_path / "sweep" / "run.json").read_text())
    assert kept["options"]["rates"] == [0.002, 0.02]
    assert kept["options"]["tokens"] == 250
    table = pl.read_parquet(tmp_path / "sweep" / "sweep.parquet")
    experiments()["sweep"].tables["sweep"].check("sweep", table)
    assert set(table["rate"].round(3)) == {0.002, 0.01, 0.02}
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["similarity"], "names its model|it runs a model, and no model was named"),
        (["forcing"], "lape force MODEL --run RUN --out FOLDER"),
    ],
)
def test_what_is_missing_is_one_paragraph_with_what_to_type(made, capsys, words, said):
    assert cli(["run", *words, "--run", str(made / "run")]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert any(one in error for one in said.split("|")), error
    assert f"Type: lape {'run ' + words[0] if words[0] != 'forcing' else ''}".strip() in error
    assert "Traceback" not in error
    assert not list((made / "run").glob(f"{words[0]}*"))
