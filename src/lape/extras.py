"""Packages that only a part of lape needs: what to type where one is missing."""

from __future__ import annotations

import importlib.util

from lape.errors import OptionError

INSTALL = 'In the folder of lape\'s source, type: pip install ".[{}]"'
"""How an extra is installed. This is the one place to change when lape is on PyPI."""
_CALLED = {"lingua": "lingua-language-detector", "spellchecker": "pyspellchecker"}
"""Packages that pip knows by another name than their modules have."""


def lacking(extra: str, what: str, *modules: str) -> str | None:
    """That `what` needs packages which are not installed, and what to type; None where all are there."""
    absent = [_CALLED.get(name, name.replace("_", "-")) for name in modules if importlib.util.find_spec(name) is None]
    return f"{what} needs {', '.join(absent)}. {INSTALL.format(extra)}" if absent else None


def need(extra: str, what: str, *modules: str) -> None:
    """Raise OptionError with what to type unless the packages that `what` needs, of one extra of lape, are installed."""
    if said := lacking(extra, what, *modules):
        raise OptionError(said)
