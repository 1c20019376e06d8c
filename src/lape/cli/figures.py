"""`lape figures`: publication figures of what a run holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from lape.cli.common import out
from lape.cli.flags import FLAGS, Out
from lape.figures.write import FigureOptions
from lape.reporting.figures import Drawn, draw
from lape.signs import many

_FIGURES = FigureOptions()


def figures(run: Path, *, to: Out | None = None, options: Annotated[FigureOptions, FLAGS] = _FIGURES) -> None:
    """Draw what a run holds, as figures to publish, each with its caption in figures.json. Needs the extra report.

    Figures that were drawn before are replaced.

    Parameters
    ----------
    run
        The folder of lape demo, identify, perplexity, force or study.
    to
        The folder to write. Default: figures in the run's folder.
    """
    drawn = draw(run, **vars(options), out=to)
    for name, path in drawn.paths.items():
        out.print(f"{name:<18} {drawn.titles[path.stem]}")
    for line in _not_drawn(drawn):
        out.print(line, soft_wrap=True)
    for note in drawn.notes:
        out.print(note, soft_wrap=True)
    folder = next(iter(drawn.paths.values())).parent
    out.print(f"Written: {folder}, captions in figures.json", soft_wrap=True)


def _not_drawn(drawn: Drawn) -> Iterator[str]:
    """What is there and was not drawn, with the reason; and how many figures lack their tables, with the command that makes most of them."""
    alike: dict[str, list[str]] = {}
    for name, why in drawn.why.items():
        alike.setdefault(f"{why}.{_typed(drawn.missing.get(name))}", []).append(name)
    for why, names in alike.items():
        yield f"Not drawn: {', '.join(names)}, {why}"
    lacking = [command for name, command in drawn.missing.items() if name not in drawn.why]
    if lacking:
        (command, count), *others = Counter(lacking).most_common()
        rest = "; figures.json has the commands of all" if others else ""
        yield f"Not drawn: {many(len(lacking), 'figure')} of what was not measured. {count} of them:{_typed(command)}{rest}"


def _typed(command: str | None) -> str:
    return f" Type: {command}" if command else ""
