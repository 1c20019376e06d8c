"""How often a model answers in another language than the one asked for, and in which other ways it fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lape.errors import FileError
from lape.experiments.confusion.answers import UNJUDGED
from lape.experiments.confusion.figures import caption, kinds, kinds_caption
from lape.experiments.confusion.figures import confusion as draw_confusion
from lape.experiments.confusion.run import confusion
from lape.experiments.confusion.section import TITLE, section
from lape.experiments.confusion.table import CHANGES, CURES, JUDGED, RATES
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import Experiment, named
from lape.experiments.table import Table
from lape.figures.figure import Figure
from lape.store.run import read_table

__all__ = ["EXPERIMENT", "confusion"]


@dataclass(frozen=True)
class ConfusionStudy:
    """What of it a study sets."""

    confusion: Path | None = None
    """The folder of lape confusion or lape fix, whose results are joined."""


GIVEN = named(
    "confusion",
    "answers take long and are measured separately: lape confusion MODEL --languages TAGS --out FOLDER, then --confusion FOLDER",
    "--confusion FOLDER",
)
"""What `lape confusion` measured is joined, not measured again."""


def _file(name: str) -> str:
    """Where a table lies in a run's folder; in the own folder of lape confusion, or lape fix, under its name."""
    return f"confusion/{name}.parquet"


def _run(_context: Context, options: ConfusionStudy) -> Tables:
    """The tables of `lape confusion`."""
    return {name: read_table(path) for name, path in _reads(options).items()}


def _reads(options: ConfusionStudy) -> Mapping[str, Path]:
    if options.confusion is None:
        return {}
    found = {name: options.confusion / f"{name}.parquet" for name in EXPERIMENT.tables}
    there = {name: path for name, path in found.items() if path.is_file() or not EXPERIMENT.tables[name].optional}
    if missing := [path for path in there.values() if not path.is_file()]:
        raise FileError(f"There is no {missing[0]}. Expected the folder that lape confusion or lape fix made.")
    return there


EXPERIMENT = Experiment(
    name="confusion",
    title=TITLE,
    about="how often a model answers in another language than the one asked for, as measured before by lape confusion",
    options=ConfusionStudy,
    run=_run,
    tables={
        "confusion": Table(
            "Rates of the Language Confusion Benchmark, and shares of answers that fail, by kind; all is what a row is averaged over.",
            RATES,
            labels={"lpr": "LPR", "wpr": "WPR"},
            key=("condition", "task", "source", "language"),
            file=_file("confusion"),
        ),
        "confusion_changes": Table(
            "What changes from the first condition, paired over questions.",
            CHANGES,
            key=("condition", "task", "language"),
            file=_file("confusion_changes"),
        ),
        "confused_answers": Table("Every answer, with its verdicts.", JUDGED, file=_file("confused_answers")),
        "unjudged_lines": Table(
            "Lines of the logs that could not be judged, and why.",
            UNJUDGED,
            key=("file", "line"),
            file=_file("unjudged_lines"),
            optional=True,
        ),
        "confusion_cures": Table(
            "What lape fix tried as a cure.", CURES, key=("setting",), file=_file("confusion_cures"), optional=True
        ),
    },
    needs=(GIVEN,),
    figures=(
        Figure("confusion", TITLE, ("confusion",), draw_confusion, caption),
        Figure("confusion_kinds", "How answers fail", ("confusion",), kinds, kinds_caption),
    ),
    section=section,
    command="lape confusion MODEL --languages TAGS --out {run}/confusion",
    reads=_reads,
)
