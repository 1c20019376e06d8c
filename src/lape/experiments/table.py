"""The schema of a table: what its columns are called, in which unit, and where their intervals are. Checked when written and when read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from lape.measure.intervals import QUANTILES
from lape.store.run import check_table


def is_list(dtype: Any) -> bool:
    """Whether a column holds lists: they are kept for judging, and shown nowhere."""
    return bool(dtype == pl.List)


@dataclass(frozen=True)
class Column:
    """A column as a reader sees it."""

    name: str
    label: str
    numeric: bool
    low: str = ""
    """The column of its 95 % interval's lower end, if it has one."""
    high: str = ""


@dataclass(frozen=True)
class Table:
    """A table that an experiment makes.

    Example:
        >>> import polars as pl
        >>> from lape.experiments.table import Table
        >>> from lape.measure.intervals import resampled
        >>> schema = {"language": pl.String, **resampled("own")}
        >>> table = Table("The own effect of each language.", schema, {"own": "own effect (nats per token)"}, key=("language",))
        >>> table.interval("own")
        ('own_low', 'own_high')
        >>> table.quantiles("own")
        'own_quantiles'
        >>> [column.label for column in table.columns]
        ['language', 'own effect (nats per token)']
        >>> earlier = pl.DataFrame({"language": ["fr"], "own": [1.6], "own_low": [1.4], "own_high": [1.9]})
        >>> table.check("mine", table.of_earlier(earlier)).shape
        (1, 5)
    """

    about: str
    """A caption: what a row is, and what the numbers are in."""
    schema: Mapping[str, Any]
    """Column -> dtype, in order."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Column -> its heading with its unit, such as "own effect (nats per token)". Default: the column's name."""
    digits: int = 3
    """After the point."""
    file: str = ""
    """Where a verb of its own leaves it within a run's folder, such as forcing/costs.parquet; `lape run NAME` writes NAME/TABLE.parquet,
    and a study has all under tables/.
    """
    command: str = ""
    """What makes it outside a study, where that is not what makes its experiment's others."""
    shown: tuple[str, ...] = ()
    """The columns that a page shows. Default: all."""
    optional: bool = False
    """Whether the experiment may leave it out."""
    key: tuple[str, ...] = ()
    """Columns by which its rows are told apart, and which are never null; no two rows have the same in all. Default: they may be alike."""
    known: tuple[str, ...] = ()
    """More columns that are never null."""
    ends: str = "95 % interval"
    """What the ends of its values are, in words: a spread, where they are no interval."""
    added: tuple[str, ...] = ()
    """Columns that tables of earlier versions do not have."""

    @property
    def columns(self) -> list[Column]:
        """What is shown, in order: ends of intervals are no columns of their own but belong to their value, and lists of numbers, such as the
        bootstrap's quantiles, are never shown.
        """
        ends = {end: value for value in self.schema for end in self.interval(value)}
        wanted = self.shown or tuple(self.schema)
        return [
            Column(
                name,
                self.labels.get(name, name.replace("_", " ")),
                self.schema[name].is_numeric(),
                *self.interval(name),
            )
            for name in wanted
            if name not in ends and not is_list(self.schema[name])
        ]

    def interval(self, value: str) -> tuple[str, ...]:
        """The columns of a value's interval: VALUE_low and VALUE_high; or low and high, of the value that they follow; empty where it has none."""
        if f"{value}_low" in self.schema:
            return f"{value}_low", f"{value}_high"
        names = list(self.schema)
        follows = "low" in names and names.index("low") > 0 and names[names.index("low") - 1] == value
        return ("low", "high") if follows and "high" in names else ()

    def quantiles(self, value: str) -> str | None:
        """The column of the bootstrap's quantiles of a value, as `lape.measure.intervals.resampled` declares it; None where there is none."""
        found = self.interval(value)
        kept = "" if not found else QUANTILES if found[0] == "low" else f"{value}_{QUANTILES}"
        return kept if kept in self.schema else None

    def of_earlier(self, frame: pl.DataFrame) -> pl.DataFrame:
        """A frame that was read, and where an earlier version made it, which kept no quantiles nor what is `added`, with null in their place."""
        kept = {self.quantiles(value) for value in self.schema} - {None} | set(self.added)
        lacking = [name for name in self.schema if name not in frame.columns]
        if not lacking or not kept.issuperset(lacking) or len(frame.columns) + len(lacking) != len(self.schema):
            return frame
        nulls = (pl.lit(None, dtype=self.schema[name]).alias(name) for name in lacking)
        return frame.with_columns(*nulls).select(*self.schema)

    def check(self, name: str, frame: pl.DataFrame, where: str = "") -> pl.DataFrame:
        """The frame, if it has exactly these columns and dtypes and tells its rows apart by `key`. `name` and `where` are for the message.

        Raises FileError where it does not, or where a column of `key` or `known` has a null.
        """
        return check_table(name, frame, self.schema, where, self.key, self.known)
