"""Two results of one model side by side: the table against sets of Python, and the verb as a user meets it."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from lape.cli import run
from lape.cli.compare import compare_table
from lape.cli.tables import histogram
from lape.detect.stability import chance_jaccard
from lape.errors import MismatchError
from lape.experiments.compare.run import COMPARED, compare
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


def by_hand(a: set[int], b: set[int]) -> tuple[int, int, int, float]:
    return len(a), len(b), len(a & b), len(a & b) / len(a | b) if a | b else 0.0


@LAW
@given(st.sampled_from([SPACE, EXPERTS]), st.data())
def test_every_language_and_layer_is_compared_as_sets_are(space, data):
    a, b = data.draw(sets_in(space)), data.draw(sets_in(space))
    table = compare(neurons_of(a, space), neurons_of(b, space))
    layer_of = [stretch.layer for stretch in space for _ in range(stretch.width)]
    rows = {(row["language"], row["layer"]): row for row in table.iter_rows(named=True)}
    assert len(rows) == len(table)
    languages = [*a, *(language for language in b if language not in a), "all"]
    assert list(rows) == [(language, layer) for language in languages for layer in (None, *space.layers)]
    a["all"], b["all"] = set().union(*a.values()), set().union(*b.values())
    for (language, layer), row in rows.items():
        in_a, in_b = (
            {j for j in own[language] if layer in (None, layer_of[j])} if language in own else None for own in (a, b)
        )
        if in_a is None or in_b is None:
            size = len(in_b if in_a is None else in_a)
            assert [row["a"], row["b"]] == ([None, size] if in_a is None else [size, None])
            assert [row[name] for name in ("shared", "jaccard", "chance")] == [None] * 3
        else:
            assert tuple(row[name] for name in ("a", "b", "shared", "jaccard")) == by_hand(in_a, in_b)
            ours, theirs = (neurons_of({"en": one}, space)["en"] for one in (in_a, in_b))
            assert row["chance"] == chance_jaccard(ours, theirs)


@LAW
@given(sets_in(SPACE), sets_in(SPACE))
def test_the_other_way_round_a_and_b_change_places(a, b):
    one, two = compare(neurons_of(a), neurons_of(b)), compare(neurons_of(b), neurons_of(a))
    assert one.sort("language", "layer").equals(
        two.rename({"a": "b", "b": "a"}).select(list(COMPARED)).sort("language", "layer")
    )


def test_a_result_agrees_with_itself_wherever_it_has_neurons():
    own = neurons_of({"en": {0, 1, 9}, "fr": {20}})
    table = compare(own, own)
    assert table.filter(pl.col("a") > 0)["jaccard"].to_list() == [1.0] * len(table.filter(pl.col("a") > 0))
    assert (table["a"] == table["shared"]).all()


def test_different_spaces_are_refused_naming_both():
    with pytest.raises(MismatchError, match=r"21 neurons.*13 neurons"):
        compare(neurons_of({"fr": {1}}), neurons_of({"fr": {1}}, EXPERTS))


# The verb


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


PUBLISHED = ["--languages", "en,fr,zh", "--width", "7"]


def _words(said: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split()[1:] for line in said.splitlines() if line.strip()}


def test_a_run_and_a_published_file(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(files.rglob("*"))
    assert run(["compare", str(files / "run"), str(files / "b.pth"), *PUBLISHED]) == 0
    words = _words(capsys.readouterr().out)
    # Expected shared: en 3·3/7 + 1·0 + 0·1 = 9/7 of 8, fr (2·2 + 1·1)/7 of 6.
    assert words["en"] == ["4", "4", "0.333", f"{(9 / 7) / (8 - 9 / 7):.3f}", "▄··"]
    assert words["fr"] == ["3", "3", "1.000", f"{(5 / 7) / (6 - 5 / 7):.3f}", "██"]
    assert words["zh"] == ["–", "1"]
    assert words["all"][:3] == ["6", "8", f"{5 / 9:.3f}"]
    assert words["A:"][-1] == "(lape)"
    assert words["B:"][-1] == "(published)"
    assert sorted(files.rglob("*")) == before, "nothing is written without --out"


def test_what_a_published_file_does_not_say_is_taken_from_the_run(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    neurons_of({"en": {1, 2, 3, 15}, "fr": {7, 8, 20}}).save(files / "c.pth")
    assert run(["compare", str(files / "c.pth"), str(files / "run")]) == 0
    said = capsys.readouterr()
    assert said.err == f"From {files / 'run'}: --languages en,fr --width 7\n"
    assert _words(said.out)["en"][:3] == ["4", "4", "0.333"]


def test_the_table_is_written_where_asked(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compare", str(files / "run"), str(files / "b.pth"), *PUBLISHED, "--out", str(files / "t.parquet")]
    assert run(arguments) == 0
    a = LanguageNeurons.load(files / "run")
    b = LanguageNeurons.load(files / "b.pth", languages=["en", "fr", "zh"], width=7)
    assert pl.read_parquet(files / "t.parquet").equals(compare(a, b))
    assert run(arguments) == 2
    assert str(files / "t.parquet") in capsys.readouterr().err
    assert run([*arguments, "--overwrite"]) == 0


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
    out = files / "t.parquet"
    assert run(["compare", *(str(files / name) for name in names), *more, "--out", str(out)]) == 2
    error = capsys.readouterr().err.replace("\n", " ")
    assert error.startswith(("error: ", "From "))
    assert all(word in error for word in said), error
    assert not out.exists()


def test_a_model_of_40_layers_fits_80_columns() -> None:
    space = NeuronSpace.dense(40, 60)
    own = neurons_of({"fr": range(2000), "zh-Hant": range(1000, 2200)}, space)
    console = Console(width=80, record=True, file=StringIO())
    console.print(compare_table(compare(own, own)))
    assert "█" * 34 in console.export_text()
    assert "…" not in console.export_text()


def test_a_line_of_shares_has_full_height_at_1_and_tells_none_shared_from_none_there():
    assert histogram([0, 0, 1, 4, 8], [0, 9, 1000, 8, 8]) == " ·▁▄█"
    assert histogram([0, 2, 4]) == " ▄█"


def test_a_deep_model_shows_the_shares_of_several_layers_in_one():
    assert histogram([4, 0] * 40, [4, 4] * 40) == "▄" * 40
