"""A cache of finished cells on disk, so that a measurement that was stopped goes on from where it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
from torch import Tensor

from lape.errors import FileError
from lape.store import files
from lape.store.documents import damaged, read_json
from lape.store.lazy import FromFile
from lape.store.run import read_table, write_table
from lape.store.tensors import TensorFile, write_tensors

T = TypeVar("T")
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_")
_LONGEST = 160
"""Signs of a cell's name: with its ending and what a file is called while it is written, it stays within 255."""


class Cells:
    """Finished cells of one measurement, a file each, written in one step; without a folder nothing is kept.

    Each name has a file of its own, on every file system: see `_quoted`. A folder must belong to one measurement: who makes it sees to that
    (`files.same_run`).
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def has(self, name: str, ending: str) -> bool:
        """Whether a cell is finished; `ending`: parquet, safetensors or json."""
        path = self._path(name, ending)
        return path is not None and path.is_file()

    def table(self, name: str, make: Callable[[], pl.DataFrame]) -> pl.DataFrame:
        """A table, from the folder or made and kept there; a damaged one is made again, and said."""
        found = self.kept_table(name)
        if found is None:
            found = make()
            self.keep(name, found)
        return found

    def kept_table(self, name: str) -> pl.DataFrame | None:
        """A table from the folder; None where there is none, or a damaged one, which is dropped."""
        return self._kept(name, "parquet", read_table)

    def keep(self, name: str, table: pl.DataFrame) -> None:
        """Write a table, over one that may be there."""
        if (path := self._path(name, "parquet")) is not None:
            write_table(path, table)

    def tensors(
        self, name: str, make: Callable[[], Mapping[str, Tensor]], kind: str, like: Mapping[str, Tensor] | None = None
    ) -> Mapping[str, Tensor]:
        """Tensors by name, from the folder or made and kept there; `kind`: what the file says of itself. `like`: see `kept_tensors`."""
        found = self.kept_tensors(name, kind, like)
        if found is None:
            found = make()
            if (path := self._path(name, "safetensors")) is not None:
                write_tensors(path, found, {"kind": kind})
        return found

    def kept_tensors(
        self, name: str, kind: str, like: Mapping[str, Tensor] | None = None
    ) -> Mapping[str, Tensor] | None:
        """The same from the folder; None as of `kept_table`. `like`: tensors of the names, shapes and number formats that they must have."""

        def read(path: Path) -> Mapping[str, Tensor]:
            found = dict(FromFile(TensorFile(path, kind)))
            if like is not None and _shapes(found) != _shapes(like):
                raise damaged(path, f"it holds {_shapes(found)}, not {_shapes(like)}")
            return found

        return self._kept(name, "safetensors", read)

    def record(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What JSON can hold, from the folder or made and kept there, with a sum of itself beside it."""
        found = self.kept_record(name)
        if found is None:
            found = make()
            self.keep_record(name, found)
        return found

    def keep_record(self, name: str, record: dict[str, Any]) -> None:
        """Write what JSON can hold, over what may be there."""
        if (path := self._path(name, "json")) is not None:
            files.write_json(path, {"sha256": _sum(record), "record": record})

    def kept_record(self, name: str) -> dict[str, Any] | None:
        """The same from the folder; None as of `kept_table`."""
        return self._kept(name, "json", _record)

    def _kept(self, name: str, ending: str, read: Callable[[Path], T]) -> T | None:
        path = self._path(name, ending)
        if path is None or not path.is_file():
            return None
        try:
            return read(path)
        except FileError as error:
            files.dropped(path, error)
            return None

    def place(self, name: str) -> Path | None:
        """Where a folder of that name lies, for a measurement within this one, which keeps its own state; None where nothing is kept."""
        return None if self.folder is None else self.folder / f"{_quoted(name)}.folder"

    def _path(self, name: str, ending: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{_quoted(name)}.{ending}"


def _quoted(name: str) -> str:
    """A name as a file's: its small letters, digits and ".-_", and any other sign as %XX, also capitals, which some file systems do not tell
    apart from small ones. A long one is cut, and ends in %% and its SHA-256.
    """
    raw = name.encode("utf-8", "surrogatepass")
    signs = [chr(byte) if chr(byte) in _PLAIN else f"%{byte:02x}" for byte in raw]
    signs[:1] = ["%2e"] if raw[:1] == b"." else signs[:1]  # such files are hidden
    quoted = "".join(signs)
    return quoted if len(quoted) <= _LONGEST else f"{quoted[: _LONGEST - 66]}%%{hashlib.sha256(raw).hexdigest()}"


def _shapes(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {tuple(one.shape)} {one.dtype}" for name, one in sorted(tensors.items()))


def _record(path: Path) -> dict[str, Any]:
    found = read_json(path, {"sha256": str, "record": dict})
    if found.get("sha256") != _sum(found.get("record")):
        raise damaged(path, "it is not as it was written")
    record: dict[str, Any] = found["record"]
    return record


def _sum(record: Any) -> str:
    return hashlib.sha256(files.as_json(record).encode()).hexdigest()
