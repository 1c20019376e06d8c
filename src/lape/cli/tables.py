"""Tables for the terminal, 80 columns wide where seven languages fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from lape.cli.common import out
from lape.experiments import section as blocks

if TYPE_CHECKING:
    from lape.experiments.section import Rows, Section
    from lape.experiments.table import Column

_BARS = " ▁▂▃▄▅▆▇█"
_MOST = 30
"""Rows of a table that are printed."""
_WIDEST = 40
"""Characters of a histogram; deeper models show several layers in one."""


def titled(title: str, columns: Sequence[str], rows: Sequence[Sequence[str | Text]], caption: str = "") -> Group:
    """A table under its title and above its caption, which do not wrap with it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    parts: list[Any] = [Text(title, style="bold"), table]
    return Group(*parts, Text(caption, style="italic")) if caption else Group(*parts)


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
    """A table with its intervals in brackets: its first rows, and the columns for which the terminal has room; the caption names the rest."""
    columns, frame = block.table.columns, block.frame
    cells = [
        [_value(row, column, block.table.digits) for column in columns]
        for row in frame.head(_MOST).iter_rows(named=True)
    ]
    widths = [
        max(map(len, (column.label, *each))) + 2 for column, each in zip(columns, zip(*cells, strict=True), strict=True)
    ]
    shown = sum(total <= out.width for total in accumulate(widths))
    caption = block.table.about
    if len(frame) > _MOST:
        caption += f" The first {_MOST} of {len(frame):,} rows."
    if shown < len(columns):
        caption += f" Beside these: {', '.join(column.label for column in columns[shown:])}."
    names = [column.label for column in columns[:shown]]
    return titled(block.name.replace("_", " "), names, [line[:shown] for line in cells], caption)


def _value(row: Mapping[str, Any], column: Column, digits: int) -> str:
    value = row[column.name]
    if not isinstance(value, float):
        return "" if value is None else f"{value:,}" if column.numeric else str(value)[:_WIDEST]
    ends = [row[end] for end in (column.low, column.high) if end]
    known = ends and None not in ends
    return f"{value:.{digits}f}" + (f" ({ends[0]:.{digits}f} to {ends[1]:.{digits}f})" if known else "")


def histogram(counts: list[int], wholes: list[int] | None = None) -> str:
    """One character per layer (or several layers, in a deep model), as high as they are full, or as their shares of `wholes`.

    As shares, a dot stands for none of some, and a blank for none of none.
    """
    counts = _pooled(counts)
    if wholes is None:
        return "".join(_bar(count, max(counts) or 1) for count in counts)
    return "".join(
        "·" if whole and not count else _bar(count, whole) for count, whole in zip(counts, _pooled(wholes), strict=True)
    )


def _pooled(counts: list[int]) -> list[int]:
    step = max(1, -(-len(counts) // _WIDEST))
    return [sum(counts[at : at + step]) for at in range(0, len(counts), step)]


def _bar(count: int, top: int) -> str:
    return _BARS[0 if not count else max(1, round(8 * count / top))]


def number(value: float | None, digits: int) -> str:
    """A value, or nothing where there is none."""
    return "" if value is None else f"{value:.{digits}f}"


def between(low: float | None, high: float | None, form: str, to: str = " … ") -> str:
    """The ends of an interval, or nothing where there is none."""
    return "" if low is None or high is None else f"{low:{form}}{to}{high:{form}}"
