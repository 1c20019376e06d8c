"""What an experiment's function gives: a mapping of tables that cannot be changed, short to look at, and harmless as HTML."""

from __future__ import annotations

from collections.abc import Mapping
from html.parser import HTMLParser

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lape.measure.result import Result

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


def made(names: list[str], notes: tuple[str, ...] = ()) -> Result:
    return Result({name: pl.DataFrame({"a": range(k)}) for k, name in enumerate(names)}, notes)


def test_it_is_a_mapping_of_its_tables_in_order():
    result = made(["pairs", "dominance"])
    assert isinstance(result, Mapping)
    assert (list(result), len(result), "pairs" in result, "other" in result) == (["pairs", "dominance"], 2, True, False)
    assert dict(result)["dominance"] is result["dominance"] is result.tables["dominance"]
    assert result.get("other") is None
    with pytest.raises(KeyError, match=r"'other'.*pairs, dominance"):
        result["other"]


def test_it_cannot_be_changed():
    tables = {"pairs": pl.DataFrame()}
    result = Result(tables)
    tables["more"] = pl.DataFrame()
    assert list(result) == ["pairs"]
    with pytest.raises(TypeError):
        result.tables["more"] = pl.DataFrame()
    with pytest.raises(AttributeError):
        result.notes = ("x",)


def test_it_says_a_line_for_each_table_and_note():
    assert repr(made(["none", "one", "two"], ("left out",))).splitlines() == [
        "Result of 3 tables",
        "  none: 0 rows × 1 column",
        "  one: 1 row × 1 column",
        "  two: 2 rows × 1 column",
        "  note: left out",
    ]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, _attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.lists(NAMES, min_size=1, max_size=3, unique=True), st.lists(NAMES, max_size=2))
def test_as_html_it_shows_every_table_under_its_name_and_runs_nothing(names, notes):
    hostile = "<script>alert(1)</script>"
    result = made([*names, hostile], (*notes, hostile))
    plain, page = Tags(), Tags()
    plain.feed(made([str(k) for k in range(len(names) + 1)])._repr_html_())
    page.feed(result._repr_html_())
    assert page.found.count("table") == len(names) + 1
    assert set(page.found) == set(plain.found)
    assert page.text.count("alert(1)") == 2
