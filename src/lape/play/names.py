"""What languages are called on the page."""

from __future__ import annotations

import langcodes


def name_of(language: str) -> str:
    """A language's English name with its tag: `French (fr)`; its tag alone where the names are not installed."""
    name = short_name(language)
    return f"{name} ({language})" if name != language else language


def short_name(language: str) -> str:
    """A language's English name: `French`; its tag where the names are not installed."""
    try:
        return str(langcodes.Language.get(language).display_name("en"))
    except (ImportError, LookupError):  # the names come with the extra lid
        return language
