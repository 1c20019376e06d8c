"""Tables: sealed, of their schema, and with numbers that are numbers."""

from __future__ import annotations

import polars as pl
import pytest

from lape.errors import FileError
from lape.store.run import check_table, read_table, write_table

SCHEMA = {"language": pl.String, "x": pl.Float64, "n": pl.Int64}
TABLE = pl.DataFrame([("fr", 1.5, 1), ("en", None, 2)], schema=SCHEMA, orient="row")


def test_a_changed_table_is_refused_and_another_programs_is_read(tmp_path):
    path = tmp_path / "a.parquet"
    write_table(path, TABLE)
    content = path.read_bytes()
    assert read_table(path).equals(TABLE)
    assert pl.read_parquet(path).equals(TABLE)
    for at in range(0, len(content), 3):
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        try:
            found = read_table(path)
        except FileError:
            continue
        assert found.equals(TABLE)  # what says that there is a seal was hit
    TABLE.write_parquet(path)
    assert read_table(path).equals(TABLE)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (TABLE.drop("x"), "lacks x"),
        (TABLE.with_columns(y=1), "has unknown y"),
        (TABLE.with_columns(pl.col("n").cast(pl.Float64)), "n is Float64, not Int64"),
        (TABLE.select("x", "language", "n"), "in another order"),
        (TABLE.with_columns(x=pl.lit(float("nan"))), "x that are infinite or not numbers"),
        (TABLE.with_columns(x=pl.lit(float("-inf"))), "x that are infinite or not numbers"),
        (pl.concat([TABLE, TABLE]), "rows that language do not tell apart"),
        (TABLE.with_columns(language=pl.lit(None, pl.String)), "rows that language do not tell apart"),
    ],
)
def test_a_table_that_is_not_what_it_should_be_is_refused(change, why):
    assert check_table("a", TABLE, SCHEMA, key=["language"]) is TABLE
    with pytest.raises(FileError, match=why):
        check_table("a", change, SCHEMA, key=["language"])
