"""A run: a folder that a verb made, with its tables and what its run.json says of them. It knows no values."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from lape.errors import FileError
from lape.store import files

_AGAIN = "Make it again, or copy it anew from where it came."
STATS, NEURONS = "stats.safetensors", "neurons.safetensors"


class Run:
    """The folder of a verb, or of a study. Raises FileError where there is none."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            there = "is a file" if self.folder.is_file() else "is not there"
            more = f" Statistics become one: lape merge {folder} --out RUN." if self.folder.is_file() else ""
            raise FileError(f"{folder} {there}. Expected the folder of a run, such as lape demo makes.{more}")

    @cached_property
    def record(self) -> dict[str, Any]:
        """What run.json says; empty where there is none."""
        return read_record(self.folder)

    @property
    def is_study(self) -> bool:
        """Whether it holds a study, whose tables lie under tables/."""
        return (self.folder / "tables").is_dir()

    @property
    def stats(self) -> Path | None:
        """The folder that holds its statistics: itself, or what a study recorded."""
        return next((place for place in (self.folder, self.folder / "recorded") if (place / STATS).is_file()), None)

    @property
    def neurons(self) -> Path | None:
        """The folder, if it holds neurons."""
        return self.folder if (self.folder / NEURONS).is_file() else None

    def place(self, name: str, file: str, by: str = "") -> Path | None:
        """Where a table is: under tables/ in a study, else at `file` within the folder, or in the folder itself.

        `by`: the verb in whose own folder alone the latter is meant, where others have files of that name.
        """
        beside = [self.folder / file]
        if by in ("", self.record.get("verb")):
            beside.append(self.folder / Path(file).name)
        places = [self.folder / "tables" / f"{name}.parquet"] if self.is_study else beside
        return next((place for place in places if place.is_file()), None)

    def record_of(self, place: Path) -> dict[str, Any]:
        """What the run.json beside a table says."""
        return self.record if self.is_study else read_record(place.parent)


def read_table(path: Path) -> pl.DataFrame:
    """A table. Raises FileError for a damaged file."""
    try:
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise FileError(f"{path} is damaged and was not read: {str(error).splitlines()[0]}. {_AGAIN}") from error


def write_table(path: Path, table: pl.DataFrame) -> None:
    """Write a table as parquet, in one step."""
    files.write(path, table.write_parquet)


def read_record(folder: Path, name: str = "run.json") -> dict[str, Any]:
    """What a folder's run.json says, or another file of that kind; empty where there is none. Raises FileError for a damaged one."""
    path = folder / name
    if not path.is_file():
        return {}
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(f"{path} is damaged: it is not JSON ({error}). {_AGAIN}") from error
    if not isinstance(read, dict):
        raise FileError(f"{path} is damaged: it holds no object. {_AGAIN}")
    return read
