"""Publication figures of a run: every figure of every experiment whose tables it holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lape.errors import FileError
from lape.experiments import experiments
from lape.figures.write import INDEX, FigureOptions, draw_tables, write_index
from lape.options import keywords_of
from lape.reporting.gather import STRANGE, Gathered, gather, nothing
from lape.store.documents import read_json
from lape.store.draft import Draft
from lape.store.run import Run


@dataclass(frozen=True)
class Drawn:
    """What was drawn, and what was not."""

    paths: dict[str, Path]
    """File name, such as `layers.pdf` -> where it is."""
    titles: dict[str, str]
    """Figure -> its title."""
    captions: dict[str, str]
    """Figure -> a caption: what is drawn, n, units, how intervals were made, the model and the command."""
    missing: dict[str, str]
    """Figure -> the command that makes what it lacks."""
    why: dict[str, str]
    """Figure -> why it was not drawn of what is there: measured with other neurons, for instance."""
    notes: list[str]
    """What has to be said, such as languages whose letters no font here has."""


@dataclass(frozen=True)
class DrawArguments(FigureOptions):
    """What `draw` takes besides a run."""

    out: str | Path | None = None
    """The folder to write. Default: `figures` in the run's."""


@keywords_of(DrawArguments)
def draw(run: str | Path, options: DrawArguments) -> Drawn:
    """Draw every figure whose tables a run's folder holds; the same run gives the same bytes.

    Gives `paths` (file name -> path), `titles`, `captions`, `missing` (figure -> the command that makes what it lacks), `why` (figure -> why it
    was not drawn of what is there) and `notes`.

    `run`: a folder of lape demo, identify, perplexity, force or study. `out`: the folder to write, by default `figures` in the run's.
    With the figures it holds figures.json with their captions. Figures that were drawn there before are replaced; raises FileError where `out` holds
    anything else, or nothing can be drawn, OptionError without matplotlib.

    Example:
        >>> from lape.reporting.figures import draw
        >>> drawn = draw("run", format="svg", width="page")
        >>> sorted(drawn.paths)
        ['layers.svg', 'overlap.svg']
        >>> drawn.missing["amount"]
        'lape run amount run'
    """
    run = Path(run)
    target = Path(options.out) if options.out is not None else Run(run).folder / "figures"
    _refuse_foreign(target)
    draft = Draft(target, overwrite=True)
    found = gather(run)
    if not found.tables:
        raise nothing(found, "that can be drawn")
    with draft.anew() as working:
        every = [figure for experiment in experiments().values() for figure in experiment.figures]
        made = draw_tables(every, found.tables, working, options, found.facts)
        missing, why = lacking(found), outdated(found)
        write_index(working, made, missing, options)
    paths = {name: target / name for several in made.files.values() for name in several}
    return Drawn(paths, made.titles, made.captions, missing, why, made.notes)


def _refuse_foreign(folder: Path) -> None:
    """Refuse a place that holds anything that was not drawn there before."""
    if folder.exists() and not folder.is_dir():
        raise FileError(f"{folder} is a file. Choose another folder for the figures.")
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if INDEX in there:
        drawn = read_json(folder / INDEX, {"figures": {...: {"files": [str], ...: object}}, ...: object})
        there -= {INDEX, *(name for figure in drawn.get("figures", {}).values() for name in figure.get("files", []))}
    if there:
        raise FileError(f"{folder} holds {min(there)}, which lape did not write. Move it, or choose another folder.")


def lacking(found: Gathered) -> dict[str, str]:
    """Figure -> the command that makes what it lacks; those that no command is known to make are left out."""
    makes = {table: experiment for experiment in experiments().values() for table in experiment.tables}
    lacks = {
        figure.name: next(name for name in figure.needs if name not in found.tables or not len(found.tables[name]))
        for experiment in experiments().values()
        for figure in experiment.figures
        if not figure.possible(found.tables)
    }
    commands = {name: found.command(makes[table], table) for name, table in lacks.items()}
    return {name: command for name, command in commands.items() if command}


def outdated(found: Gathered) -> dict[str, str]:
    """Figure -> why a table that it needs is there and not drawn."""
    every = [
        (one, figure) for one in experiments().values() for figure in one.figures if not figure.possible(found.tables)
    ]
    strange = {figure.name: f"of neurons {STRANGE}" for one, figure in every if one.of_neurons and found.strange}
    return strange | {
        figure.name: f"measured with {found.why[name]}"
        for _, figure in every
        for name in figure.needs
        if name in found.why
    }
