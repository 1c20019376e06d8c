"""One file's characters in parts of bounded length, however long its lines and records are, and however small it was packed."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from lape.errors import TextError, foreign
from lape.extras import need
from lape.signs import replace_surrogates

PIECE = 65_536
"""Characters after which a long document is cut, at the next line end, so that it never has to be in memory whole."""
LINE = 2 * PIECE
"""Characters after which a piece is cut in the middle of a line, where no line end comes."""
RECORD = 2**24
"""Characters of the longest record of a .jsonl file: what is JSON can only be read whole."""
BLANK = 2**22
"""Characters of white space in a row after which a file is given up: 1 GB of line feeds is 1 MB of .gz."""
_PACKED = 1024
"""Bytes that are unpacked at once: zstandard makes up to 32 MB of them."""
_LOOK_BACK = 4096
"""Characters in which a place to cut is looked for."""


def parts(path: Path, *, errors: str = "strict") -> Iterator[str]:
    """The lines of a file with their line ends; a line longer than a piece comes in several parts, of which only the last has one.

    `errors`: what becomes of bytes that are not UTF-8, as for `open`. Raises TextError for a file that is not UTF-8 or damaged, and for one that holds
    nothing for very long.
    """
    with _decoding(path), _open(path, errors) as file:
        blank = 0
        while part := file.readline(PIECE):
            blank = blank + len(part) if part.isspace() else 0
            if blank > BLANK:
                raise TextError(f"{path} holds more than {BLANK:,} characters of white space in a row. Expected text.")
            yield part


def pieces(some: Iterable[str]) -> Iterator[str]:
    """Parts of lines as pieces of about 64k characters that end with a line, or within one that has no end for 128k."""
    held: list[str] = []
    size = 0
    for part in some:
        held.append(part)
        size += len(part)
        if size < PIECE or (size < LINE and not part.endswith("\n")):
            continue
        whole = "".join(held)
        at = len(whole) if part.endswith("\n") else _cut(whole)
        yield whole[:at]
        held, size = [whole[at:]] if at < len(whole) else [], len(whole) - at
    if held:
        yield "".join(held)


def _cut(text: str) -> int:
    """Where to cut within a line: before the last white space that text follows, as tokenizers do, or between two characters."""
    for at in range(len(text) - 2, max(len(text) - _LOOK_BACK, 0), -1):
        if text[at].isspace() and not text[at + 1].isspace():
            return at
    return len(text)


def lines(some: Iterable[str], *, blank: bool = False) -> Iterator[Iterator[str]]:
    """Each line without its end, as its pieces. `blank`: a line without text too, which has none."""
    every = iter(some)
    for part in every:
        while part.isspace() and not part.endswith("\n"):
            part = next(every, "")
        if part.strip():
            rest = _to_its_end(part, every)
            yield pieces(rest)
            for _ in rest:  # what was not asked for
                pass
        elif blank:
            yield iter(())


def _to_its_end(part: str, every: Iterator[str]) -> Iterator[str]:
    while part:
        yield part.rstrip("\r\n") if part.endswith("\n") else part
        part = "" if part.endswith("\n") else next(every, "")


def whole_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number, line) of each line. Raises TextError for one that is longer than a record may be, which is not read to its end."""
    number, held, size = 1, list[str](), 0
    for part in parts(path):
        held.append(part)
        size += len(part)
        if size > RECORD:
            raise TextError(
                f"{path}, line {number} is longer than {RECORD:,} characters. Expected one record per line, each a document: "
                "split it into several."
            )
        if part.endswith("\n"):
            yield number, "".join(held)
            number, held, size = number + 1, [], 0
    if held:
        yield number, "".join(held)


def parts_of(text: str) -> Iterator[str]:
    """`parts` of a text in memory. Half an emoji, as JSON can hold it, is no text: it becomes a question mark."""
    at = 0
    while at < len(text):
        stop = text.find("\n", at, at + PIECE) + 1 or at + PIECE
        part = text[at:stop]
        yield replace_surrogates(part)
        at = stop


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    with foreign(TextError, lambda told: f"{path} could not be read: {told}. It seems damaged; get it again."):
        try:
            yield
        except UnicodeDecodeError as error:
            raise TextError(
                f"{path} is not UTF-8 (byte {error.object[error.start]:#04x}: {error.reason}). "
                f"Convert it, for instance: iconv -f LATIN1 -t UTF-8 {path.name} > utf8.txt"
            ) from error


def _open(path: Path, errors: str) -> IO[str]:
    try:
        raw: Any = path.open("rb")
    except OSError as error:
        raise TextError(f"{path} could not be opened: {error.strerror}.") from error
    if path.name.endswith(".gz"):
        raw = gzip.GzipFile(fileobj=raw)
    elif path.name.endswith(".zst"):
        need("zst", str(path), "zstandard")
        raw = io.BufferedReader(_Frames(raw))
    return io.TextIOWrapper(raw, encoding="utf-8-sig", errors=errors, newline="\n")


class _Frames(io.RawIOBase):
    """The bytes of a zstandard file of one or more frames. The library's own reader takes a file that was cut off for a whole one."""

    def __init__(self, file: IO[bytes]) -> None:
        import zstandard

        self._file, self._library = file, zstandard
        self._frame: Any = None
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            block = (
                self._frame.unused_data if self._frame is not None and self._frame.eof else b""
            ) or self._file.read(_PACKED)
            if not block:
                if self._frame is not None and not self._frame.eof:
                    raise EOFError("it ends in the middle")
                return 0
            if self._frame is None or self._frame.eof:
                self._frame = self._library.ZstdDecompressor().decompressobj()
            self._ready = memoryview(self._frame.decompress(block))
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
