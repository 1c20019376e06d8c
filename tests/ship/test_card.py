"""The card of an export as Markdown and YAML readers see it, whatever names and figures it is given."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from lape.ship.export import card_of as card

MARKDOWN = MarkdownIt("commonmark").enable("table")
FIT = {
    "language": "fr",
    "read_as": "text",
    "position": "1–3",
    "positions": 12,
    "kl": 0.0012,
    "kl_median": 0.0004,
    "kl_worst": 0.0034,
}
FIT |= {"agreement": 0.985, "edit": 3.25}
CHOICE = {"setting": "× 1", "strength": 1.0, "answers": 16, "in_language": 0.75, "good": 0.5}
CHOICE |= {"in_language_low": 0.5, "in_language_high": 0.9, "good_low": None, "good_high": None}
SECTIONS: dict[str, tuple[str, Any]] = {
    "largest_difference": ("How near it is to the edit", 3e-7),
    "fit": ("How near it is to the edit", [FIT, FIT | {"language": "en"}]),
    "cost": (
        "What it costs",
        [
            {"language": "fr", "tokens": 980, "cost": 0.153, "low": 0.1, "high": 0.2},
            {"language": "en", "tokens": 990, "cost": -0.5, "low": None, "high": None},
        ],
    ),
    "choices": ("How its strength was chosen", [CHOICE]),
    "constants": (
        "The constant",
        {"model.layers.0.mlp.gate_proj": {"spread": {"en": 0.03, "fr": 0.08}, "first": 0.04, "ridge": 1e-4}},
    ),
}
"""What may be measured -> the heading under which it stands, and some of it."""


def said(*measured: str, **more: Any) -> dict[str, Any]:
    return {
        "kind": "LoRA adapter",
        "about": ["writes fr"],
        "made_from": {"model": {"id": "org/base", "checksum": "0123456789abcdef" * 4}},
        "edits": [{"edit": "add", "neurons": 100, "strength": 1.5, "at": "gate"}],
        "max_lora_rank": 8,
        **{name: SECTIONS[name][1] for name in measured},
        **more,
    }


def parsed(text: str) -> tuple[dict[str, Any], list[Any]]:
    """The fields before a card, and what a Markdown reader makes of the rest."""
    assert text.startswith("---\n")
    front, _, rest = text[4:].partition("\n---\n")
    return yaml.safe_load(front), MARKDOWN.parse(rest)


def headings(tokens: list[Any]) -> list[str]:
    return [after.content for one, after in pairwise(tokens) if one.type == "heading_open"]


def tables(tokens: list[Any]) -> list[list[list[str]]]:
    """Each table: rows of cells, the columns' names first."""
    found: list[list[list[str]]] = []
    for one, after in pairwise(tokens):
        if one.type == "table_open":
            found.append([])
        elif one.type == "tr_open":
            found[-1].append([])
        elif one.type in ("td_open", "th_open"):
            found[-1][-1].append(after.content)
    return found


def raw_cells(text: str) -> list[int]:
    """How many cells the lines of tables have; a reader drops those that are too many, and fills in those that are too few."""
    return [line.replace("\\|", "").count("|") - 1 for line in text.split("\n") if line.startswith("|")]


def test_every_section_is_there_only_where_it_was_measured():
    _, tokens = parsed(card(said(), "to-fr"))
    assert headings(tokens) == ["to-fr", "Use", "Limits"]
    for name, (heading, _) in SECTIONS.items():
        _, tokens = parsed(card(said(name), "to-fr"))
        assert headings(tokens) == ["to-fr", "Use", heading, "Limits"]


def test_of_everything_there_are_tables_with_as_many_cells_as_columns():
    measured = ["fit", "cost", "choices", "constants"]
    text = card(said(*measured), "to-fr")
    _, tokens = parsed(text)
    found = tables(tokens)
    assert [len(rows) - 1 for rows in found] == [2, 2, 1, 1]
    assert [{len(row) for row in rows} for rows in found] == [{9}, {3}, {4}, {4}]
    assert raw_cells(text) == [9] * 4 + [3] * 4 + [4] * 3 + [4] * 3


