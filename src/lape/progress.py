"""How long work tells what it has done: a plain function. By default a line on stderr, for what takes over five seconds."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Protocol, TypeVar

T = TypeVar("T")
AFTER = 5.0
"""Seconds that a task takes before anything is shown of it by default."""
_EVERY = 0.5
"""Seconds between two states of the line."""


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
    """Show nothing.

    Example:
        >>> from lape.progress import silent
        >>> stats = lape.record(model, tokenizer, {"en": "en.txt"}, tokens=200, progress=silent)
    """


class _Line(threading.local):
    """One line on stderr, of each thread's own work: rewritten in a terminal and a notebook; elsewhere written once, when a task ends, so that
    no log is filled.
    """

    def __init__(self) -> None:
        self._began: dict[str, tuple[float, int]] = {}
        """Task -> when it began, and with how many done."""
        self._done: dict[str, int] = {}
        self._shown, self._width = 0.0, 0

    def __call__(self, task: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if task not in self._began or done < self._done[task]:
            self._began[task] = now, done
        self._done[task] = done
        began, before = self._began[task]
        ended = total is not None and done >= total
        if ended:
            del self._began[task], self._done[task]
        if total is None or now - began < AFTER:
            return
        if ended:
            self._put(f"{task}: {done:,} in {span(now - began)}", "\n")
        elif _is_live() and now - self._shown >= _EVERY:
            self._shown = now
            self._put(state_of(task, done, total, (done - before) / (now - began)), "")

    def _put(self, text: str, end: str) -> None:
        """Write over what the line held."""
        start = "\r" if self._width else ""
        columns = shutil.get_terminal_size().columns - 1
        text = "".join(sign if sign.isprintable() else "?" for sign in text)[:columns]
        if sys.stderr is None:  # of a program without a console
            return
        with suppress(OSError, ValueError):  # whoever read it has closed it
            print(f"{start}{text.ljust(self._width)}", end=end, file=sys.stderr, flush=True)  # noqa: T201
        self._width = 0 if end else len(text)


shown: Progress = _Line()
"""The default: a line on stderr for what takes over five seconds; nothing for what is quicker."""


def _is_live() -> bool:
    """Whether a line on stderr can be written over: in a terminal, and in a notebook, whose stream is no terminal."""
    with suppress(ValueError):  # closed
        return sys.stderr is not None and (sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel"))
    return False


def state_of(task: str, done: int, total: int | None, rate: float) -> str:
    """What is done, how fast, and how long it will take."""
    parts = [f"{task}: {done:,}" + (f" of {total:,}" if total else "")]
    if rate >= 1:
        parts.append(f"{rate:,.0f} per second")
    if rate > 0 and total and total > done:
        parts.append(f"{span((total - done) / rate)} left")
    return ", ".join(parts)


def span(seconds: float) -> str:
    """A time as people read it."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def each(things: Collection[T], task: str, progress: Progress) -> Iterator[T]:
    """Things that are worked on one after the other: `progress` is told before each how many are done, and when all are."""
    for done, one in enumerate(things):
        progress(task, done, len(things))
        yield one
    progress(task, len(things), len(things))
