"""One thought, reading texts: files, folders, globs, Hub data sets or lists become documents, each a stream of pieces."""

from __future__ import annotations

import glob
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

from lape.errors import TextError
from lape.extras import need

DocumentRule = Literal["file", "line"]
PIECE = 65_536
"""Characters after which a long document is cut, at the next line end, so that it never has to be in memory whole."""
SUFFIXES = (".txt", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")


@dataclass(frozen=True)
class Documents:
    """Documents given as strings, for texts that are in memory already."""

    texts: tuple[str, ...]

    def __init__(self, texts: Iterable[str]) -> None:
        if isinstance(texts, str):
            raise TextError("Documents takes a list of strings. For one document write Documents([text]).")
        object.__setattr__(self, "texts", tuple(texts))


Source: TypeAlias = str | Path | Documents | Sequence[str | Path]
"""A path, a glob, a folder, `hf:DATASET[:CONFIG[:SPLIT]]`, several of them, or `Documents([...])`."""
Texts: TypeAlias = Mapping[str, Source]
"""Language tag -> source."""


def documents(
    source: Source, *, rule: DocumentRule = "file", column: str = "text", blank: bool = False
) -> Iterator[Iterator[str]]:
    """The documents of a source in a fixed order, each as an iterator of pieces of about 64k characters.

    A .txt file is one document (`rule="line"`: each line is one); .jsonl, .parquet and Hub data sets give one per record.
    `blank`: give a blank line as a document without pieces, so that documents are numbered as the lines of parallel text are.
    Raises TextError naming the file, and what was expected there.
    """
    if isinstance(source, Documents):
        for text in source.texts:
            yield _pieces_of(text)
        return
    paths: list[Any] = [source] if isinstance(source, (str, Path)) else list(source)
    if not paths:
        raise TextError("An empty list of texts was given. Expected at least one path.")
    for item in paths:
        if isinstance(item, str) and item.startswith("hf:"):
            yield from _records(_hub(item, column), column, item)
        elif isinstance(item, (str, Path)):
            for path in _expand(item):
                yield from _file(path, rule, column, blank)
        else:
            raise TextError(
                f"{item!r:.80} is not a path. Expected a path, a glob, a folder or hf:NAME; wrap strings in lape.data.texts.Documents([...])."
            )


def listed(texts: Texts) -> dict[str, list[str]]:
    """What a run.json says of texts: language -> the paths as they were given, of texts in memory none."""
    return {
        language: []
        if isinstance(one, Documents)
        else [str(path) for path in ([one] if isinstance(one, (str, Path)) else one)]
        for language, one in texts.items()
    }


def check_source(source: Source) -> None:
    """Refuse a path with nothing at it, before a model is loaded."""
    if isinstance(source, Documents):
        return
    for item in [source] if isinstance(source, (str, Path)) else source:
        if isinstance(item, (str, Path)) and not str(item).startswith("hf:"):
            _expand(item)


def _expand(item: str | Path) -> list[Path]:
    if str(item).strip() == "":
        raise TextError("An empty path was given. Expected a file, a folder or a glob.")
    path = Path(item).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file() and p.name.endswith(SUFFIXES))
    else:
        found = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file())
    if not found:
        raise TextError(
            f"There is no text at {path}. Expected a file, a folder or a glob with {', '.join(SUFFIXES)}, or hf:NAME."
        )
    return found


def _file(path: Path, rule: DocumentRule, column: str, blank: bool) -> Iterator[Iterator[str]]:
    name = path.name
    if name.endswith(".parquet"):
        yield from _records(_parquet(path, column), column, str(path))
    elif name.endswith((".jsonl", ".jsonl.gz", ".jsonl.zst")):
        yield from _records(_json_lines(path), column, str(path))
    elif name.endswith(".txt"):
        yield from _plain(path, rule, blank)
    else:
        raise TextError(f"{path} has an unknown kind. Expected one of {', '.join(SUFFIXES)}.")


def _plain(path: Path, rule: DocumentRule, blank: bool) -> Iterator[Iterator[str]]:
    with _open(path) as file:
        lines = _decoded(file, path)
        if rule == "file":
            yield _pieces(lines)
        else:
            for line in lines:
                if line.strip():
                    yield iter((line.rstrip("\r\n"),))
                elif blank:
                    yield iter(())


