"""A run that is stopped between its parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def stopped(part: Callable[..., Any], after: int) -> tuple[Callable[..., Any], list[int]]:
    """`part`, which is interrupted once `after` of them are in the list that comes along, and that list; clear it to go on."""
    ran: list[int] = []

    def counted(*args: Any) -> Any:
        if len(ran) == after:
            raise KeyboardInterrupt
        ran.append(1)
        return part(*args)

    return counted, ran
