"""Recorded text is recognised when it comes again, however it is spaced, cased, punctuated, joined or cut.

Of a text only letters and digits count (NFKD, case folded; accents, white space, punctuation and zero-width characters dropped). A shingle is
`SHINGLE` of them in a row, and of `SPAN` shingles in a row the one of the smallest hash is kept (winnowing; Schleimer et al. 2003): two texts
that share `SHINGLE + SPAN - 1` = 124 letters in a row share a fingerprint, wherever they lie in either, since documents are
read on as one. A Han character counts as three letters, kana as two, Hangul as the two or three that it is made of. A document of fewer has one
more fingerprint of its own, and so has a line that is too short for a shingle.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from array import array
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SHINGLE = 48
"""Letters of a shingle: about ten words, or 16 Chinese characters. Fewer than eight words come again by chance in a large corpus."""
SPAN = 77
"""Shingles of which one is kept: about one of 39, or 0.8 MB per million tokens of English."""
SHORT = 16
"""Letters of the shortest line that has a fingerprint of its own, within a longer document."""
_END = "\x1e"
"""Between documents."""
_AT_ONCE = 65_536
"""Characters that are taken at once."""
_NEITHER = re.compile(r"[^\w\n\x1e]+|_+")
_WIDE = ((0x3041, 0x30FF, 2), (0x3105, 0x312F, 2), (0x3400, 0x9FFF, 3), (0x20000, 0x3FFFF, 3))
"""Kana, Bopomofo and Han: first, last, and how many letters a character of these is as good as."""
_ODD = np.uint64(0x9E3779B97F4A7C15)

Hashes: TypeAlias = NDArray[np.uint64]


class Fingerprints:
    """Fingerprints of documents that come in pieces. Many are taken at once: each by itself would cost more than its tokens do."""

    def __init__(self) -> None:
        self._kept = array("Q")
        self._pending: list[str] = []
        self._size = 0
        self._letters = self._line = np.empty(0, np.uint64)
        """The last letters of all, and of the line, which what is yet to come goes on with."""
        self._held = 0
        """Letters of the document so far, up to those in which a fingerprint is chosen."""

    def add(self, piece: str) -> None:
        """The next piece of the document."""
        self._pending.append(piece.replace(_END, ""))
        self._size += len(piece)
        if self._size >= _AT_ONCE:
            self._take()

    def end(self) -> None:
        """The document is over."""
        self._pending.append(_END)

    def _take(self) -> None:
        new, line_ends, ends = _letters("".join(self._pending))
        self._pending, self._size = [], 0
        self._lines(np.concatenate([self._line, new]), line_ends + len(self._line))
        letters, before = np.concatenate([self._letters, new]), len(self._letters)
        shingles, room = _shingles(letters), SHINGLE + SPAN - 1
        if len(letters) >= room:
            least = _least(shingles, SPAN)
            self._keep(least[np.diff(least, prepend=~least[:1]) != 0])
        *closed, rest = pairwise([-self._held, *ends.tolist(), len(new)])
        for start, stop in closed:
            if stop - start < room:
                at = slice(before + start, before + stop), slice(before + start, before + stop - SHINGLE + 1)
                self._short(letters[at[0]], shingles[at[1]])
        self._held = min(rest[1] - rest[0], room)
        self._letters = letters[-(room - 1) :]

    def _short(self, letters: Hashes, shingles: Hashes) -> None:
        """A document that is shorter than any in which a fingerprint is chosen: others may stand around it next time."""
        if len(letters):
            self._keep(_whole(letters) if len(letters) < SHINGLE else shingles.min(keepdims=True))

    def _lines(self, letters: Hashes, ends: NDArray[np.int64]) -> None:
        """Short lines, which no shingle is as short as. A longer one that has not ended yet is held as one that is too long."""
        starts = np.concatenate([[0], ends])
        short = (np.diff(starts) >= SHORT) & (np.diff(starts) < SHINGLE)
        for at in np.flatnonzero(short):
            self._keep(_whole(letters[starts[at] : ends[at]]))
        self._line = letters[starts[-1] :][:SHINGLE]

    def tensor(self) -> Tensor:
        """(fingerprints,) int64, sorted, each once."""
        self._take()
        return _each_once(np.array(self._kept, dtype=np.uint64).view(np.int64))

    def _keep(self, hashes: Hashes) -> None:
        self._kept.frombytes(hashes.tobytes())


class LineHashes:
    """Of every line a hash of its very bytes without white space at its ends: what the fingerprints of older versions are."""

    def __init__(self) -> None:
        self._kept = array("q")
        self._line = hashlib.blake2b(digest_size=8)
        self._any, self._gap = False, ""

    def add(self, piece: str) -> None:
        """The next piece of the document: its first line may go on with the last one of the piece before."""
        *closed, rest = piece.split("\n")
        for line in closed:
            self._go_on(line)
            self.end()
        self._go_on(rest)

    def _go_on(self, part: str) -> None:
        text = part if self._any else part.lstrip()
        kept = text.rstrip()
        if kept:
            self._line.update((self._gap + kept).encode("utf-8", "surrogatepass"))
            self._any, self._gap = True, text[len(kept) :]
        else:
            self._gap += text

    def end(self) -> None:
        """The line is over."""
        if self._any:
            self._kept.append(int.from_bytes(self._line.digest(), "little", signed=True))
            self._line, self._any = hashlib.blake2b(digest_size=8), False
        self._gap = ""

    def tensor(self) -> Tensor:
        """(lines,) int64, sorted, each once."""
        return _each_once(np.array(self._kept, dtype=np.int64))


def _each_once(hashes: NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(np.unique(hashes))


def _letters(text: str) -> tuple[Hashes, NDArray[np.int64], NDArray[np.int64]]:
    """The letters and digits of a text as numbers, and after how many of them its lines end, and its documents. A wide character is
    several in a row, each a number of its own.
    """
    plain = _NEITHER.sub("", unicodedata.normalize("NFKD", text).casefold())
    codes = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    over = codes == ord(_END)
    line = over | (codes == ord("\n"))
    times = (~line).astype(np.int64)
    for first, last, weight in _WIDE:
        times[(codes >= first) & (codes <= last)] = weight
    so_far = np.cumsum(times)
    within = np.arange(times.sum()) - np.repeat(so_far - times, times)
    return np.repeat(codes, times) + (within.astype(np.uint64) << np.uint64(32)), so_far[line], so_far[over]


def _shingles(letters: Hashes) -> Hashes:
    """The hash of each `SHINGLE` = 32 + 16 letters in a row, from those of 1, 2, 4, 8, 16 and 32."""
    hashes = _mixed(letters + np.uint64(1))
    for size in (1, 2, 4, 8):
        hashes = _joined(hashes, hashes, size)
    return _joined(_joined(hashes, hashes, 16), hashes, 32)


def _joined(first: Hashes, second: Hashes, apart: int) -> Hashes:
    """Hashes of two stretches, the second of which begins `apart` letters after the first."""
    count = max(len(second) - apart, 0)
    return _mixed(first[:count] * _ODD + second[apart:])


def _whole(letters: Hashes) -> Hashes:
    """The hash of fewer letters than a shingle has."""
    value = hashlib.blake2b(letters.tobytes(), digest_size=8).digest()
    return np.frombuffer(value, np.uint64)


def _mixed(values: Hashes) -> Hashes:
    """Spread over all 64 bits (the end of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _least(values: Hashes, span: int) -> Hashes:
    """The smallest of each `span` in a row."""
    size = 1
    while 2 * size <= span:
        values = np.minimum(values[:-size], values[size:])
        size *= 2
    rest = span - size
    return np.minimum(values[: len(values) - rest], values[rest:])


def share_known(text: tuple[Tensor, Tensor], recorded: Tensor) -> float:
    """Which share of a text was recorded: of its fingerprints, or of its lines where an older version recorded it.

    `text`: the results of `Fingerprints` and `LineHashes`; both kinds are hashes of 64 bits, so that one set of recorded ones can hold either.
    """
    return max(float(torch.isin(one, recorded).double().mean()) if len(one) else 0.0 for one in text)
