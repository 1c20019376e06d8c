"""Errors: ours are also what Python users expect, and nothing that catches others' takes them for those."""

from __future__ import annotations

import ast
import pickle
import re
from pathlib import Path

import polars as pl
import pytest

from lape import errors
from lape.cli import run
from lape.cli.export import _edits
from lape.errors import (
    FileError,
    LapeError,
    MismatchError,
    MissingLanguageError,
    ModelError,
    OptionError,
    TextError,
    certain,
    foreign,
    passed_over,
)
from lape.experiments import claim
from lape.model.verify import _packs
from lape.store import files
from lape.store.run import read_table, write_table
from lape.values.neurons import LanguageNeurons
from lape.values.space import NeuronSpace
from support.pages import ROOT
from support.planted import planted

KINDS = {
    FileError: OSError,
    MissingLanguageError: KeyError,
    **dict.fromkeys((TextError, ModelError, MismatchError, OptionError), ValueError),
}


@pytest.mark.parametrize(("kind", "usual"), KINDS.items())
def test_an_error_is_ours_and_the_kind_that_python_users_catch(kind, usual):
    error = kind("x is 3. Expected 4.")
    assert isinstance(error, LapeError)
    assert isinstance(error, usual)
    assert str(error) == "x is 3. Expected 4."
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.args) == (kind, str(error), error.args)


def test_every_error_of_ours_is_one_of_these():
    ours = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, LapeError)]
    assert set(ours) == {LapeError, *KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_ours_pass_where_what_others_raise_is_explained_or_passed_over(kind, tmp_path):
    for around in (foreign(ModelError, "explained".format), passed_over(OSError, ValueError), files.writing(tmp_path)):
        with pytest.raises(kind, match=r"^as it is$"), around:
            raise kind("as it is")
    with passed_over(OSError, ValueError):
        raise ValueError("of others")


def test_a_changed_table_is_told_of_once(tmp_path):
    path = tmp_path / "some.parquet"
    write_table(path, pl.DataFrame({"a": [1, 2]}))
    content = bytearray(path.read_bytes())
    content[8] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileError) as refused:
        read_table(path)
    assert str(refused.value).count(path.name) == 1


def test_claims_that_are_refused_say_why_themselves(tmp_path, monkeypatch):
    path = tmp_path / "claims.toml"
    path.write_text("")

    def refuse(_text: str, _where: str) -> None:
        raise FileError("as it is")

    monkeypatch.setattr(claim, "parsed", refuse)
    with pytest.raises(FileError, match=r"^as it is$"):
        claim.read(path)


def test_a_model_that_is_refused_is_not_taken_for_one_that_packs_nothing(monkeypatch):
    def refuse(_model: object) -> None:
        raise ModelError("as it is")

    monkeypatch.setattr("lape.model.verify._apart", refuse)
    with pytest.raises(ModelError, match=r"^as it is$"):
        _packs(planted())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["identify", "RUN", "--rate", "7"], "error: --rate is 7.0. Expected"),
        (["perplexity", "m", "RUN", "--text", "fr=x", "--draws", "-1"], "error: --draws is -1. Expected 0 or more."),
        (
            ["record", "m", "--text", "fr=x", "--out", "o", "--tokens", "many"],
            "error: 'many' is not a number of tokens.",
        ),
    ],
)
def test_the_command_line_says_what_the_library_does(words, said, tmp_path, monkeypatch, capsys):
    """Also where a library in between, which takes every ValueError for its own, builds the options."""
    monkeypatch.chdir(tmp_path)
    assert run(words) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert said in told
    assert "Invalid value" not in told


def test_a_language_without_neurons_is_not_taken_for_a_wrong_factor():
    neurons = LanguageNeurons(NeuronSpace.dense(1, 4), {})
    with pytest.raises(TextError, match="zh"):
        _edits(neurons, [], ["zh=2"])
    with pytest.raises(OptionError, match="has no factor"):
        _edits(neurons, [], ["zh=loud"])


WHOLE = re.compile(r"\b(lape (identify|record|merge|study|steer)|pip install|ray start)\b.* --[a-z]")
"""A command to type, where no parameter could say it."""


def test_what_the_library_says_is_of_parameters_not_of_flags():
    flagged = 0
    for path in (ROOT / "src/lape").rglob("*.py"):
        if "cli" in path.relative_to(ROOT / "src/lape").parts:
            continue
        for said in messages(path):
            found = re.findall(r"(?<![\w-])--[a-z][\w-]*", said)
            flagged += len(found)
            assert not found or WHOLE.search(said), f"{path}: {said}"
    assert flagged


def messages(path: Path) -> list[str]:
    """The texts of errors and warnings, values in them as {}."""
    every = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Raise) or (isinstance(node, ast.Call) and ast.unparse(node.func).endswith("warn"))
    ]
    texts = [text for node in every for text in ast.walk(node) if isinstance(text, ast.Constant | ast.JoinedStr)]
    return [
        "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in text.values)
        if isinstance(text, ast.JoinedStr)
        else str(text.value)
        for text in texts
    ]


SOURCES = sorted((ROOT / "src" / "lape").rglob("*.py"))


def nodes(kind):
    """Every node of a kind in lape, with its place."""
    return [
        (f"{path.relative_to(ROOT)}:{node.lineno}", node)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, kind)
    ]


def test_nothing_depends_on_an_assertion_which_optimised_python_leaves_out():
    assert [place for place, _ in nodes(ast.Assert)] == []
    assert [place for place, node in nodes(ast.Name) if node.id == "__debug__"] == []


def test_whatever_may_be_raised_is_not_swallowed_without_a_word():
    """A handler of every exception raises, hands the error on, or writes a line to the log."""

    def says(handler):
        raised = any(isinstance(node, ast.Raise) for node in ast.walk(handler))
        calls = [node for node in ast.walk(handler) if isinstance(node, ast.Call)]
        logged = any(ast.unparse(call.func).startswith("_log.") for call in calls)
        handed = any(ast.unparse(argument) == handler.name for call in calls for argument in call.args)
        return raised or logged or handed

    broad = [
        (place, handler)
        for place, handler in nodes(ast.ExceptHandler)
        if handler.type is None or ast.unparse(handler.type) in ("Exception", "BaseException")
    ]
    assert len(broad) > 5
    assert [place for place, handler in broad if not says(handler)] == []


def test_certain_is_checked_in_optimised_python_too():
    assert certain(0) == 0
    with pytest.raises(RuntimeError, match="None"):
        certain(None)
