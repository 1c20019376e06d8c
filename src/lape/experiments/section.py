"""A section of a report as plain values: what was found, pictures, tables, heat maps and answers. A renderer for each medium shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import polars as pl

from lape.experiments.table import Table


@dataclass(frozen=True)
class Picture:
    """A figure of the experiment, by its name."""

    figure: str


@dataclass(frozen=True)
class Rows:
    """A table, as far as it is long."""

    name: str
    table: Table
    frame: pl.DataFrame
    open: bool = False
    """Whether it is shown at once, or behind a line to click."""


@dataclass(frozen=True)
class View:
    """One reading of a grid."""

    title: str
    values: Sequence[Sequence[float | None]]
    digits: int = 2


@dataclass(frozen=True)
class Grid:
    """A heat map in numbers, with one or several readings to choose from."""

    name: str
    caption: str
    corner: str
    """What rows and columns are, such as "off ↓ text →"."""
    rows: Sequence[str]
    columns: Sequence[str]
    views: Mapping[str, View]
    intervals: Sequence[Sequence[Sequence[float] | None]] = ()
    """(rows, columns) ends of the first reading's 95 % intervals, where there are any."""


@dataclass(frozen=True)
class Answer:
    """What was answered in one condition."""

    condition: str
    language: str | None
    """That it seems to be in; None where none is certain."""
    right: bool
    """Whether that is the wanted one."""
    good: bool | None
    text: str

    @classmethod
    def of(cls, condition: str, judged: Mapping[str, Any], language: str) -> Answer:
        """From a row of judged answers, and the column that says which language each seems to be in."""
        return cls(condition, judged[language], judged["in_language"], judged["good"], judged["answer"])


@dataclass(frozen=True)
class Asked:
    """A question and its answers, side by side."""

    number: int
    source: str
    target: str
    answers: Sequence[Answer]


@dataclass(frozen=True)
class Answers:
    """Questions as they came, whether they were answered well or not."""

    title: str
    note: str
    asked: Sequence[Asked]


Block: TypeAlias = Picture | Rows | Grid | Answers


@dataclass(frozen=True)
class Section:
    """What a report says of one experiment.

    Example:
        >>> from lape.experiments.section import Picture, Section, interval
        >>> said = f"French loses 1.62 nats per token {interval(1.4, 1.9)}, with control neurons off 0.01."
        >>> section = Section("Own neurons off", "What a language loses without its neurons.", (said,), (Picture("perplexity"),))
        >>> section.findings
        ('French loses 1.62 nats per token (1.40 to 1.90), with control neurons off 0.01.',)
    """

    title: str
    """A heading, the experiment's."""
    about: str
    """One sentence below the title."""
    findings: tuple[str, ...] = ()
    """Sentences for the head of the report, each with its control and its interval, or with what it lacks."""
    blocks: tuple[Block, ...] = ()
    """What is shown, in order: `Picture`, `Rows` of a table, `Grid` of numbers, or `Answers`."""


def number(value: float, digits: int = 2) -> str:
    """With a real minus sign, and none before zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def interval(low: float | None, high: float | None) -> str:
    """In brackets, or that there is none."""
    return "(no interval)" if low is None or high is None else f"({number(low)} to {number(high)})"


def cells(table: pl.DataFrame, row: str, column: str) -> Mapping[tuple[str, str], Mapping[str, Any]]:
    """(row, column) -> the rest of the row of a long table."""
    return {(one[row], one[column]): one for one in table.iter_rows(named=True)}
