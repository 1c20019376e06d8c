"""What a run knows need not be typed again: what is typed wins, and what was taken is said in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lape.cli import _with_config, app
from lape.cli import run as cli
from lape.cli.taken import is_run, named_in
from lape.errors import OptionError
from support.planted import LANGUAGES, planted_folder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A model, and a run that the command line recorded from it, a document a line, in float32."""
    folder = planted_folder(tmp_path_factory.mktemp("taken"))
    texts = [word for k in LANGUAGES for word in ("--text", f"{k}={folder}/{k}.txt")]
    how = ["--document", "line", "--row-tokens", "64", "--dtype", "float32", "--device", "cpu"]
    assert cli(["record", str(folder / "model"), *texts, *how, "--out", str(folder / "mine")]) == 0
    assert cli(["identify", str(folder / "mine"), "--per-language", "4", "--no-reliability"]) == 0
    return folder


def parsed(line: str) -> dict[str, Any]:
    """What a verb is called with."""
    verbs = app()
    words = _with_config(verbs, line.split())
    _, bound, *_ = verbs.parse_args(words, exit_on_error=False, print_error=False)
    return bound.arguments


@pytest.mark.parametrize(
    ("line", "run"),
    [
        ("perplexity {0}", "neurons"),
        ("export {0} --off fr --out o", "neurons"),
        ("examples {0}", "run"),
        ("steer {0} hello --to fr", "run"),
        ("steer --to fr {0} hello", "run"),
        ("force {0}", "run"),
        ("eval {0} --tasks t", "run"),
        ("run similarity {0}", "run"),
    ],
)
def test_a_run_stands_alone_where_a_model_would(made, line, run, capsys):
    place = made / "mine"
    found = parsed(line.format(place))
    assert (found["model"], found[run]) == (str(made / "model"), place)
    assert found["loading"].dtype == "float32"
    said = capsys.readouterr().err
    assert said.startswith(f"From {place}: ")
    assert said.count("\n") == 1
    assert f"model {made / 'model'}" in said
    assert "--dtype float32" in said


def test_how_texts_are_read_is_taken_and_what_is_typed_wins(made, capsys, tmp_path):
    place = made / "mine"
    for line, document in (
        ("perplexity {0}", "line"),
        ("perplexity {0} --document file", "file"),
        ("perplexity another {0}", "line"),
    ):
        assert parsed(line.format(place))["options"].document == document
    found = parsed(f"perplexity another {place} --dtype float64")
    assert (found["model"], found["loading"].dtype) == ("another", "float64")
    assert (
        capsys.readouterr().err.splitlines()[-1] == f"From {place}: --document line"
    )  # of another model nothing else is known
    (tmp_path / "a.toml").write_text('document = "file"\n')
    assert parsed(f"perplexity {place} --config {tmp_path / 'a.toml'}")["options"].document == "file"


def test_two_runs_are_refused_and_a_folder_with_a_model_is_none(made):
    with pytest.raises(OptionError, match=r"is a run, and .* was named too"):
        parsed(f"perplexity {made / 'mine'} {made / 'run'}")
    assert not is_run(made / "model")
    assert is_run(made / "mine" / "neurons.safetensors")


def test_a_run_that_was_recorded_from_a_model_in_memory_does_not_say_which(made):
    with pytest.raises(OptionError, match="does not say which model"):
        parsed(f"perplexity {made / 'run'}")
    assert named_in({"model": {"id": "LlamaForCausalLM", "path": None}}) == ""
    assert named_in({"model": {"id": "gemma-3-270m", "path": None}}) == "sample"
    assert named_in({"model": {"id": "google/gemma-3-270m", "path": None}}) == "google/gemma-3-270m"


def test_text_is_asked_for_with_the_line_to_type_and_taken_from_what_was_measured_before(made, tmp_path, capsys):
    assert cli(["perplexity", str(made / "mine"), "--out", str(tmp_path / "p")]) == 2
    said = capsys.readouterr().err
    typed = " ".join(f"--text {k}=PATH" for k in LANGUAGES)
    assert f"Type: lape perplexity {made / 'model'} {made / 'mine'} {typed}" in said
    texts = [word for k in LANGUAGES for word in ("--text", f"{k}={made}/{k}2.txt")]
    small = ["--draws", "0", "--resamples", "50"]
    assert cli(["perplexity", str(made / "mine"), *texts, *small]) == 0
    assert cli(["perplexity", str(made / "mine"), *small, "--out", str(tmp_path / "p")]) == 0
    first, second = (json.loads((at / "run.json").read_text()) for at in (made / "mine" / "perplexity", tmp_path / "p"))
    assert first["texts"] == second["texts"]
    assert first["options"] == second["options"]


def test_one_file_serves_all_verbs_with_one_key_for_the_run(tmp_path):
    (tmp_path / "all.toml").write_text(
        'model = "m"\nrun = "r"\ntext = ["fr=a"]\ntokens = 500\ndocument = "line"\n[perplexity]\ntokens = 900\n[steer]\nto = "fr"\n'
    )
    more = f"--config {tmp_path / 'all.toml'}"
    recorded = parsed(f"record {more}")
    assert (recorded["to"], recorded["model"], recorded["options"].tokens) == (Path("r"), "m", 500)
    for verb, name in (("identify", "stats"), ("show", "neurons"), ("report", "run"), ("figures", "run")):
        assert parsed(f"{verb} {more}")[name] == Path("r")
    measured = parsed(f"perplexity {more}")
    assert (measured["neurons"], measured["options"].tokens, measured["options"].document) == (Path("r"), 900, "line")
    steered = parsed(f"steer {more} --file a.txt")
    assert (steered["run"], steered["to"]) == (Path("r"), "fr")
    assert "options" not in steered  # tokens says something else there, and is no number
