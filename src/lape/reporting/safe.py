"""Text of models and corpora, made harmless to look at."""

from __future__ import annotations

import json
import re
from typing import Any

from lape.signs import visible

LONGEST = 600
"""Characters of an answer that are shown."""
LINES = 8
"""Lines of it."""
_MARKS = re.compile("[\u061c\u200e\u200f]")
"""Marks that turn the direction of the signs beside them, which a terminal shows as they are."""
_BREAKS = re.compile(r"[<>&\u2028\u2029]")


def shown(text: str, most: int = LONGEST) -> str:
    """As it can be shown: `named`, and cut at `most` characters.

    Escaping for HTML is the page's own business.
    """
    return str(named(text[:most])) + (f"… ({len(text) - most:,} more characters)" if len(text) > most else "")


def named(value: Any) -> Any:
    """Whatever a template puts on a page, text as `visible` gives it, without marks that turn its direction. What is HTML already (`Markup`) is left
    as it is.
    """
    return visible(value, _MARKS) if type(value) is str else value


def answer(text: str) -> str:
    """An answer: `shown`, without empty lines, and not more than 8 lines of it."""
    lines = [line for line in shown(text.strip()).split("\n") if line.strip()]
    return "\n".join(lines[:LINES]) + (f"\n… ({len(lines) - LINES} more lines)" if len(lines) > LINES else "")


def embedded(data: Any) -> str:
    """JSON that can stand within a script element: no sign in it can end the element or a line."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _BREAKS.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
