"""Tables lose nothing, however narrow the terminal is."""

from __future__ import annotations

import io

import polars as pl
import pytest
import torch
from rich.text import Text

from lape.cli import tables
from lape.cli.common import Terminal
from lape.cli.show import neurons_table, overlap_table
from lape.cli.tables import histogram, titled
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.space import NeuronSpace

LANGUAGES = ("en", "zh-Hant", "fr", "es", "vi", "id", "ja", "de", "ru", "ar", "hi", "sw")
PIPE = None


def shown(thing, width: int | None) -> str:
    file = io.StringIO()
    Terminal(file=file, width=width).print(thing)
    return file.getvalue()


def found(layers: int) -> tuple[LanguageNeurons, pl.DataFrame]:
    space = NeuronSpace.dense(layers, 1000)
    draw = torch.Generator().manual_seed(layers)
    sets = {language: NeuronSet(space, torch.randint(len(space), (400,), generator=draw)) for language in LANGUAGES}
    stable = {name: [k / 100 + more for k in range(12)] for name, more in (("median", 0.8), ("p5", 0.6), ("chance", 0))}
    return LanguageNeurons(space, sets, method="lape"), pl.DataFrame({"language": LANGUAGES, **stable})


@pytest.mark.parametrize("layers", [18, 24, 30, 80])
@pytest.mark.parametrize("width", [40, 80, 100, 200, PIPE])
def test_no_table_loses_a_column_a_value_or_a_layer(width, layers, monkeypatch):
    monkeypatch.setattr(tables, "out", Terminal(file=io.StringIO(), width=width))
    neurons, reliability = found(layers)
    said = shown(neurons_table(neurons, reliability), width)
    lines = said.splitlines()
    if width:
        assert max(map(len, lines)) <= width
    assert "…" not in said
    head = " ".join(lines).split()
    for name in ("neurons", "unshared", "peak", "stable", "chance", f"0–{layers - 1}"):
        assert name in head
    for row, language in enumerate(LANGUAGES):
        own = [line for line in lines if line.split()[:1] == [language]]
        counts = [len(neurons[language].by_layer().get(layer, ())) for layer in range(layers)]
        assert sum(histogram(counts) in line for line in own) == 1, "the layers are never cut"
        cells = " ".join(own).split()
        for value in (len(neurons[language]), f"{0.8 + row / 100:.2f}", f"{0.6 + row / 100:.2f}", f"{row / 100:.2f}"):
            assert str(value) in cells
    pairs = shown(overlap_table(neurons), width)
    for a in LANGUAGES:
        own = " ".join(line for line in pairs.splitlines() if line.split()[:1] == [a]).split()
        assert [word for word in own if word.isdigit()] == [str(len(neurons[a] & neurons[b])) for b in LANGUAGES]


def test_sets_that_no_half_of_the_text_could_be_searched_for_are_said_to_be_of_unknown_stability():
    neurons, reliability = found(18)
    none = reliability.with_columns(*(pl.lit(None).alias(k) for k in ("median", "p5", "chance")), halvings=pl.lit(0))
    said = " ".join(shown(neurons_table(neurons, none), PIPE).split())
    assert "too little text was recorded to find them in halves of it. Record more of each language: --tokens" in said
    assert "under 20 neurons" not in said
    assert "5 %" not in said


@pytest.mark.parametrize("width", [40, 80, PIPE])
def test_a_cell_that_is_longer_than_a_line_is_folded_not_cut(width):
    long, styled = "0123456789" * 15, Text("abcdefghij" * 15, style="bold")
    said = shown(titled("T", ["", "a", "b", "c"], [["fr", long, styled, "last"]], keys=1), width)
    packed = "".join(said.split())
    assert long in packed
    assert styled.plain in packed
    assert "last" in said
    assert said.count("fr") == (1 if width is None else 3)


def test_markup_and_controls_in_cells_are_shown_and_keep_the_columns_straight():
    said = shown(titled("[/t]", ["", "x"], [["[/a]", "\x1b[2J"], ["b", "1"]]), 80)
    assert "[/t]" in said
    assert "[/a]" in said
    assert "⟨U+001B⟩[2J" in said
    first, second = (line for line in said.splitlines() if line.split()[:1] in (["[/a]"], ["b"]))
    assert len(first.rstrip()) == len(second.rstrip())
