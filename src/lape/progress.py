"""How long work tells what it has done: a plain function, so that a library call is silent and a terminal shows a bar."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Called now and then with a task's name, the units done and, where known, the units in all: any function of these three.

    Example:
        >>> tasks = set()
        >>> def note(task, done, total):
        ...     tasks.add(task)
        >>> stats = lape.record(model, tokenizer, {"en": "en.txt"}, tokens=200, progress=note)
        >>> sorted(tasks)
        ['reading en', 'recording en']
    """

    def __call__(self, task: str, done: int, total: int | None) -> None:
        """Show it, or do nothing."""


def silent(task: str, done: int, total: int | None) -> None:
    """The default: show nothing.

    Example:
        >>> from lape.progress import silent
        >>> stats = lape.record(model, tokenizer, {"en": "en.txt"}, tokens=200, progress=silent)
    """


def each(things: Collection[T], task: str, progress: Progress) -> Iterator[T]:
    """Things that are worked on one after the other: `progress` is told before each how many are done, and when all are."""
    for done, one in enumerate(things):
        progress(task, done, len(things))
        yield one
    progress(task, len(things), len(things))
