"""`lape show FILE --with FILE`: the table against sets of Python, and the verb as a user meets it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.cli import run
from lape.cli.show import compare_neurons
from lape.errors import MismatchError
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.space import NeuronSpace
from support.made import EXPERTS

LAW = settings(deadline=None, max_examples=40)
SPACE = NeuronSpace.dense(3, 7)


def neurons_of(sets, space: NeuronSpace = SPACE, **more) -> LanguageNeurons:
    made = {k: NeuronSet(space, torch.tensor(sorted(indices), dtype=torch.int64)) for k, indices in sets.items()}
    return LanguageNeurons(space, made, **more)


def sets_in(space: NeuronSpace):
    indices = st.sets(st.integers(0, len(space) - 1))
    return st.dictionaries(st.sampled_from(["en", "fr", "zh-Hant"]), indices, min_size=1)


@LAW
@given(st.sampled_from([SPACE, EXPERTS]), st.data())
def test_each_language_is_compared_as_sets_are(space, data):
    a, b = data.draw(sets_in(space)), data.draw(sets_in(space))
    rows = compare_neurons(neurons_of(a, space), neurons_of(b, space)).rows()
    assert [row[0] for row in rows] == [*a, *(language for language in b if language not in a), "all"]
    a["all"], b["all"] = set().union(*a.values()), set().union(*b.values())
    for language, *found in rows:
        if language not in b:
            assert found == [None, len(a[language]), None, None]
        elif language not in a:
            assert found == [None, None, len(b[language]), None]
        else:
            one, two = a[language], b[language]
            share = len(one & two) / len(one | two) if one | two else 0.0
            assert found == [len(one & two), len(one - two), len(two - one), share]


def test_different_spaces_are_refused_naming_both():
    with pytest.raises(MismatchError, match=r"21 neurons.*13 neurons"):
        compare_neurons(neurons_of({"fr": {1}}), neurons_of({"fr": {1}}, EXPERTS))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A run's folder, a published file of the same shape, and one file of another model."""
    a = neurons_of({"en": {0, 1, 2, 8}, "fr": {7, 8, 20}}, method="lape")
    b = neurons_of({"en": {1, 2, 3, 15}, "fr": {7, 8, 20}, "zh": {5}})
    (tmp_path / "run").mkdir()
    a.save(tmp_path / "run" / "neurons.safetensors")
    b.save(tmp_path / "b.pth")
    neurons_of({"fr": {1}}, EXPERTS).save(tmp_path / "other.safetensors")
    return tmp_path


def words_of(said: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split()[1:] for line in said.splitlines() if line.strip()}


def test_a_run_and_a_published_file(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(files.rglob("*"))
    command = ["show", str(files / "run"), "--with", str(files / "b.pth"), "--languages", "en,fr,zh", "--width", "7"]
    assert run(command) == 0
    words = words_of(capsys.readouterr().out)
    assert words["en"] == ["2", "2", "2", "0.333"]
    assert words["fr"] == ["3", "0", "0", "1.000"]
    assert words["zh"] == ["–", "–", "1"]
    assert words["all"] == ["5", "1", "3", "0.556"]
    assert words["A:"][-1] == "(lape)"
    assert words["B:"][-1] == "(published)"
    assert sorted(files.rglob("*")) == before


def test_what_a_published_file_does_not_say_is_taken_from_the_run(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    neurons_of({"en": {1, 2, 3, 15}, "fr": {7, 8, 20}}).save(files / "c.pth")
    assert run(["show", str(files / "c.pth"), "--with", str(files / "run")]) == 0
    said = capsys.readouterr()
    assert said.err == f"From {files / 'run'}: --languages en,fr --width 7\n"
    assert words_of(said.out)["en"] == ["2", "2", "2", "0.333"]


@pytest.mark.parametrize(
    ("names", "more", "said"),
    [
        (["run", "other.safetensors"], [], ["other.safetensors", "21 neurons", "13 neurons"]),
        (["run", "b.pth"], [], ["3 languages", "2 names"]),
        (["b.pth", "b.pth"], [], ["3 languages", "width"]),
        (["run", "nothing.safetensors"], [], ["nothing.safetensors does not exist", "lape record"]),
        (["run", "b.pth"], ["--languages", "en,fr", "--width", "7"], ["2 names"]),
    ],
)
def test_what_cannot_be_compared_is_refused(files, capsys, names, more, said):
    first, second = (str(files / name) for name in names)
    assert run(["show", first, "--with", second, *more]) == 2
    error = capsys.readouterr().err.replace("\n", " ")
    assert error.startswith(("error: ", "From "))
    assert all(word in error for word in said), error
