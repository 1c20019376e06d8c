"""Tables: what belongs to a value is no column of its own, lists are kept but never shown, and what is no number is refused."""

from __future__ import annotations

import polars as pl
import pytest

from lape.cli.tables import rows_table
from lape.errors import FileError
from lape.experiments.section import Rows
from lape.experiments.table import Table
from lape.measure.bootstrap import Resamples
from lape.measure.intervals import LEVELS, resampled

SCHEMA = {
    "language": pl.String,
    **resampled("own"),
    **resampled("difference", plain=True),
    "pieces": pl.List(pl.String),
}
TABLE = Table("Mine.", SCHEMA)


def row(**changes):
    values = [float(level) for level in LEVELS]
    own = {"own": 0.5, "own_low": 0.025, "own_high": 0.975, "own_quantiles": values}
    gap = {"difference": 0.25, "low": 0.125, "high": 0.375, "quantiles": None}
    return pl.DataFrame([{"language": "fr", **own, **gap, "pieces": ["a"], **changes}], schema=SCHEMA)


def test_quantiles_belong_to_their_value_and_lists_are_no_columns():
    assert [column.name for column in TABLE.columns] == ["language", "own", "difference"]
    assert TABLE.interval("own") == ("own_low", "own_high")
    assert TABLE.interval("difference") == ("low", "high")
    assert (TABLE.quantiles("own"), TABLE.quantiles("difference")) == ("own_quantiles", "quantiles")
    assert TABLE.quantiles("language") is None
    assert Table("Mine.", {"x": pl.Float64, "x_low": pl.Float64, "x_high": pl.Float64}).quantiles("x") is None


def test_the_terminal_does_not_show_them():
    shown = rows_table(Rows("mine", TABLE, row()))
    assert "quantiles" not in str([part.columns for part in shown.renderables if hasattr(part, "columns")])


def test_a_table_with_lists_is_checked_as_any_other():
    assert TABLE.check("mine", row()).height == 1
    assert TABLE.check("mine", row(own_quantiles=[None, 1.0])).height == 1
    with pytest.raises(FileError, match="own_quantiles that are infinite"):
        TABLE.check("mine", row(own_quantiles=[float("inf"), 1.0]))
    with pytest.raises(FileError, match="lacks quantiles"):
        TABLE.check("mine", row().drop("quantiles"))


def test_a_table_of_an_earlier_version_has_no_quantiles_and_one_that_lacks_more_is_another():
    earlier = row().drop("own_quantiles", "quantiles")
    read = TABLE.check("mine", TABLE.of_earlier(earlier))
    assert read["quantiles"].to_list() == read["own_quantiles"].to_list() == [None]
    assert read.drop("own_quantiles", "quantiles").equals(earlier)
    for other in (row(), earlier.drop("own"), earlier.with_columns(more=1)):
        assert TABLE.of_earlier(other) is other


def test_what_a_row_of_resamples_has_is_what_the_schema_declares():
    drawn = Resamples(30, 50, 0)
    some = drawn.ratio(*2 * (drawn.weights[1],))
    made = {
        "language": "fr",
        **drawn.named("own", some, quantiles=True),
        **drawn.plain("difference", some, quantiles=True),
    }
    TABLE.check("mine", pl.DataFrame([{**made, "pieces": []}], schema=SCHEMA))


def test_columns_of_earlier_versions_have_the_names_of_today():
    table = Table(
        "x",
        {"language": pl.String, "after": pl.Float64, "more": pl.Float64},
        added=("more",),
        renamed={"before": "after"},
    )
    found = table.of_earlier(pl.DataFrame({"language": ["fr"], "before": [1.0]}))
    assert table.check("mine", found).rows() == [("fr", 1.0, None)]
    today = pl.DataFrame({"language": ["fr"], "after": [1.0], "more": [2.0]})
    assert table.of_earlier(today).equals(today)
    other = pl.DataFrame({"language": ["fr"], "else": [1.0]})
    assert table.of_earlier(other) is other
