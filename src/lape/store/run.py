"""A run: a folder that a verb made, with its tables and what its run.json says of them. It knows no values."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import polars.selectors as cs

from lape.errors import FileError
from lape.store import files
from lape.store.documents import Schema, Whole, damaged, read_json
from lape.store.kinds import kind_of

_MODEL: Mapping[str, Schema] = {
    **dict.fromkeys(("id", "path", "revision", "source", "adapters", "checksum", "dtype", "probe"), str | None),
    "config": (None.__class__, str, dict),  # a hash of it in older files
}
_RESAMPLES: Mapping[str, Schema] = {"resamples": int | None}
_TEXT: Schema = {
    "hash": str,
    "documents": int,
    "tokens": int,
    "shards": [int],
    "of": int,
    "batches": int,
    "batch_tokens": int,
}
RECORD: Mapping[str, Schema] = {
    "verb": str,
    "command": ([str], str),
    "model": (None.__class__, _MODEL),
    "tokenizer": (None.__class__, {"hash": str | None, "probe": str}),
    "bos": str,
    "corpus": {...: ([_TEXT], _TEXT)},
    "quantities": {...: {"axes": [str], "dtype": str, "merge": str}},
    **dict.fromkeys(("counting", "tuned", "statistics", "manifest", "until"), dict | None),
    "options": (None.__class__, {**_RESAMPLES, "perplexity": (None.__class__, _RESAMPLES)}),
    "versions": {...: str},
    "chosen": {...: dict},
    "clipped": {...: int},
    "evaluated": {"lines": int},
    "space": str,
}
"""What is read of a run.json, as far as it is there."""
MANIFEST: Schema = {
    **RECORD,
    "model": (None.__class__, Whole({**_MODEL, "id": str, "checksum": str}, "id", "checksum")),
}
"""The same of the manifest that statistics and neurons carry."""
STATS, NEURONS = "stats.safetensors", "neurons.safetensors"


class Run:
    """The folder of a verb, or of a study. Raises FileError where there is none, or its run.json is damaged.

    Example:
        >>> from lape.store.run import Run
        >>> run = Run("run")
        >>> run.record["verb"], run.record["counting"]["row_tokens"], run.is_study
        ('record', 64, False)
        >>> lape.ActivationStats.load(run.stats).languages
        ['en', 'fr', 'id', 'zh']
        >>> lape.LanguageNeurons.load(run.neurons).method
        'lape'
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            there = f"is {kind_of(self.folder)}" if self.folder.is_file() else "is not there"
            more = f" Statistics become one: lape merge {folder} --out RUN." if "statistics" in there else ""
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
        """The path of a table: under tables/ in a study, else at `file` within the folder, or in the folder itself; None where it is not there.

        `by`: the verb in whose own folder alone the latter is meant, where others have files of that name.

        Example:
            >>> from lape.store.run import Run
            >>> print(Run("run").place("perplexity", "perplexity/perplexity.parquet"))
            None
        """
        beside = [self.folder / file]
        if by in ("", self.record.get("verb")):
            beside.append(self.folder / Path(file).name)
        places = [self.folder / "tables" / f"{name}.parquet"] if self.is_study else beside
        return next((place for place in places if place.is_file()), None)

    def record_of(self, place: Path) -> dict[str, Any]:
        """What the run.json beside a table, at the path `place`, says; that of the study in a study.

        Example:
            >>> from pathlib import Path
            >>> from lape.store.run import Run
            >>> Run("run").record_of(Path("run/perplexity.parquet"))["verb"]
            'record'
        """
        return self.record if self.is_study else read_record(place.parent)


def read_table(path: Path) -> pl.DataFrame:
    """A table. Raises FileError for a file that is none, or was changed since it was written."""
    try:
        content = path.read_bytes()
        at = content.rfind(_SEAL) + len(_SEAL)
        if at >= len(_SEAL) and _sealed(content, at) != content[at : at + len(_NOTHING)]:
            raise damaged(path, "it is not as it was written")
        return pl.read_parquet(io.BytesIO(content))
    except FileError:
        raise
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise damaged(path, f"it was not read ({(str(error) or type(error).__name__).splitlines()[0]})") from error


