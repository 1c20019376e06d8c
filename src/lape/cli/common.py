"""What all verbs share: the terminal, progress bars, and reading `TAG=PATH`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from cyclopts import Parameter
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

from lape.errors import FileError, OptionError, TextError

if TYPE_CHECKING:
    from lape.data.texts import Source
    from lape.measure.ablation import Planned
    from lape.progress import Progress as Report

out = Console(soft_wrap=False)
err = Console(stderr=True)

TextFlags: TypeAlias = Annotated[list[str], Parameter(name="--text", negative="", show_default=False)]
TunedFlags: TypeAlias = Annotated[list[str] | None, Parameter(name="--tuned", negative="")]
Overwrite: TypeAlias = Annotated[bool, Parameter(negative="")]
_DEMOS = (Path("runs/demo"), Path("lape-demo"))
"""Where `make demo` and `lape demo` leave their runs."""
EVERY = 10.0
"""Seconds between two lines of progress where there is no terminal."""


def texts_of(flags: Sequence[str], option: str = "--text") -> dict[str, Source]:
    """`["fr=a.txt", "fr=b.txt", "zh=c"]` as sources by language. Raises TextError for a flag without `=`."""
    return dict(_paths(flags, option, "french.txt"))


def tuned_of(flags: Sequence[str]) -> dict[str, str]:
    """`["fr=a", "zh=b"]` as checkpoints by language. Raises TextError for a flag without `=`, and for a language given twice."""
    found = _paths(flags, "--tuned", "french-checkpoint")
    for language, paths in found.items():
        if len(paths) > 1:
            raise TextError(f"--tuned {language} was given {len(paths)} times. Expected one checkpoint a language.")
    return {language: paths[0] for language, paths in found.items()}


def one_each(flags: Sequence[str], option: str) -> dict[str, str]:
    """`["fr=a.txt", "zh=b.txt"]` as one file by language. Raises TextError for a language given twice."""
    found = _paths(flags, option, "french.txt")
    for language, paths in found.items():
        if len(paths) > 1:
            raise TextError(f"{option} names {len(paths)} files for {language}. Expected one file for each language.")
    return {language: paths[0] for language, paths in found.items()}


def _paths(flags: Sequence[str], option: str, example: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for flag in flags:
        language, equals, path = flag.partition("=")
        if not equals or not path:
            raise TextError(f"{option} {flag} names no path. Expected TAG=PATH, for example {option} fr={example}.")
        found.setdefault(language.strip(), []).append(path)
    return found


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
            err.print(_line(task, done, total, (done - known) / (now - before)), highlight=False)

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
        out.print(note, highlight=False)
    out.print(f"Written: {target}", highlight=False, soft_wrap=True)


def beside(path: Path, name: str) -> Path:
    """Where a verb puts its result by default: in the run's folder, or in that of the file it read."""
    return (path if path.is_dir() else path.parent) / name


def say_passes(off: str) -> Planned:
    """Tells, before anything is switched off, how many passes there are with `off` off, and how long they take."""

    def say(passes: int, tokens: int, seconds: float | None) -> None:
        known = "" if seconds is None else f", about {span(seconds)}"
        err.print(f"{passes} passes with {off} off, {tokens:,} tokens to run{known}.", highlight=False)

    return say


def run_of(model: str, run: Path | None) -> Path:
    """The run's folder whose statistics a verb uses; for sample the demo's, where it is."""
    if run is None:
        run = next((path for path in _DEMOS if model == "sample" and (path / "stats.safetensors").is_file()), None)
    if run is None:
        first = "make the demo's (lape demo), or " if model == "sample" else ""
        raise OptionError(
            f"No run was given. Record one ({first}lape record MODEL --text TAG=PATH --out RUN) and name it: --run RUN."
        )
    if not run.exists():
        raise FileError(f"There is no run {run}. Expected a folder that lape record or lape demo made.")
    return run


def neurons_of(path: Path, languages: str | None, width: int | None) -> Any:
    """Language neurons from a run, a file, or a published .pth."""
    from lape.values.neurons import LanguageNeurons

    names = [name for name in languages.replace(",", " ").split() if name] if languages else None
    if path.is_dir() and not (path / "neurons.safetensors").exists():
        raise FileError(f"{path} holds no neurons yet. Type: lape identify {path}")
    return LanguageNeurons.load(path, languages=names, width=width)


def write_table(frame: Any, path: Path) -> None:
    """Write a table as parquet, in one step."""
    from lape.store import files

    files.write(path, frame.write_parquet)


def provenance(verb: str, **values: Any) -> dict[str, Any]:
    """What a result's JSON says of how it was made."""
    from importlib.metadata import version

    return {
        "verb": verb,
        "command": sys.argv[1:],
        "versions": {name: version(name) for name in ("lape", "torch", "transformers")},
        **values,
    }


def plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    return json.loads(json.dumps(value, default=str))


def span(seconds: float) -> str:
    """A time as people read it."""
    if seconds < 1:
        return "a moment"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
