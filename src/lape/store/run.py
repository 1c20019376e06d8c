"""Reading what verbs left in a folder: its tables, and what run.json says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from lape.errors import FileError

_AGAIN = "Make it again, or copy it anew from where it came."


def read_table(path: Path) -> pl.DataFrame:
    """A table. Raises FileError for a damaged file."""
    try:
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise FileError(f"{path} is damaged and was not read: {str(error).splitlines()[0]}. {_AGAIN}") from error


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
