"""What values show of themselves: a few short lines, a table that is only a table, and nothing that acts on what shows it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from lape.edit.edit import Add, Off, Scale, Set
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.profile import Profile
from lape.values.shown import fitted, listed, rounded, strip
from lape.values.space import NeuronSpace
from lape.values.stats import ActivationStats, LanguageStats
from support.made import made_stats

LAW = settings(deadline=None, max_examples=40)
LANGUAGES = [f"fr-x-l{k}" for k in range(100)]
TEXT = st.text(st.characters(exclude_categories=()), max_size=300)
WIDEST = 120


@st.composite
def spaces(draw):
    layers, experts, width = draw(st.integers(1, 120)), draw(st.integers(0, 4)), draw(st.integers(1, 40))
    return NeuronSpace.of(
        (layer, expert if experts else None, width + draw(st.integers(0, 1)) * (layer == 0))
        for layer in range(layers)
        for expert in range(experts or 1)
    )


def manifest_of(name):
    return {"model": {"id": name, "checksum": "c"}, "counting": {"bos": "auto", "row_tokens": 512}}


@st.composite
def values(draw):
    """Neurons and statistics of any number of languages, with any words."""
    space, count, name = draw(spaces()), draw(st.sampled_from([1, 2, 7, 100])), draw(TEXT)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    sets = {
        k: NeuronSet(space, torch.randint(0, len(space), (n,), generator=generator))
        for n, k in enumerate(LANGUAGES[:count])
    }
    options = draw(
        st.dictionaries(TEXT, st.one_of(TEXT, st.integers(), st.floats(), st.none(), st.booleans()), max_size=20)
    )
    neurons = LanguageNeurons(space, sets, None, {}, draw(TEXT), options, manifest_of(name))
    tensors = {
        "tokens": torch.tensor([draw(st.integers(1, 10**12))]),
        "routed": torch.zeros(1, len(space.stretches)).long(),
        "fires": torch.zeros(1, len(space)).long(),
        **dict.fromkeys(draw(st.lists(TEXT, max_size=5)), torch.zeros(1)),
    }
    stats = ActivationStats(space, {k: LanguageStats(tensors) for k in sets}, manifest_of(name))
    return neurons, stats


class Tags(HTMLParser):
    """The tags of a page, its attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data


@LAW
@given(values())
def test_values_show_themselves_in_at_most_five_short_lines(made):
    neurons, stats = made
    for one in (neurons, stats):
        shown = repr(one).split("\n")
        assert len(shown) <= 5
        assert all(cell_len(line) <= 80 for line in shown)
        assert shown[0].startswith(f"{type(one).__name__}(")
        assert not re.search("[\x00-\x1f\x7f\u202e]", "".join(shown))


@LAW
@given(values())
def test_a_notebook_gets_a_table_and_nothing_that_acts(made):
    for one, rows in zip(made, (len(made[0]), len(made[0])), strict=True):
        page = Tags(one._repr_html_())
        assert page.tags == {"div", "table", "thead", "tbody", "tr", "th", "td"}
        assert page.attributes == {"style"}
        assert all(language in page.text for language in LANGUAGES[:rows])


@LAW
@given(spaces(), st.data())
def test_sets_and_edits_stay_on_one_line(space, data):
    chosen = NeuronSet(space, torch.tensor(data.draw(st.lists(st.integers(0, len(space) - 1), max_size=9))).long())
    value = torch.linspace(-1, 1, len(space))
    for one in (
        chosen,
        space,
        Off(chosen),
        Scale(chosen, 2.0),
        Set(chosen, value),
        Set(chosen, 0.5),
        Add(chosen, value),
    ):
        assert "\n" not in repr(one)
        assert "tensor(" not in repr(one)
    assert cell_len(repr(chosen)) <= WIDEST


def test_an_edit_says_between_what_its_neurons_values_lie():
    space = NeuronSpace.dense(2, 10)
    chosen = NeuronSet(space, torch.tensor([3, 12]))
    assert repr(chosen) == "NeuronSet(2 of 20 neurons (2 × 10), layers 0 ██ 1)"
    assert repr(Off(chosen)) == f"Off(neurons={chosen})"
    assert repr(Set(chosen, torch.arange(20.0))) == f"Set({chosen}, value=3 to 12)"
    assert repr(Add(chosen, 0.5)) == f"Add({chosen}, value=0.5, strength=1)"


@pytest.mark.parametrize(
    ("counts", "shown"),
    [([], ""), ([0], "·"), ([0, 1, 4, 8], "·▁▄█"), ([1000, 1], "█▁"), ([3] * 96, "█" * 32), ([0, 0, 5, 0], "··█·")],
)
def test_a_strip_is_as_high_as_a_layer_is_full(counts, shown):
    assert strip(counts) == shown


def test_what_there_is_no_room_for_is_counted():
    assert listed(["a 1", "b 2"]) == "a 1 · b 2"
    assert listed(["aaaa", "bbbb", "cccc"], 14) == "aaaa · 2 more"
    assert fitted("模型" * 50, 11) == "模型模型模…"
    assert fitted("a\x1b[31m\nb") == "a⟨U+001B⟩[31m b"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0"),
        (999, "999"),
        (1076, "1.1k"),
        (9949, "9.9k"),
        (9950, "10k"),
        (999_499, "999k"),
        (999_500, "1.0M"),
        (10**12, "1T"),
    ],
)
def test_a_count_takes_at_most_five_characters(count, shown):
    assert rounded(count) == shown


def test_neurons_say_what_they_are_and_what_they_carry():
    stats = made_stats(sums=True)
    sets = {"en": NeuronSet(stats.space, torch.tensor([1, 12])), "fr": NeuronSet(stats.space, torch.tensor([13]))}
    profile = Profile.of(stats, torch.tensor([1, 12, 13]))
    stable = {"en": torch.tensor([1.0, 0.5]), "fr": torch.tensor([0.6])}
    neurons = LanguageNeurons(stats.space, sets, profile, stable, "mine", {"rate": 0.01, "bars": {}}, stats.manifest)
    assert repr(neurons).split("\n") == [
        "LanguageNeurons(mine: 3 of 20 neurons (2 × 10) of made)",
        " languages en 2 · fr 1",
        " layers    0 ▄█ 1 · stability 0.70 (mean)",
        " options   rate 0.01",
        " carries   probabilities, means, firing means in 3 languages",
    ]
    assert [words in Tags(neurons._repr_html_()).text for words in ("0 ██ 1", "0.75", "0.60")] == [True] * 3
