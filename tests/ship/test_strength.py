"""Which strength an export has: by the rule on made tables, and from questions to the choice on a model whose answers are known."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import polars as pl
import pytest
import torch

from lape.data.language_id import IDENTIFIERS
from lape.errors import OptionError
from lape.measure.bench import Bench
from lape.measure.generation import GenerationOptions
from lape.recording.record import record
from lape.ship.strength import CHOICES, best, strengths
from support.polyglot import (
    by_letter,
    polyglot,
    polyglot_questions,
    polyglot_texts,
    polyglot_tokenizer,
)

torch.set_num_threads(1)

NO_ENDS = dict.fromkeys(("in_language_low", "in_language_high", "good_low", "good_high"))


def table(*rows: tuple[float | None, float, float]) -> pl.DataFrame:
    """(strength, in_language, good) of each setting."""
    return pl.DataFrame(
        [
            {"setting": f"× {strength}", "strength": strength, "answers": 8, "in_language": inside, "good": good}
            | NO_ENDS
            for strength, inside, good in rows
        ],
        schema=CHOICES,
    )


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([(0.5, 0.9, 0.2), (1.0, 0.5, 0.6), (1.5, 0.8, 0.4)], 1.0, id="the most good answers"),
        pytest.param(
            [(0.5, 0.4, 0.5), (1.0, 0.8, 0.5), (1.5, 0.6, 0.5)], 1.0, id="of equal ones the most in the language"
        ),
        pytest.param([(1.5, 0.8, 0.5), (0.5, 0.8, 0.5), (1.0, 0.8, 0.5)], 0.5, id="then the weakest"),
        pytest.param([(None, 1.0, 1.0), (1.0, 0.2, 0.1), (2.0, 0.1, 0.0)], 1.0, id="the unedited model is no strength"),
        pytest.param([(2.0, 0.0, 0.0)], 2.0, id="of one that one, whatever it does"),
    ],
)
def test_the_best_strength(rows, expected):
    for order in permutations(rows):
        assert best(table(*order)) == expected


@pytest.mark.parametrize("rows", [[], [(None, 1.0, 1.0)]])
def test_without_a_strength_there_is_none_to_choose(rows):
    with pytest.raises(OptionError, match="strength=1"):
        best(table(*rows))


@pytest.fixture(scope="module")
def choices():
    questions, native = polyglot_questions(2, 6), polyglot_questions(6, 20)
    with pytest.MonkeyPatch.context() as patch:
        for name in IDENTIFIERS:
            patch.setitem(IDENTIFIERS, name, by_letter)
        stats = record(polyglot(), polyglot_tokenizer(), polyglot_texts(1))
        bench = Bench(polyglot(), polyglot_tokenizer(), stats, None, GenerationOptions(new_tokens=8))
        asked: dict[str, Any] = {"to": "fr", "sources": ["en", "id"], "sets": "difference:12", "tried": (0.0, 4.0)}
        yield strengths(bench, questions, native, **asked)


def test_what_was_tried_stands_beside_the_unedited_model_and_the_language_itself(choices):
    assert dict(choices.schema) == CHOICES
    assert choices["strength"].to_list() == [None, None, 0.0, 4.0]
    none, ceiling, *tried = choices.iter_rows(named=True)
    assert [row["answers"] for row in (none, ceiling, *tried)] == [12, 6, 12, 12]
    assert (none["in_language"], ceiling["in_language"]) == (0, 1), (
        "asked in the language it answers in it, in others not"
    )
    assert all(
        choices[f"{share}{end}"].is_null().all() for share in ("in_language", "good") for end in ("_low", "_high")
    )


def test_a_strength_that_does_nothing_is_not_chosen(choices):
    """Planted: at 0 the answers stay what they were; at 4 the neurons of the language write it."""
    _, _, nothing, strong = choices.iter_rows(named=True)
    assert nothing["in_language"] == 0
    assert strong["in_language"] > 0.9
    assert best(choices) == 4.0
