"""The texts of a parquet file, one at a time. What a column would take in memory is read from the file's footer before it is unpacked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from lape.data.reading import RECORD
from lape.errors import TextError, foreign

LONGEST = 3 * RECORD
"""Bytes of the longest text, as many as `RECORD` Chinese characters have."""
_RATIO, _CHUNK = 100, 2**28
"""A chunk of a column that unpacks to more bytes than `_CHUNK` and to so many times its size holds no text that anybody wrote."""
_FOOTER = 2**24
"""Bytes of the longest footer that is read."""

Struct: TypeAlias = dict[int, Any]
"""A struct of Thrift: number of the field -> value."""


def records(path: Path, column: str) -> Iterator[Any]:
    """Each record as {column: value}. Raises TextError for what is damaged, lacks the column, or holds a text longer than `LONGEST`."""
    import polars as pl

    with foreign(TextError, lambda told: f"{path} could not be read as parquet: {told}"):
        frame = pl.scan_parquet(path)
        names = frame.collect_schema().names()
        if column not in names:
            raise TextError(
                f"{path} has no column {column!r}, but {', '.join(names)}. Name it: column={names[0]!r}."
                if names
                else f"{path} has no columns. Expected one that holds text, {column!r}."
            )
        for chunk in _chunks(path, column):
            _check(path, chunk)
        for batch in frame.select(column).collect_batches(chunk_size=4096):
            values = batch[column]
            if values.dtype == pl.String and bool((values.str.len_bytes() > LONGEST).any()):
                raise _too_long(path)
            for value in values:  # one at a time: each becomes a string of its own
                yield {column: value}


def _too_long(path: Path) -> TextError:
    return TextError(
        f"{path} has a record of over {LONGEST:,} bytes. Expected each to be a document: split it into several."
    )


def _check(path: Path, chunk: Struct) -> None:
    """Refuse a chunk (`ColumnMetaData`: 5 values, 6 bytes unpacked, 7 bytes packed) that cannot be documents of usual length."""
    values, size, packed = (max(int(chunk.get(field, 0)), 1) for field in (5, 6, 7))
    if size / values > LONGEST:
        raise _too_long(path)
    if size > _CHUNK and size / packed > _RATIO:
        raise TextError(
            f"{path} unpacks from {packed:,} bytes to {size:,}. Expected text, which is compressed to a tenth of its size at best."
        )


def _chunks(path: Path, column: str) -> Iterator[Struct]:
    """What a file's footer says of each chunk of a column."""
    with path.open("rb") as file:
        file.seek(-8, 2)
        length = int.from_bytes(file.read(4), "little")
        if length > _FOOTER:
            raise TextError(f"{path} has a footer of {length:,} bytes. Expected {_FOOTER:,} at most.")
        file.seek(-8 - length, 2)
        footer = _Thrift(file.read(length)).struct()
    for group in footer.get(4, []):
        for one in group.get(1, []):
            about = one.get(3, {})
            if about.get(3, [b""])[0] == column.encode():
                yield about


class _Thrift:
    """Thrift's compact protocol, as far as parquet's footer needs it."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def struct(self) -> Struct:
        """Up to its end."""
        found: Struct = {}
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._whole()
            found[field] = self._value(head & 15)
        return found

    def _value(self, kind: int) -> Any:
        if kind in (1, 2):  # true and false, which a field's head says
            return kind == 1
        if kind in (4, 5, 6):
            return self._whole()
        if kind == 3:
            return self._byte()
        if kind in (7, 8):
            return self._bytes(8 if kind == 7 else self._number())
        if kind in (9, 10):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._number()
            return [self._byte() if head & 15 in (1, 2) else self._value(head & 15) for _ in range(count)]
        if kind == 12:
            return self.struct()
        raise ValueError(f"its footer holds a value of kind {kind}")

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, count: int) -> bytes:
        self._at += count
        return self._data[self._at - count : self._at]

    def _number(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value, shift = value | (byte & 127) << shift, shift + 7
            if shift > 63:
                raise ValueError("its footer holds a number of over 64 bits")
        return value | byte << shift

    def _whole(self) -> int:
        """A number of either sign."""
        value = self._number()
        return value >> 1 ^ -(value & 1)
