"""How values show themselves where they are looked at: a few short lines on a terminal, a small table in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from rich.cells import cell_len, set_cell_size

from lape.signs import visible
from lape.values.same import place_of

WIDTH = 80
"""Columns of the widest line."""
LAYERS = 40
"""Cells of the widest strip of layers."""
_BARS = "▁▂▃▄▅▆▇█"
_LABEL = 11


def strip(counts: Sequence[int]) -> str:
    """A cell for each layer, or for several in a deep model, as high as it is full; a dot where there is nothing."""
    step = -(-len(counts) // LAYERS) or 1
    pooled = [sum(counts[at : at + step]) for at in range(0, len(counts), step)]
    top = max(pooled, default=0)
    return "".join(_BARS[max(1, round(8 * count / top)) - 1] if count else "·" for count in pooled)


def fitted(text: str, width: int = WIDTH) -> str:
    """One line of at most so many columns, without effect on what shows it."""
    line = visible(" ".join(text.split()))
    return line if cell_len(line) <= width else set_cell_size(line, width - 1).rstrip() + "…"


def lines(head: str, rows: Mapping[str, str], notes: Mapping[str, Sequence[str]]) -> str:
    """A first line, and below it a line for each row and each note that says anything."""
    every = {**rows, **{label: listed(parts, between=", ") for label, parts in notes.items()}}
    below = [f" {label:<{_LABEL - 1}}{fitted(text, WIDTH - _LABEL)}" for label, text in every.items() if text]
    return "\n".join([fitted(head), *below])


def listed(parts: Iterable[str], width: int = WIDTH - _LABEL, *, between: str = " · ") -> str:
    """As many as there is room for, and how many more there are."""
    every = [fitted(part, width) for part in parts]
    shown = between.join(every)
    kept = len(every)
    while cell_len(shown) > width and kept:
        kept -= 1
        shown = between.join([*every[:kept], f"{len(every) - kept} more"])
    return shown


def rounded(count: int) -> str:
    """A count in at most five characters: 950, 8.8k, 31k, 1.2M."""
    for unit, size in (("", 1), ("k", 10**3), ("M", 10**6), ("G", 10**9)):
        in_units = count / size
        if in_units < 999.5:
            return f"{in_units:.1f}{unit}" if unit and in_units < 9.95 else f"{in_units:.0f}{unit}"
    return f"{count / 10**12:.0f}T"


def of_model(manifest: Mapping[str, Any]) -> str:
    """Which model something is of, as words that follow; nothing where that is not known."""
    model = manifest.get("model") or {}
    name = str(model.get("id") or place_of(model))
    return f" of {name}" if name else ""


def table(head: str, columns: Sequence[str], rows: Iterable[Sequence[str]], notes: Mapping[str, Sequence[str]]) -> str:
    """HTML for a notebook: escaped, of the page's own colours, without anything from elsewhere. It scrolls where it is long."""
    cell = 'style="text-align:left;white-space:pre;font-family:monospace"'
    headers = "".join(f"<th {cell}>{_html(one)}</th>" for one in columns)
    body = "".join(f"<tr>{''.join(f'<td {cell}>{_html(one)}</td>' for one in row)}</tr>" for row in rows)
    said = (f"{label}: {', '.join(parts)}" for label, parts in notes.items() if parts)
    below = "".join(f"<div>{_html(one)}</div>" for one in said)
    return (
        f"<div><div>{_html(head)}</div>"
        f'<div style="max-height:30em;overflow:auto;width:fit-content"><table><thead><tr>{headers}</tr></thead><tbody>{body}</tbody></table></div>'
        f"{below}</div>"
    )


def _html(text: str) -> str:
    return escape(visible(text))
