"""How long work tells what it has done: a plain function, so that a library call is silent and a terminal shows a bar."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then with a task's name, the units done and, where known, the units in all."""

    def __call__(self, task: str, done: int, total: int | None) -> None:
        """Show it, or do nothing."""


def silent(task: str, done: int, total: int | None) -> None:
    """The default: show nothing."""
