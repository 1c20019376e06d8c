"""A folder while it is made: it takes its target's place in one step, when it is whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from lape.store import files
from lape.store.files import CELLS, PARTS
from lape.store.lock import Lock
from lape.store.run import write_table


class Draft:
    """The folder that becomes `target`, under a name of its own until then.

    Raises FileError where something is in the target's way: anything unless `overwrite`, what `lape` did not write even then, and another
    process that is making it.
    """

    def __init__(self, target: str | Path, overwrite: bool = False) -> None:
        self.target = Path(target)
        self._lock = Lock(self.target)
        files.refuse_existing(self.target, overwrite)
        self.folder = files.partial(self.target)

    @contextmanager
    def anew(self) -> Iterator[Path]:
        """An empty folder that is put in place when the block ends, and is gone when it fails."""
        files.fresh(self.folder)
        try:
            yield self.folder
            self.finish()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._lock.release()

    @contextmanager
    def cells(self) -> Iterator[Path]:
        """The folder where finished parts wait for the rest, also for the next run; one in which nothing is finished does not stay."""
        cells = self.folder / CELLS
        if not cells.exists():
            files.fresh(self.folder)
            cells.mkdir()
        try:
            yield cells
        finally:
            if not any(path.name != files.STATE for path in cells.glob("[!.]*")):
                shutil.rmtree(self.folder, ignore_errors=True)
            self._lock.release()

    def write(self, tables: Mapping[str, pl.DataFrame], **documents: Any) -> None:
        """Write NAME.parquet of each table, and NAME.json of each document, such as `run`."""
        for name, table in tables.items():
            write_table(self.folder / f"{name}.parquet", table)
        for name, document in documents.items():
            files.write_json(self.folder / f"{name}.json", document)

    def finish(self) -> None:
        """Put the folder in place, without what it went on from, which does not outlast the draft."""
        for name in (CELLS, PARTS):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / files.STATE).unlink(missing_ok=True)
        for left in self.folder.rglob(".*"):  # by processes that were killed
            if left.suffix in (".tmp", ".lock"):
                left.unlink()
        files.finish(self.folder, self.target)
        self._lock.release()
