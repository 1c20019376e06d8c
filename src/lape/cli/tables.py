"""Tables for the terminal: whole at any width."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from lape.cli.common import out
from lape.experiments import section as blocks
from lape.signs import visible

if TYPE_CHECKING:
    from lape.experiments.section import Rows, Section
    from lape.experiments.table import Column

_BARS = " ▁▂▃▄▅▆▇█"
_MOST = 30
"""Rows of a table that are printed."""
_WIDEST, _NARROWEST = 40, 8
"""Characters of a histogram; deeper models, and narrow terminals, show several layers in one."""


def titled(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str | Text]], caption: str = "", keys: int = 1
) -> Group:
    """A table under its title and above its caption. The first `keys` columns say which row it is."""
    parts: list[Any] = [Text(title, style="bold"), _Whole(columns, rows, keys)]
    return Group(*parts, Text(caption, style="italic")) if caption else Group(*parts)


@dataclass(frozen=True)
class _Whole:
    """A table that loses nothing: columns for which a terminal has no room come below, beside the first ones again."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | Text]]
    keys: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        first, left = list(range(self.keys)), list(range(self.keys, len(self.columns)))
        while True:
            shown = [*first, *left[:1]]
            left = left[1:]
            while left and self._fits([*shown, left[0]], console, options):
                shown.append(left.pop(0))
            yield self._table(shown, folded=not self._fits(shown, console, options))
            if not left:
                return

    def _fits(self, shown: list[int], console: Console, options: ConsoleOptions) -> bool:
        wide = options.update(max_width=sys.maxsize)
        return Measurement.get(console, wide, self._table(shown)).maximum <= options.max_width

    def _table(self, shown: list[int], *, folded: bool = False) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
        for number in shown:
            name = Text(visible(self.columns[number]))
            side: Any = "right" if number else "left"
            table.add_column(name, justify=side, no_wrap=not folded, overflow="fold")
        for row in self.rows:
            cells = [row[number] for number in shown]
            table.add_row(*(Text(visible(cell)) if isinstance(cell, str) else cell for cell in cells))
        return table


def section_tables(section: Section) -> Group:
    """What a report says of an experiment, as far as a terminal shows it: findings, the first reading of heat maps, and tables."""
    parts: list[Any] = [Text(f"{section.title}: {section.about}"), *(Text(f"• {one}") for one in section.findings)]
    for block in section.blocks:
        if isinstance(block, blocks.Grid):
            view = next(iter(block.views.values()))
            cells = [["" if x is None else f"{x:.{view.digits}f}" for x in line] for line in view.values]
            rows = [[name, *line] for name, line in zip(block.rows, cells, strict=True)]
            parts += [Text(), titled(view.title, [block.corner, *block.columns], rows)]
        elif isinstance(block, blocks.Rows):
            parts += [Text(), rows_table(block)]
    return Group(*parts)


def rows_table(block: Rows) -> Group:
    """A table with its intervals in brackets: its first rows, each known by the words it begins with."""
    columns, frame = block.table.columns, block.frame
    rows = [
        [_value(row, column, block.table.digits) for column in columns]
        for row in frame.head(_MOST).iter_rows(named=True)
    ]
    caption = block.table.about
    if len(frame) > _MOST:
        caption += f" The first {_MOST} of {len(frame):,} rows."
    words = sum(1 for _ in takewhile(lambda column: not column.numeric, columns))
    names = [column.label for column in columns]
    return titled(block.name.replace("_", " "), names, rows, caption, keys=max(1, min(words, len(columns) - 1)))


def _value(row: Mapping[str, Any], column: Column, digits: int) -> str:
    value = row[column.name]
    if not isinstance(value, float):
        return "" if value is None else f"{value:,}" if column.numeric else str(value)
    ends = [row[end] for end in (column.low, column.high) if end]
    known = ends and None not in ends
    return f"{value:.{digits}f}" + (f" ({ends[0]:.{digits}f} to {ends[1]:.{digits}f})" if known else "")


def histogram(counts: list[int]) -> str:
    """One character per layer (or several layers, in a deep model), as high as they are full."""
    counts = _pooled(counts)
    return "".join(_bar(count, max(counts) or 1) for count in counts)


def _pooled(counts: list[int]) -> list[int]:
    room = min(_WIDEST, max(_NARROWEST, out.width - 2 * _NARROWEST))  # beside the language's name
    step = max(1, -(-len(counts) // room))
    return [sum(counts[at : at + step]) for at in range(0, len(counts), step)]


def _bar(count: int, top: int) -> str:
    return _BARS[0 if not count else max(1, round(8 * count / top))]


def number(value: float | None, digits: int) -> str:
    """A value, or nothing where there is none."""
    return "" if value is None else f"{value:.{digits}f}"


def between(low: float | None, high: float | None, form: str, to: str = " … ") -> str:
    """The ends of an interval, or nothing where there is none."""
    return "" if low is None or high is None else f"{low:{form}}{to}{high:{form}}"
