"""`lape figures`: publication figures of what a run holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from lape.cli.common import out
from lape.cli.flags import FLAGS, Out, Switch
from lape.figures.write import FigureOptions
from lape.reporting.figures import draw

_FIGURES = FigureOptions()


def figures(
    run: Path,
    *,
    to: Out | None = None,
    overwrite: Switch = False,
    options: Annotated[FigureOptions, FLAGS] = _FIGURES,
) -> None:
    """Draw what a run holds, as figures to publish, each with its caption in figures.json. Needs the extra report.

    Parameters
    ----------
    run
        The folder of lape demo, identify, perplexity, force or study.
    to
        The folder to write. Default: figures in the run's folder.
    overwrite
        Replace an existing folder.
    """
    drawn = draw(run, **vars(options), out=to, overwrite=overwrite)
    for name, path in drawn.paths.items():
        out.print(f"{name:<18} {drawn.titles[path.stem]}")
    alike: dict[tuple[str, str], list[str]] = {}
    for name in [*drawn.missing, *(name for name in drawn.why if name not in drawn.missing)]:
        alike.setdefault((drawn.why.get(name, ""), drawn.missing.get(name, "")), []).append(name)
    for (why, command), lacking in alike.items():
        said = f"Not drawn: {', '.join(lacking)}{f', {why}' if why else ''}.{f' Type: {command}' if command else ''}"
        out.print(said, soft_wrap=True)
    for note in drawn.notes:
        out.print(note, soft_wrap=True)
    folder = next(iter(drawn.paths.values())).parent
    out.print(f"Written: {folder}, captions in figures.json", soft_wrap=True)
