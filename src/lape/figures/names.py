"""What figures call languages: their tags, their English names, or their own, where there are letters for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import langcodes

from lape.data.languages import script
from lape.extras import INSTALL, need
from lape.figures.fonts import missing, shaped


def names(languages: Sequence[str], style: str) -> tuple[dict[str, str], list[str]]:
    """Language -> what it is called, and what has to be said of it. Raises OptionError without the library's names.

    An own name whose letters no font has gives way to the tag; one in a script that this matplotlib cannot shape, to the English
    name. Names that two languages share, and those of private tags, are followed by the tag.
    """
    if style == "tags":
        return {language: language for language in languages}, []
    need("report", "Writing languages by name", "language_data")
    found = {language: _named(language, style) for language in languages}
    unshaped = [one for one in languages if style == "own" and not shaped(_script(found[one], one))]
    found |= {language: _named(language, "english") for language in unshaped}
    bare = [language for language in languages if missing(found[language])]
    found |= {language: language for language in bare}
    return _apart(found), _notes(unshaped, bare)


def _named(language: str, style: str) -> str:
    known = langcodes.Language.get(language)
    return str(known.display_name() if style == "english" else known.autonym())


def _script(name: str, language: str) -> str | None:
    """The script that a name is written in: Latin where it has nothing but Latin letters."""
    return "Latn" if name.isascii() else script(language)


def _apart(found: Mapping[str, str]) -> dict[str, str]:
    often = Counter(found.values())
    return {
        tag: f"{name} ({tag})" if name != tag and (often[name] > 1 or "-x-" in tag) else name
        for tag, name in found.items()
    }


def _notes(unshaped: Sequence[str], bare: Sequence[str]) -> list[str]:
    notes = []
    if unshaped:
        notes.append(
            f"This version of matplotlib cannot shape the script of {', '.join(unshaped)}, so English names are shown. Type: pip install -U 'matplotlib>=3.11'"
        )
    if bare:
        notes.append(
            f"No installed font has the letters of {', '.join(bare)}, so tags are shown. Install one, such as Noto Sans of that script, "
            f"or for Chinese, Japanese and Korean one that comes with the extra report. {INSTALL.format('report')}"
        )
    return notes
