"""What all verbs share: the terminal, progress bars, and how results are written."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType
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
from rich.segment import Segment
from rich.text import Text

from lape.progress import span, state_of
from lape.signs import many, visible

if TYPE_CHECKING:
    from lape.measure.ablation import PlannedRuns
    from lape.progress import Progress as Report
    from lape.values.neurons import LanguageNeurons
    from lape.values.stats import ActivationStats

_WORDS = re.compile(r"\n|[\u2e80-\uffdc][^\S\n]*|[^\s\u2e80-\uffdc]+[^\S\n]*|[^\S\n]+")
"""Ends of lines, and words with the spaces after them; each sign of Chinese, Japanese and Korean is one."""
_WIDE = 100_000
"""Columns where nothing is a terminal: nothing is wrapped or cut there."""


class Terminal(Console):
    """Where everything is printed. Text is printed as it is: nothing in it is markup, and `visible` is all that reaches the terminal.

    What is styled is a `rich.text.Text`. In a pipe, a log or a file, lines are as long as they are, unless COLUMNS says otherwise.
    """

    def __init__(self, **how: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **how)

    @property
    def size(self) -> ConsoleDimensions:
        """Columns and lines."""
        found = super().size
        known = self.is_terminal or self._width is not None or "COLUMNS" in os.environ
        return found if known else ConsoleDimensions(_WIDE, found.height)

    @size.setter
    def size(self, new: tuple[int, int]) -> None:
        self.width, self.height = new

    def on_broken_pipe(self) -> None:
        """Whoever reads has read enough, as `| head` does: that is no mistake."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Whatever is printed, in pieces: rich's own controls as they are, all text `visible`."""
        for one in super().render(renderable, options):
            yield one if one.control else one._replace(text=visible(one.text))


out = Terminal()
err = Terminal(stderr=True)


class Flowing:
    """Text that comes in pieces, broken between words where the terminal's line ends; elsewhere as it is.

    A word is held back until it is whole; a character of double width, as in Chinese, is a word.
    """

    def __init__(self, begun: int) -> None:
        """`begun`: the columns of the first line that are used already."""
        self._at, self._held = begun, ""

    def __call__(self, piece: str) -> str:
        """What can be printed now."""
        if not out.is_terminal:
            return piece
        words = _WORDS.findall(self._held + piece)
        self._held = words.pop() if words else ""
        return "".join(map(self._placed, words))

    def rest(self) -> str:
        """What was held back."""
        return self._placed(self._held) if self._held else ""

    def _placed(self, word: str) -> str:
        if word == "\n":
            self._at = 0
            return word
        full = self._at > 0 and self._at + cell_len(word.rstrip()) >= out.width
        self._at = cell_len(word) + (0 if full else self._at)
        return f"\n{word}" if full else word


COMMAND: list[str] = []
"""The words of the command that is running."""
_shown: list[Progress] = []
"""The bar that is on the terminal, if any."""


@contextmanager
def aside() -> Iterator[None]:
    """While inside, no bar is on the terminal, so that something can be printed."""
    for bar in _shown:
        bar.stop()
    yield
    for bar in _shown:
        bar.start()


EVERY = 10.0
"""Seconds between two lines of progress where there is no terminal."""


@contextmanager
def progress() -> Iterator[Report]:
    """A bar on the terminal for everything that takes longer than a moment; plain lines where there is no terminal."""
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        _Done(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )
    tasks: dict[str, TaskID] = {}
    reached: dict[str, int] = {}
    told: dict[str, tuple[float, int, float]] = {}
    doing = _Unmeasured()

    def report(task: str, done: int, total: int | None) -> None:
        if done < reached.get(task, 0):  # begun anew under the same name
            told.pop(task, None)
            if task in tasks:
                bar.remove_task(tasks.pop(task))
        reached[task] = done
        if err.is_terminal:
            if task not in tasks:
                for other in tasks.values():
                    bar.update(other, visible=False)
                tasks[task] = bar.add_task(task, total=total)
            bar.update(tasks[task], completed=done, total=total)
            return
        now = time.monotonic()
        doing.begin(task) if total is None else doing.end()
        if task not in told:
            told[task] = now, done, now
        before, known, began = told[task]
        last = done == total and now - began >= EVERY  # the end of what was told of
        if done > known and (last or now - before >= EVERY):
            told[task] = now, done, began
            err.print(state_of(task, done, total, (done - known) / max(now - before, 1e-9)))

    with bar, closing(doing):
        _shown.append(bar)
        try:
            yield report
        finally:
            _shown.remove(bar)


class _Unmeasured:
    """A step that cannot say how far it is, such as loading: where there is no terminal, a line says when it begins, and one now and then that
    it is still at it.
    """

    def __init__(self) -> None:
        self._over, self._task = Event(), ""

    def begin(self, task: str) -> None:
        if task == self._task and not self._over.is_set():
            return
        self.end()
        self._task = task
        err.print(f"{task} …")
        self._over = Event()
        Thread(target=self._tell, args=(task, self._over), daemon=True).start()

    def _tell(self, task: str, over: Event) -> None:
        waited, wait = 0.0, EVERY
        while not over.wait(wait):
            waited += wait
            err.print(f"{task}: {span(waited)} so far")
            wait = waited  # twice as long each time

    def end(self) -> None:
        self._over.set()

    close = end


class _Done(MofNCompleteColumn):
    """What is done of how much; nothing of a step that cannot say."""

    def render(self, task: Task) -> Text:
        return Text() if task.total is None else super().render(task)


class _Rate(ProgressColumn):
    """What is done in a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed and task.speed >= 1 else "")


def written(target: Path, notes: Sequence[str] = ()) -> None:
    """The last lines of a verb: what is to be said of how it came out, and where the result is."""
    for note in notes:
        out.print(note)
    out.print(f"Written: {target}", soft_wrap=True)


def beside(path: Path, name: str) -> Path:
    """Where a verb puts its result by default: in the run's folder, or in that of the file it read."""
    return (path if path.is_dir() else path.parent) / name


def say_passes(off: str) -> PlannedRuns:
    """Tells, before anything is switched off, how many passes there are with `off` off, and how long they take."""

    def say(passes: int, tokens: int, seconds: float | None) -> None:
        known = "" if seconds is None else f", about {span(seconds)}"
        err.print(f"{many(passes, 'pass')} with {off} off, {many(tokens, 'token')} to run{known}.")

    return say


def provenance(verb: str, *used: LanguageNeurons | ActivationStats, **values: Any) -> dict[str, Any]:
    """What a result's JSON says of how it was made: from which neurons, then statistics, and with which options, field by field."""
    from importlib.metadata import version

    return {
        "verb": verb,
        "command": [*COMMAND],
        "versions": {name: version(name) for name in ("lape", "torch", "transformers")},
        "made_from": {key: value for one in used for key, value in one.made_from.items()},
        **{
            name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
            for name, value in values.items()
        },
    }
