"""How far identifiers can be trusted: what made-up ones call texts whose language is known, whole and mixed."""

from __future__ import annotations

import pytest

from lape.data.language_id import Guess
from lape.experiments.forcing.identification import IDENTIFICATION, identification

LINES = {
    "en": ["eeeeee 0", "eeeeee 1", "eeeeee 2", "ee", "eeeeee 3?"],
    "fra_Latn": ["ffffffff 0", "ffffffff 1", "ffffffff 2", "ff", "ffffffff 3"],
    "zh-Hant": ["zz", "zz", "z", "z", "z"],
}
CHARACTERS = {"en": 7, "fra_Latn": 10, "zh-Hant": 3}
BY_LETTER = {"e": "en", "f": "fr", "z": "zh"}


class Made:
    """Names a text by its first letter (or last, of those), and remembers what it was asked."""

    def __init__(self, at=0, unsure=()):
        self.at, self.unsure, self.asked = at, unsure, []

    def __call__(self, texts):
        self.asked.append(list(texts))
        named = [BY_LETTER[[sign for sign in text if sign in BY_LETTER][self.at]] for text in texts]
        return [Guess(None if text in self.unsure else name, 0.5) for text, name in zip(texts, named, strict=True)]


def shares(table, identifier="m"):
    rows = table.filter(identifier=identifier).to_dicts()
    return [(row["texts"], row["named"], row["named_other"], row["unknown"]) for row in rows]


def test_texts_are_lines_cut_to_a_length_and_mixed_ones_have_a_second_half_in_another_language():
    made = Made()
    table = identification({"m": made}, LINES, CHARACTERS)
    assert dict(table.schema) == IDENTIFICATION
    assert table.select("language", "mixed_with", "characters").rows() == [
        (language, other, CHARACTERS[language]) for language in LINES for other in (None, *LINES) if other != language
    ]
    asked = dict(zip(table.select("language", "mixed_with").rows(), made.asked, strict=True))
    assert asked["en", None] == ["eeeeee "] * 4
    assert asked["fra_Latn", None] == ["ffffffff 0", "ffffffff 1", "ffffffff 2", "ffffffff 3"]
    assert asked["en", "fra_Latn"] == ["eee fffff"] * 4
    assert asked["fra_Latn", "en"] == ["fffff eee"] * 4
    assert [texts for (language, _), texts in asked.items() if language == "zh-Hant"] == [[]] * 3  # none so long
    assert asked["en", "zh-Hant"] == ["eee z"] * 4


def test_shares_are_of_the_language_itself_another_and_none():
    lines = {"en": LINES["en"], "zh-Hant": ["zzz 0", "zzz 1", "zzz 2", "zzz 3"]}
    characters = {"en": 8, "zh-Hant": 5}
    first, last = Made(), Made(-1, ("eeeeee 1", "zzz 0", "zzz 1", "eeee zz"))
    table = identification({"first": first, "last": last}, lines, characters)
    assert shares(table, "first") == [(4, 1, 0, 0)] * 4
    assert shares(table, "last") == [(4, 0.75, 0, 0.25), (4, 0, 0, 1), (4, 0.5, 0, 0.5), (4, 0, 1, 0)]


def test_where_no_line_is_long_enough_no_share_is_known():
    table = identification({"m": Made()}, {"en": ["e"], "fr": ["fffffff"]}, {"en": 7, "fr": 7})
    unknown = (0, None, None, None)
    assert shares(table) == [unknown, unknown, (1, 1, 0, 0), unknown]


@pytest.mark.parametrize("count", [99, 101])
def test_at_most_100_texts_are_taken_and_shares_sum_to_one(count):
    lines = {"en": [f"e{k:03}" for k in range(count)]}
    unsure = tuple(f"e{k:03}" for k in range(7))
    (row,) = identification({"m": Made(0, unsure)}, lines, {"en": 4}).to_dicts()
    taken = min(count, 100)
    assert (row["texts"], row["unknown"], row["named_other"]) == (taken, 7 / taken, 0)
    assert row["named"] == (taken - 7) / taken