def _open(path: Path) -> IO[str]:
    try:
        if path.name.endswith(".gz"):
            return gzip.open(path, "rt", encoding="utf-8-sig", newline="\n")
        if path.name.endswith(".zst"):
            return _zstandard(path)
        return path.open(encoding="utf-8-sig", newline="\n")
    except OSError as error:
        raise TextError(f"{path} could not be opened: {error.strerror}.") from error


def _zstandard(path: Path) -> IO[str]:
    need("zst", str(path), "zstandard")
    import zstandard

    return io.TextIOWrapper(io.BufferedReader(_Frames(path, zstandard)), encoding="utf-8-sig", newline="\n")


class _Frames(io.RawIOBase):
    """The bytes of a zstandard file of one or more frames. The library's own reader takes a file that was cut off for a whole one."""

    def __init__(self, path: Path, library: Any) -> None:
        self._file, self._library = path.open("rb"), library
        self._frame: Any = None
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            block = (
                self._frame.unused_data if self._frame is not None and self._frame.eof else b""
            ) or self._file.read(2**17)
            if not block:
                if self._frame is not None and not self._frame.eof:
                    raise EOFError("it ends in the middle")
                return 0
            if self._frame is None or self._frame.eof:
                self._frame = self._library.ZstdDecompressor().decompressobj()
            self._ready = self._frame.decompress(block)
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _decoded(file: IO[str], path: Path) -> Iterator[str]:
    try:
        yield from file
    except UnicodeDecodeError as error:
        raise TextError(
            f"{path} is not UTF-8 (byte {error.object[error.start]:#04x}: {error.reason}). "
            f"Convert it, for instance: iconv -f LATIN1 -t UTF-8 {path.name} > utf8.txt"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise TextError(f"{path} could not be read: {error}. It seems damaged; get it again.") from error
    except Exception as error:
        if type(error).__module__.split(".")[0] != "zstandard":
            raise
        raise TextError(f"{path} could not be read: {error}. It seems damaged; get it again.") from error


def _pieces(lines: Iterable[str]) -> Iterator[str]:
    held: list[str] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= PIECE:
            yield "".join(held)
            held, size = [], 0
    if held:
        yield "".join(held)


def _json_lines(path: Path) -> Iterator[Any]:
    with _open(path) as file:
        for number, line in enumerate(_decoded(file, path), 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise TextError(
                        f"{path}, line {number} is not JSON ({error}). Expected one JSON object a line."
                    ) from error


def _parquet(path: Path, column: str) -> Iterator[Any]:
    import polars as pl

    try:
        frame = pl.scan_parquet(path)
        names = frame.collect_schema().names()
        if column not in names:
            raise TextError(f"{path} has no column {column!r}, but {', '.join(names)}. Name it: --column {names[0]}.")
        for batch in frame.select(column).collect_batches(chunk_size=4096):
            yield from batch.iter_rows(named=True)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise TextError(f"{path} could not be read as parquet: {error}") from error


def _hub(item: str, column: str) -> Iterator[Any]:
    need("datasets", f"The Hub data set {item}", "datasets")
    import datasets

    name, config, split = [*item.removeprefix("hf:").split(":"), "", ""][:3]
    try:
        stream = datasets.load_dataset(name, config or None, split=split or "train", streaming=True)
        yield from stream
    except Exception as error:  # the library raises many kinds; all mean that this data set cannot be read
        raise TextError(
            f"{item} could not be read: {error} Expected hf:NAME[:CONFIG[:SPLIT]] with a column {column!r}."
        ) from error


def _records(records: Iterator[Any], column: str, name: str) -> Iterator[Iterator[str]]:
    for record in records:
        text = record.get(column) if isinstance(record, dict) else None
        if not isinstance(text, str):
            keys = ", ".join(record) if isinstance(record, dict) else type(record).__name__
            raise TextError(
                f"{name}: a record has no text in {column!r}; it has {keys}. Name the column: --column NAME."
            )
        yield _pieces_of(text)


def _pieces_of(text: str) -> Iterator[str]:
    """Of a text in memory. Half an emoji, as JSON can hold it, is no text: it becomes a question mark."""
    encodable = text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
    return _pieces(io.StringIO(encodable, newline="\n"))


def preview(source: Source, *, rule: DocumentRule, column: str, pieces: int = 200) -> list[str]:
    """The first pieces of text of a source, at most `pieces`, for a look at what language they hold."""
    return list(islice(chain.from_iterable(documents(source, rule=rule, column=column)), pieces))
