"""Text as people read it: signs that nobody sees made visible, since text of models, corpora and files is looked at; numbers of things."""

from __future__ import annotations

import re

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\uf8ff\U000f0000-\U0010ffff]")
"""Control characters but for tab and end of line, separators of lines, marks that override the direction of writing, halves of characters, and
characters that have no meaning of their own (private use).
"""


def visible(text: str, *more: re.Pattern[str]) -> str:
    """Text without effect on what shows it: each sign that nobody would see, or that one of `more` finds, stands as its number, such as ⟨U+001B⟩."""
    for signs in (_UNSEEN, *more):
        text = signs.sub(lambda found: f"⟨U+{ord(found.group()):04X}⟩", text)
    return text


def replace_surrogates(text: str) -> str:
    """A text with question marks for halves of surrogate pairs, which JSON can hold and no library takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def many(number: int, what: str) -> str:
    """A number of things, such as 1 document and 2,000 documents."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}{'es' if what.endswith('s') else 's'}"