def test_figures_are_those_that_were_measured():
    _, tokens = parsed(card(said("fit", "cost", "choices", "constants"), "to-fr"))
    fit, cost, choices, constants = tables(tokens)
    assert fit[1] == ["fr", "text", "1–3", "12", "0.0012", "0.0004", "0.0034", "0.985", "3.250"]
    assert cost[1:] == [["fr", "980", "+0.15 (+0.10 to +0.20)"], ["en", "990", "-0.50"]]
    assert choices[1] == ["× 1", "16", "0.75 (0.50 to 0.90)", "0.50"]
    assert constants[1] == ["`model.layers.0.mlp.gate_proj`", "0.080", "fr", "0.040"], (
        "the language where it is largest"
    )


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ({"edit": "off", "neurons": 1}, "1 neuron switched off"),
        ({"edit": "scale", "neurons": 3, "factor": 1.5}, "3 neurons multiplied by 1.5"),
        ({"edit": "set", "neurons": 3}, "3 neurons set to"),
        (
            {"edit": "add", "neurons": 3, "strength": 1.5, "at": "gate"},
            "the inputs of 3 neurons are raised, at strength 1.5, toward those that give the values in lape.json",
        ),
        (
            {"edit": "add", "neurons": 3, "strength": 2.0, "at": "activation"},
            "the activations of 3 neurons are raised by 2 times",
        ),
    ],
)
def test_every_edit_is_named(edit, words):
    assert words in card(said(edits=[edit]), "to-fr")


@pytest.mark.parametrize("kind", ["LoRA adapter", "LoRA adapter for llama.cpp", "exported checkpoint"])
def test_how_it_is_used_depends_on_what_it_is(kind):
    text = card(said(kind=kind), "to-fr")
    front, _ = parsed(text)
    assert ("from peft import" in text) == (kind == "LoRA adapter")
    assert ("vllm serve" in text) == (kind == "LoRA adapter")
    assert ("llama-server" in text) == ("llama.cpp" in kind)
    assert ("lora" in front["tags"]) == (kind != "exported checkpoint")
    assert front.get("library_name") == ("peft" if kind == "LoRA adapter" else None)


@pytest.mark.parametrize(
    ("model", "serves", "words"),
    [
        ({"id": "org/base"}, "vllm serve org/base --", ""),
        ({"id": "base", "path": "/home/me/base"}, "vllm serve base --", "`base` is the base model's folder"),
        (
            {"id": "base", "path": "/home/me/base.Q4.gguf"},
            "vllm serve MODEL --",
            "MODEL is the base model in Hugging Face's format, which the adapter is written for: not `base.Q4.gguf`",
        ),
    ],
)
def test_the_line_for_vllm_names_a_base_that_it_can_serve(model, serves, words):
    text = card(said(made_from={"model": {**model, "checksum": "0" * 64}}), "to-fr")
    assert serves in text
    assert words in text
    assert "/home/me" not in text


def test_a_card_links_nothing():
    """The project has no address yet."""
    assert "http" not in card(said(*SECTIONS), "to-fr").replace("http://127.0.0.1:8000", "")


ODD = [
    "a|b",
    "a: b",
    "# x",
    "- x",
    "'",
    '"',
    "{x}",
    "[x]",
    "&x",
    "*x*",
    "`x`",
    "@x",
    "%x",
    "yes",
    "1e3",
    "null",
    "~",
    "a #b",
    "\\|",
    "é 日本",
]


@pytest.mark.parametrize("name", ODD)
def test_no_name_breaks_the_fields_or_the_tables(name):
    check(name)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=12))
def test_nor_does_any_other(name):
    check(name)


def check(name: str) -> None:
    constants = {name: {"spread": {name: 0.08}, "first": 0.04}}
    cost = [{"language": name, "tokens": 1, "cost": 0.1, "low": None, "high": None}]
    made_from = {"model": {"id": name, "checksum": "0" * 64}}
    text = card(
        said(fit=[FIT | {"language": name}], cost=cost, choices=[CHOICE | {"setting": name}], constants=constants)
        | {"made_from": made_from},
        "to-fr",
    )
    front, tokens = parsed(text)
    assert front["base_model"] == name
    assert front["tags"] == ["language-neurons", "lape", "lora"]
    assert [{len(row) for row in rows} for rows in tables(tokens)] == [{9}, {3}, {4}, {4}]
    assert raw_cells(text) == [9] * 3 + [3] * 3 + [4] * 3 + [4] * 3


def test_a_base_named_as_it_is_keeps_its_name():
    front, _ = parsed(card(said(), "to-fr"))
    assert front == {
        "base_model": "org/base",
        "library_name": "peft",
        "tags": ["language-neurons", "lape", "lora"],
    }