def check_table(
    name: str,
    frame: pl.DataFrame,
    schema: Mapping[str, Any],
    where: str = "",
    key: Sequence[str] = (),
    known: Sequence[str] = (),
    shares: Sequence[str] = (),
) -> pl.DataFrame:
    """The frame itself, if it has exactly these columns and dtypes, all its numbers are finite (what is not known is null), and no two rows
    have the same in the columns of `key`. Null is refused in those, and in the columns of `known`. Whole numbers are not below 0, an interval's
    low end is not above its high one, and the columns of `shares` lie between 0 and 1.

    Raises FileError, naming what differs.
    """
    said = []
    if frame.schema != pl.Schema(schema):
        missing = [name for name in schema if name not in frame.schema]
        unknown = [name for name in frame.schema if name not in schema]
        said = [f"lacks {', '.join(missing)}"] if missing else []
        said += [f"has unknown {', '.join(unknown)}"] if unknown else []
        said += [
            f"{k} is {frame.schema[k]}, not {kind}"
            for k, kind in schema.items()
            if k in frame.schema and frame.schema[k] != kind
        ]
        said = said or ["has its columns in another order"]
    else:
        finite = frame.select(
            cs.float().is_finite().all(), cs.by_dtype(pl.List(pl.Float64)).explode().is_finite().all()
        )
        said = [
            f"has values in {name} that are infinite or not numbers" for name in finite.columns if not finite[name][0]
        ]
        said += [
            f"has numbers in {name} that are below 0"
            for name in frame.select(cs.integer()).columns
            if (frame[name] < 0).any()
        ]
        said += [
            f"has values in {name} that are not between 0 and 1"
            for name in shares
            if not frame[name].is_between(0, 1).all()
        ]
        for low in (name for name in frame.columns if name == "low" or name.endswith("_low")):
            high = f"{low.removesuffix('low')}high"
            said += (
                [f"has rows in which {low} is above {high}"]
                if high in frame and (frame[low] > frame[high]).any()
                else []
            )
        rows = frame.select(key)
        said += [f"has rows without {one}" for one in known if frame[one].null_count()]
        if key and (rows.is_duplicated().any() or any(rows.null_count().row(0))):
            said.append(f"has rows that {', '.join(key)} do not tell apart")
    if not said:
        return frame
    raise FileError(
        f"The table {name}{f' ({where})' if where else ''} {'; '.join(said)}: "
        "another version of lape wrote it, or another program. Make it again."
    )


def write_table(path: Path, table: pl.DataFrame) -> None:
    """Write a table as parquet, in one step."""
    files.write(path, lambda temporary: save_table(temporary, table))


def save_table(path: Path, table: pl.DataFrame) -> None:
    """Write parquet whose metadata hold a seal, the SHA-256 of all of the file but itself."""
    content = io.BytesIO()
    table.write_parquet(content, metadata={"lape": (_SEAL + _NOTHING).decode()})
    whole = content.getvalue()
    at = whole.rfind(_SEAL) + len(_SEAL)
    path.write_bytes(whole[:at] + _sealed(whole, at) + whole[at + len(_NOTHING) :])


_SEAL, _NOTHING = b"lape seal ", b"0" * 64


def _sealed(content: bytes, at: int) -> bytes:
    """The seal of a file that has, or will have, it at some place."""
    whole = hashlib.sha256(content[:at] + _NOTHING)
    whole.update(content[at + len(_NOTHING) :])
    return whole.hexdigest().encode()


def read_record(folder: Path, name: str = "run.json") -> dict[str, Any]:
    """What a folder's run.json says, or another file of that kind; empty where there is none. Raises FileError for a damaged one."""
    path = folder / name
    if not path.is_file():
        return {}
    record: dict[str, Any] = read_json(path, RECORD)
    return record
