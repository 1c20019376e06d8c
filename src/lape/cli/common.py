"""What all verbs share: the terminal, progress bars, and how results are written."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

if TYPE_CHECKING:
    from lape.measure.ablation import Planned
    from lape.progress import Progress as Report
    from lape.values.neurons import LanguageNeurons
    from lape.values.stats import ActivationStats

out = Console(highlight=False)
err = Console(highlight=False, stderr=True)

EVERY = 10.0
"""Seconds between two lines of progress where there is no terminal."""


@contextmanager
def progress() -> Iterator[Report]:
    """A bar on the terminal for everything that takes longer than a moment; plain lines where there is no terminal."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )
    tasks: dict[str, TaskID] = {}
    told: dict[str, tuple[float, int]] = {}

    def report(task: str, done: int, total: int | None) -> None:
        if err.is_terminal:
            if task not in tasks:
                for other in tasks.values():
                    bar.update(other, visible=False)
                tasks[task] = bar.add_task(task, total=total)
            bar.update(tasks[task], completed=done, total=total)
            return
        now = time.monotonic()
        before, known = told.setdefault(task, (now, done))
        if now - before >= EVERY:
            told[task] = now, done
            err.print(_line(task, done, total, (done - known) / (now - before)))

    with bar:
        yield report


class _Rate(ProgressColumn):
    """What is done in a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed and task.speed >= 1 else "")


def _line(task: str, done: int, total: int | None, rate: float) -> str:
    """What is done, how fast, and how long it will take."""
    parts = [f"{task}: {done:,}" + (f" of {total:,}" if total else "")]
    if rate >= 1:
        parts.append(f"{rate:,.0f} a second")
    if rate > 0 and total and total > done:
        parts.append(f"{span((total - done) / rate)} left")
    return ", ".join(parts)


def written(target: Path, notes: Sequence[str] = ()) -> None:
    """The last lines of a verb: what is to be said of how it came out, and where the result is."""
    for note in notes:
        out.print(note)
    out.print(f"Written: {target}", soft_wrap=True)


def beside(path: Path, name: str) -> Path:
    """Where a verb puts its result by default: in the run's folder, or in that of the file it read."""
    return (path if path.is_dir() else path.parent) / name


def say_passes(off: str) -> Planned:
    """Tells, before anything is switched off, how many passes there are with `off` off, and how long they take."""

    def say(passes: int, tokens: int, seconds: float | None) -> None:
        known = "" if seconds is None else f", about {span(seconds)}"
        err.print(f"{passes} passes with {off} off, {tokens:,} tokens to run{known}.")

    return say


def provenance(verb: str, *used: LanguageNeurons | ActivationStats, **values: Any) -> dict[str, Any]:
    """What a result's JSON says of how it was made: from which neurons, then statistics, and with which options, field by field."""
    from importlib.metadata import version

    return {
        "verb": verb,
        "command": sys.argv[1:],
        "versions": {name: version(name) for name in ("lape", "torch", "transformers")},
        "made_from": {key: value for one in used for key, value in one.made_from.items()},
        **{
            name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
            for name, value in values.items()
        },
    }


def span(seconds: float) -> str:
    """A time as people read it."""
    if seconds < 1:
        return "a moment"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
