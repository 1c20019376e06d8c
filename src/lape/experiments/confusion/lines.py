"""Lines of .jsonl and .csv files as people have them: each as a row, or with the reason why it is none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from lape.data.languages import tag
from lape.data.reading import parts
from lape.errors import FileError, TextError, certain
from lape.signs import replace_surrogates

Row: TypeAlias = Mapping[str, Any]
LONGEST = 2**24
"""Characters of the longest line of a .jsonl file, or row of a .csv, that is read."""
LARGEST = 2**31
"""Characters of the largest .csv file that is read; unlike a .jsonl file it is in memory whole."""
_LANGUAGE = ("language", "lang", "locale", "target_language")
_PACKED = (".gz", ".zst")
_TOO_LONG = f"it is longer than {LONGEST:,} characters"
_NOT_UTF8 = re.compile("[\ud800-\udfff]")
"""What `surrogateescape` makes of bytes that are not UTF-8."""


@dataclass(frozen=True)
class Line:
    """A line of a .jsonl file, or a row of a .csv."""

    file: Path
    number: int
    row: Row | None
    """What it holds, without half characters; None where it cannot be read."""
    wrong: str = ""
    """Why it cannot be read."""

    def read(self) -> Row:
        """The row. Raises TextError with the reason where there is none."""
        if self.row is None:
            raise TextError(self.wrong)
        return self.row

    def __str__(self) -> str:
        return f"{self.file}, {'row' if _kind(self.file) == '.csv' else 'line'} {self.number}"


def files_of(path: Path) -> list[Path]:
    """A file, or every .csv of a folder. Raises FileError where there is none."""
    if path.is_dir():
        found = sorted(path.rglob("*.csv"))
        if not found:
            raise FileError(f"{path} holds no .csv. Expected the test sets of the benchmark, TASK/SOURCE/LANGUAGE.csv.")
        return found
    if not path.is_file():
        raise FileError(f"There is no file {path}. Expected a .jsonl or .csv file, or a folder of .csv files.")
    return [path]


def _kind(path: Path) -> str:
    """A file's suffix, whether it is packed or not."""
    return (path.with_suffix("") if path.suffix in _PACKED else path).suffix


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a .jsonl file or rows of a .csv, also packed as .gz or .zst, but for blank ones.

    A .jsonl file is read line by line. Names of a .csv file's columns are taken in lower case; its fields are separated by comma, semicolon or tab,
    whichever its first line has most of. A line that is no object, not UTF-8 or longer than `LONGEST` comes with the reason. Raises TextError
    for a file that is damaged or in another encoding, and for a .csv larger than `LARGEST`.
    """
    pieces = _in_utf8(path)
    rows = _rows(_whole(path, pieces)) if _kind(path) == ".csv" else _objects(pieces)
    for number, row, wrong in rows:
        yield Line(path, number, row, wrong)


_Found: TypeAlias = tuple[int, Row | None, str]


def _in_utf8(path: Path) -> Iterator[str]:
    """The parts of a file, with half characters for bytes that are not UTF-8. Raises TextError for UTF-16, and for a JSON list."""
    for number, part in enumerate(parts(path, errors="surrogateescape")):
        if not number and (part.startswith(("\udcff\udcfe", "\udcfe\udcff")) or "\0" in part[:100]):
            raise TextError(
                f"{path} is not UTF-8; it seems to be UTF-16. Type: iconv -f UTF-16 -t UTF-8 {path.name} > utf8{path.suffix}"
            )
        if not number and path.suffix == ".json" and part.lstrip().startswith("["):
            raise TextError(
                f"{path} is one JSON list. Expected an object per line. Type: jq -c '.[]' {path.name} > {path.stem}.jsonl"
            )
        yield part


def _whole(path: Path, pieces: Iterator[str]) -> str:
    held, size = [], 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size > LARGEST:
            raise TextError(
                f"{path} is longer than {LARGEST:,} characters. Split it into several files, or write it as .jsonl."
            )
    return "".join(held)


def _objects(pieces: Iterator[str]) -> Iterator[_Found]:
    """Each line that is not blank: its number, its object, and why there is none."""
    number, held, size = 1, list[str](), 0
    for piece in pieces:
        size += len(piece)
        held = [*held, piece] if size <= LONGEST else []
        if piece.endswith("\n"):
            yield from _object(number, "".join(held), size)
            number, held, size = number + 1, [], 0
    yield from _object(number, "".join(held), size)


def _object(number: int, line: str, size: int) -> Iterator[_Found]:
    if size > LONGEST:
        yield number, None, _TOO_LONG
    elif _NOT_UTF8.search(line):
        yield number, None, "it is not UTF-8"
    elif line.strip():
        found = load_json(line)
        yield (number, found, "") if isinstance(found, dict) else (number, None, _no_object(found))


def _no_object(found: object) -> str:
    return "it is not JSON" if found is None else "it is not an object"


def load_json(text: str) -> Any:
    """What a JSON text holds, with question marks for half characters; None for what is not JSON, or holds an integer of over 4,300 digits."""
    try:
        found = json.loads(text)
        if "\\ud" in text.lower():  # may be half of a pair
            found = json.loads(replace_surrogates(json.dumps(found, ensure_ascii=False)))
    except (ValueError, RecursionError):
        return None
    return found


def _rows(text: str) -> Iterator[_Found]:
    """Each row of a .csv but the first: its number, its fields by column, and why there are none.

    Python's own reader refuses fields of over 131,072 characters, a limit that can be lifted for the whole process alone.
    """
    separator = max(",;\t", key=text.partition("\n")[0].count)
    records = _records(text, separator)
    names = [name.strip().lower() for name in next(records, ([], True))[0]]
    broken = bool(_NOT_UTF8.search(text))
    for number, (fields, closed) in enumerate(records, 2):
        if not closed:
            yield number, None, "a quotation mark in it is never closed"
        elif sum(map(len, fields)) > LONGEST:
            yield number, None, _TOO_LONG
        elif broken and any(map(_NOT_UTF8.search, fields)):
            yield number, None, "it is not UTF-8"
        elif fields != [""]:
            there = [*fields, *[""] * (len(names) - len(fields))]
            yield number, {name: field or None for name, field in zip(names, there, strict=False)}, ""


def _records(text: str, separator: str) -> Iterator[tuple[list[str], bool]]:
    """The fields of each record of a .csv, as Python's reader takes them, and whether every quotation mark in it is closed."""
    rest = rf"[^{separator}\r\n]*+"
    field = re.compile(rf'(?:"((?:[^"]++|"")*+)("?)({rest})|({rest}))({separator}|\r\n|\r|\n|\Z)')
    fields, at = list[str](), 0
    while at < len(text):
        found = certain(field.match(text, at))  # every alternative may be empty, and what ends it stands after it
        quoted, closing, after, plain, end = found.groups()
        fields.append(plain if quoted is None else quoted.replace('""', '"') + after)
        at = found.end()
        closed = quoted is None or bool(closing)
        if end == separator and at == len(text):
            fields.append("")
        if end != separator or at == len(text):
            yield fields, closed
            fields = []


def text_in(row: Row, *names: str) -> str | None:
    """The first of some columns that holds text, as it is; None where none does."""
    return next((row[name] for name in names if isinstance(row.get(name), str) and row[name].strip()), None)


def language_in(row: Row, wanted: Sequence[str], check: Callable[[str], object] = tag) -> str:
    """The language that a row wants an answer in: its own, or the only one that is wanted.

    Raises TextError where there is none, where it is no text, and what `check` raises for its tag.
    """
    given = next((row[name] for name in _LANGUAGE if row.get(name) is not None), None)
    if given is not None and not isinstance(given, str):
        raise TextError("its language is no text")
    if given and given.strip():
        language = tag(given)
        check(language)
        return language
    if len(wanted) != 1:
        raise TextError("it names no language for the answer")
    return wanted[0]
