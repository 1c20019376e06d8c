"""Reading texts: files, folders, globs, Hub data sets or lists become documents, each a stream of pieces."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lape.data import parquet
from lape.data.reading import PIECE, lines, parts, parts_of, pieces, whole_lines
from lape.errors import TextError, foreign, warn
from lape.extras import need

DocumentRule = Literal["file", "line"]
_LOOK = 2**22
_MANY, _SHORT = 200, 500
"""Lines from which a file is no single text as a rule, and characters of one that is a sentence."""
_NAMED = 3
"""Files that a warning names."""
SUFFIXES = (".txt", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")


@dataclass(frozen=True)
class Documents:
    """Documents given as strings, for texts that are in memory already: a source wherever a path is one.

    Raises TextError for a single string, which would be a document for each letter.

    Example:
        >>> from lape.data.texts import Documents
        >>> stats = lape.record(model, tokenizer, {"fr": Documents(["fr02 fr03 .", "fr04 ."])})
        >>> int(stats["fr"].tokens.sum())
        5
    """

    texts: tuple[str, ...]
    units: tuple[int, ...] | None = None
    """The unit of resampling of each, where several are one, as the sentences of an article are."""

    def __init__(self, texts: Iterable[str], units: Iterable[int] | None = None) -> None:
        if isinstance(texts, str):
            raise TextError("Documents takes a list of strings. For one document write Documents([text]).")
        object.__setattr__(self, "texts", tuple(texts))
        object.__setattr__(self, "units", None if units is None else tuple(units))
        if self.units is not None and len(self.units) != len(self.texts):
            raise TextError(f"There are {len(self.texts)} documents and {len(self.units)} units. Give one to each.")


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
            yield pieces(parts_of(text))
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


def warn_of_lines(texts: Texts) -> None:
    """Warn once of all .txt files that are read as one document each and look as if each line were one: hundreds, none long or blank."""
    paths = [path for source in texts.values() if not isinstance(source, Documents) for path in _files(source)]
    named = [f"{path.name} ({count} lines)" for path in paths if (count := _independent(path))]
    if named:
        shown = ", ".join([*named[:_NAMED], *([f"{len(named) - _NAMED} more"] if len(named) > _NAMED else [])])
        warn(
            f"Each .txt file is read as one document, and none of these has a blank line or long lines: {shown}. If their lines do not follow one "
            "another, make each line a document: document='line'."
        )


def _files(source: str | Path | Sequence[str | Path]) -> Iterator[Path]:
    """The .txt files of a source that is on this disk."""
    for item in [source] if isinstance(source, (str, Path)) else source:
        if isinstance(item, (str, Path)) and not str(item).startswith("hf:"):
            yield from (path for path in _expand(item) if path.name.endswith(".txt"))


def _independent(path: Path) -> str:
    """How many short lines a file has, if it has nothing else; read no further than 4 MB."""
    with path.open("rb") as file:
        begun = file.read(_LOOK)
        more = len(begun) == _LOOK
    found = begun.removesuffix(b"\n").split(b"\n")[: -1 if more else None]
    if len(found) < _MANY or not all(line.strip() for line in found):
        return ""
    median = sorted(len(line.decode("utf-8", "replace")) for line in found)[len(found) // 2]
    return f"{'over ' * more}{len(found):,}" if median < _SHORT else ""


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
        yield from _records(parquet.records(path, column), column, str(path))
    elif name.endswith((".jsonl", ".jsonl.gz", ".jsonl.zst")):
        yield from _records(_json_lines(path), column, str(path))
    elif name.endswith(".txt"):
        yield from _plain(path, rule, blank)
    else:
        raise TextError(f"{path} has an unknown kind. Expected one of {', '.join(SUFFIXES)}.")


def _plain(path: Path, rule: DocumentRule, blank: bool) -> Iterator[Iterator[str]]:
    if rule == "file":
        yield pieces(parts(path))
    else:
        yield from lines(parts(path), blank=blank)


def _json_lines(path: Path) -> Iterator[Any]:
    for number, line in whole_lines(path):
        if not line.isspace():
            yield _json(line, f"{path}, line {number}")


def _json(line: str, where: str) -> Any:
    with foreign(TextError, lambda told: f"{where} is not JSON ({told}). Expected one JSON object a line."):
        return json.loads(line)


def _hub(item: str, column: str) -> Iterator[Any]:
    need("datasets", f"The Hub data set {item}", "datasets")
    import datasets

    name, config, split = [*item.removeprefix("hf:").split(":"), "", ""][:3]
    with foreign(  # the library raises many kinds; all mean that this data set cannot be read
        TextError,
        lambda told: f"{item} could not be read: {told} Expected hf:NAME[:CONFIG[:SPLIT]] with a column {column!r}.",
    ):
        yield from datasets.load_dataset(name, config or None, split=split or "train", streaming=True)


def _records(records: Iterator[Any], column: str, name: str) -> Iterator[Iterator[str]]:
    for record in records:
        text = record.get(column) if isinstance(record, dict) else None
        if not isinstance(text, str):
            keys = ", ".join(record) if isinstance(record, dict) else type(record).__name__
            raise TextError(f"{name}: a record has no text in {column!r}; it has {keys}. Name the column: column=NAME.")
        yield pieces(parts_of(text))


def preview(source: Source, *, rule: DocumentRule, column: str, pieces: int = 200) -> list[str]:
    """The first pieces of text of a source, at most so many and no more than a million characters, for a look at what they hold."""
    found: list[str] = []
    room = 16 * PIECE
    for piece in islice(chain.from_iterable(documents(source, rule=rule, column=column)), pieces):
        found.append(piece)
        room -= len(piece)
        if room <= 0:
            break
    return found
