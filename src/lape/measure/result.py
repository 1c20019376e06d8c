"""What an experiment's function gives where one table does not say it all: tables by name, and what has to be said of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from types import MappingProxyType

import polars as pl

from lape.signs import many


@dataclass(frozen=True, eq=False)
class Result(Mapping[str, pl.DataFrame]):
    """Tables by name, `result["pairs"]`, and notes.

    Example:
        >>> import polars as pl
        >>> from lape.measure.result import Result
        >>> result = Result({"pairs": pl.DataFrame({"a": ["en"], "b": ["fr"]})}, notes=("zh was left out.",))
        >>> result
        Result of 1 table
          pairs: 1 row × 2 columns
          note: zh was left out.
        >>> result["pairs"]["b"].to_list()
        ['fr']
    """

    tables: Mapping[str, pl.DataFrame]
    """Name -> table."""
    notes: tuple[str, ...] = ()
    """What was left out or done otherwise, and why."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tables", MappingProxyType(dict(self.tables)))

    def __getitem__(self, name: str) -> pl.DataFrame:
        """A table by its name. Raises KeyError naming those that there are."""
        if name not in self.tables:
            raise KeyError(f"There is no table {name!r}. Expected {', '.join(self.tables)}.")
        return self.tables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tables)

    def __len__(self) -> int:
        return len(self.tables)

    def __contains__(self, name: object) -> bool:
        return name in self.tables

    def __repr__(self) -> str:
        sizes = [f"  {name}: {_count(*frame.shape)}" for name, frame in self.items()]
        return "\n".join([f"Result of {many(len(self), 'table')}", *sizes, *(f"  note: {one}" for one in self.notes)])

    def _repr_html_(self) -> str:
        """Each table under its name, as a notebook shows it."""
        tables = [
            f"<p><b>{escape(name)}</b> ({_count(*frame.shape)})</p>{frame._repr_html_()}"
            for name, frame in self.items()
        ]
        return "".join([*tables, *(f"<p>{escape(one)}</p>" for one in self.notes)])


def _count(rows: int, columns: int) -> str:
    return f"{many(rows, 'row')} × {many(columns, 'column')}"
