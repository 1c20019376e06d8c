"""For every standing claim a planted case in which it fails: tables that the experiment's own functions make of inputs in which it is untrue.

One file for each experiment, with FAILING: claim -> what makes the tables and says which languages "over" stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pkgutil import iter_modules

import polars as pl

Case = Callable[[], tuple[Mapping[str, pl.DataFrame], list[str]]]


def failing() -> dict[str, Case]:
    """Claim -> its planted case, of all files here."""
    found: dict[str, Case] = {}
    for module in iter_modules(__path__):
        cases = import_module(f"{__name__}.{module.name}").FAILING
        assert not set(cases) & set(found), f"{module.name}: two cases of one claim"
        found |= cases
    return found
