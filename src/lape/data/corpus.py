"""One thought, a language's text as tokens: documents one after the other, only text counted, lines numbered where they are wanted."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lape.data.fingerprints import Fingerprints, LineHashes, share_known
from lape.data.languages import tag
from lape.data.text_language import Sample, warn_of_other_language
from lape.data.texts import Documents, Source, Texts, documents, warn_of_lines
from lape.errors import OptionError, TextError, foreign
from lape.options import Options, Positive, Tokens, at_least
from lape.progress import Progress, shown
from lape.store.files import writing

Ints: TypeAlias = NDArray[np.int64]
BosRule: TypeAlias = Literal["auto", "always", "never"]
FOLDS = 8
"""Folds in which counts are kept, so that a set's stability can be measured by halving them."""
_AT_ONCE = 2**19
"""Characters that are tokenised at once: tokenizers need 100 bytes and more for each."""


@dataclass(frozen=True)
class TextOptions(Options):
    """How texts become rows of tokens."""

    tokens: Tokens | None = None
    """At most this many tokens of each language. Default: all."""
    document: Literal["file", "line"] = "file"
    """What a document is in a .txt file: the whole file, or each line."""
    column: str = "text"
    """The column of a .jsonl, .parquet or Hub data set that holds the text."""
    bos: Literal["auto", "always", "never"] = "auto"
    """Begin rows with BOS: where the tokenizer adds one, always, or never (the published rule). BOS is never counted."""
    row_tokens: Annotated[int, at_least(8)] = 512
    """Tokens in a row, BOS included; a longer document is cut."""
    batch_tokens: Positive = 2048
    """Tokens that run through the model at once."""
    one_per_row: bool = False
    """One document per row, even where the model could keep several apart."""


@dataclass(frozen=True)
class Lines:
    """Which line each token came from. Lines are numbered over the whole corpus, empty ones left out."""

    of_token: NDArray[np.int32]
    document: Ints
    """(lines,) the document of each line."""
    characters: Ints
    """(lines,) characters of each line, white space at its ends not counted."""
    place: Ints
    """(lines, 2) the numbers of its document in the source and of the line in that document, empty ones counted: lines of
    parallel text with the same place are translations."""


@dataclass(frozen=True)
class Corpus:
    """One language's tokens, on disk, without special tokens added."""

    language: str
    tokens: NDArray[np.int32]
    """(tokens,) token ids of all documents, one after the other."""
    starts: Ints
    """(documents + 1,) where each document starts; the last entry is the number of tokens."""
    hash: str
    """SHA-256 over the documents read."""
    fingerprints: Tensor
    """(fingerprints,) int64, sorted, by which it is recognised when it comes again: see `lape.data.fingerprints`."""
    special: frozenset[int]
    """Ids that never count, even where a text spells them out."""
    bos: int | None
    """The id that begins a row, or None."""
    lines: Lines | None = None
    line_hashes: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    """(lines,) int64, sorted: by which it is recognised in statistics of older versions, whose fingerprints were these."""

    @property
    def documents(self) -> int:
        """How many documents there are."""
        return len(self.starts) - 1

    def known(self, recorded: Tensor) -> float:
        """Which share of it, 0 to 1, is among the fingerprints of recorded text."""
        return share_known((self.fingerprints, self.line_hashes), recorded)

    def describe(self) -> dict[str, Any]:
        """What a manifest says of it."""
        return {"hash": self.hash, "documents": self.documents, "tokens": len(self.tokens)}


def bos_id(tokenizer: Any, rule: str) -> int | None:
    """The id that begins a row: where the tokenizer adds one (auto), always, or never."""
    bos = tokenizer.bos_token_id
    if rule == "never":
        return None
    if rule == "always":
        if bos is None:
            raise OptionError("bos is 'always', but this tokenizer has no BOS token. Use bos='auto'.")
        return int(bos)
    with foreign(TextError, lambda said: f"The model's tokenizer failed: {said}"):
        return int(bos) if bos is not None and tokenizer("a")["input_ids"][:1] == [bos] else None


def prepare_all(
    texts: Texts,
    tokenizer: Any,
    options: TextOptions,
    *,
    lines: bool = False,
    folder: Path | None = None,
    progress: Progress = shown,
) -> dict[str, Corpus]:
    """`prepare` each language's text; warn once of .txt files of independent lines that are read as one document each."""
    if options.document == "file":
        warn_of_lines(texts)
    return {
        tag(language): prepare(tag(language), source, tokenizer, options, lines=lines, folder=folder, progress=progress)
        for language, source in texts.items()
    }


def prepare(
    language: str,
    source: Source,
    tokenizer: Any,
    options: TextOptions,
    *,
    lines: bool = False,
    folder: Path | None = None,
    progress: Progress = shown,
) -> Corpus:
    """Read and tokenise a source up to `options.tokens`. Tokens go to a file (in `folder`, or a temporary one), not to memory.

    `lines=True` also notes each token's line. Raises TextError for a source that is missing, damaged or without text; warns of a text that seems to be
    in another language.
    """
    builder, sample = _Builder(tokenizer, options.tokens, lines), Sample()
    read = documents(source, rule=options.document, column=options.column, blank=True)
    with (
        writing(folder or Path(tempfile.gettempdir())),
        tempfile.TemporaryFile(dir=folder) as file,
        tempfile.TemporaryFile(dir=folder) as line_file,
    ):
        for ids, numbers in builder.run(sample.watch(read)):
            file.write(ids.tobytes())
            if lines:
                line_file.write(numbers.tobytes())
            progress(f"reading {language}", builder.count, options.tokens)
        builder.end_document()
        file.flush()
        line_file.flush()
        if builder.count == 0:
            raise TextError(
                f"The text for {language} is empty: {_name(source)} holds no token. Give it some text, or leave {language} out."
            )
        warn_of_other_language(language, sample, _name(source))
        tokens = np.memmap(file, dtype=np.int32, mode="r")
        table = None
        if lines:
            rows = np.array(builder.rows, dtype=np.int64)
            table = Lines(np.memmap(line_file, dtype=np.int32, mode="r"), rows[:, 0], rows[:, 1], rows[:, 2:])
    return Corpus(
        language=language,
        tokens=tokens,
        starts=np.array([*builder.starts, builder.count]),
        hash=builder.digest.hexdigest(),
        fingerprints=builder.fingerprints.tensor(),
        line_hashes=builder.line_hashes.tensor(),
        special=frozenset(tokenizer.all_special_ids),
        bos=bos_id(tokenizer, options.bos),
        lines=table,
    )


def _name(source: Source) -> str:
    if isinstance(source, Documents):
        return "the documents given"
    return str(source) if isinstance(source, (str, Path)) else ", ".join(map(str, source))


class _Builder:
    """Tokenises documents piece by piece and keeps what is small: starts, hashes, line table."""

    def __init__(self, tokenizer: Any, cap: int | None, lines: bool) -> None:
        self.tokenizer, self.cap, self.lines = tokenizer, cap, lines
        self.count = 0
        self.starts: list[int] = []
        self.digest = hashlib.sha256()
        self.fingerprints, self.line_hashes = Fingerprints(), LineHashes()
        self.rows: list[list[int]] = []
        """Of each line: its document, its characters, and its place, which is two numbers."""
        self._document = -1
        self._above = (-1, 0)
        """The document of the last piece, and how many of its lines ended before the next piece."""
        self._gap = 0
        """Characters of white space at the end of the last piece's last line, which may go on."""

    def run(self, source: Iterator[Iterator[str]]) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
        """The token ids of each piece, and of each token its line where lines are wanted."""
        stream = ((number, piece) for number, pieces in enumerate(source) for piece in pieces)
        while (self.cap is None or self.count < self.cap) and (group := self._group(stream)):
            with foreign(TextError, lambda said: f"The model's tokenizer failed on this text: {said}"):
                encoded = self._encode([piece for _, piece in group])
            for (document, piece), (ids, numbers) in zip(group, encoded, strict=True):
                room = len(ids) if self.cap is None else self.cap - self.count
                if room <= 0:
                    return
                above = self._above[1] if self._above[0] == document else 0
                self._above = (document, above)
                if len(ids):
                    yield self._take(document, piece, ids, numbers, room)
                if self.lines:
                    self._above = (document, above + piece.count("\n"))

    def _group(self, stream: Iterator[tuple[int, str]]) -> list[tuple[int, str]]:
        """The pieces that are tokenised at once: bounded, and not many more than are wanted."""
        room = _AT_ONCE if self.cap is None else min(_AT_ONCE, 16 * (self.cap - self.count))
        group: list[tuple[int, str]] = []
        for one in islice(stream, 32):
            group.append(one)
            room -= len(one[1])
            if room <= 0:
                break
        return group

    def _encode(self, pieces: list[str]) -> list[tuple[NDArray[np.int32], NDArray[np.int32]]]:
        """Token ids and the line within the piece of each token."""
        if not self.lines:
            out = self.tokenizer(pieces, add_special_tokens=False, return_attention_mask=False, verbose=False)
            return [(np.array(ids, dtype=np.int32), np.empty(0, np.int32)) for ids in out["input_ids"]]
        if not getattr(self.tokenizer, "is_fast", False):
            return [self._encode_by_line(piece) for piece in pieces]
        out = self.tokenizer(
            pieces, add_special_tokens=False, return_attention_mask=False, return_offsets_mapping=True, verbose=False
        )
        return [
            (np.array(ids, dtype=np.int32), _line_numbers(piece, offsets))
            for piece, ids, offsets in zip(pieces, out["input_ids"], out["offset_mapping"], strict=True)
        ]

    def _encode_by_line(self, piece: str) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """A tokenizer that gives no offsets reads each line by itself."""
        ids = [self.tokenizer(line, add_special_tokens=False)["input_ids"] for line in _lines(piece)]
        numbers = np.repeat(np.arange(len(ids), dtype=np.int32), [len(line) for line in ids])
        return np.array([token for line in ids for token in line], dtype=np.int32), numbers

    def _take(
        self, document: int, piece: str, ids: NDArray[np.int32], numbers: NDArray[np.int32], room: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        if document != self._document:
            self.end_document()
            self._document = document
            self.starts.append(self.count)
            self.digest.update(b"\x00document\x00")
        data = piece.encode("utf-8", "surrogatepass")
        self.digest.update(data)
        self.fingerprints.add(piece)
        self.line_hashes.add(piece)
        kept = ids[:room]
        self.count += len(kept)
        return kept, self._number_lines(piece, numbers, len(kept)) if self.lines else numbers

    def end_document(self) -> None:
        """The last document has no more pieces."""
        self.fingerprints.end()
        self.line_hashes.end()
        self._gap = 0

    def _number_lines(self, piece: str, numbers: NDArray[np.int32], kept: int) -> NDArray[np.int32]:
        """Make the line numbers of the first `kept` tokens global. An empty line's tokens go to the line before it in the
        document, or to the one after it; a document without any line gets one of no characters.
        """
        texts = _lines(piece)
        document = len(self.starts) - 1
        known = bool(self.rows) and self.rows[-1][0] == document
        first = len(self.rows) - known
        source, above = self._above
        index = np.zeros(int(numbers[kept - 1]) + 1, dtype=np.int32)
        added = 0
        for k in range(len(index)):
            added = self._grow(document, texts[k], [source, above + k])
            index[k] = max(len(self.rows) - 1, first)
        if first == len(self.rows):
            self.rows.append([document, 0, source, above])
        self._gap = _gap(texts[-1], self._gap if len(texts) == 1 else 0)
        self._shorten_cut_line(numbers, kept, added)
        return index[numbers[:kept]]

    def _grow(self, document: int, text: str, place: list[int]) -> int:
        """Add the characters of a line, or of what goes on with the last one. Gives how many; an empty line has no row."""
        if text.isspace():
            return 0
        if not self.rows or self.rows[-1][0] != document or self.rows[-1][2:] != place:
            self.rows.append([document, 0, *place])
        row = self.rows[-1]
        added = self._gap + len(text.rstrip()) if row[1] else len(text.strip())
        row[1] += added
        return added

    def _shorten_cut_line(self, numbers: NDArray[np.int32], kept: int, added: int) -> None:
        """Where the cap cuts a line, count the characters that were added to it by the share of its tokens that is kept."""
        last = numbers[kept - 1]
        whole, part = int((numbers == last).sum()), int((numbers[:kept] == last).sum())
        if part < whole and added:
            self.rows[-1][1] -= added - max(1, round(added * part / whole))


def _gap(part: str, before: int) -> int:
    """Characters of white space at the end of a line that has not ended yet: `before` came at the end of its parts up to here."""
    if part.endswith("\n"):
        return 0
    blank = len(part) - len(part.rstrip())
    return blank + before if blank == len(part) else blank


def _line_numbers(piece: str, offsets: list[tuple[int, int]]) -> NDArray[np.int32]:
    """The line of each token: that of its first character, so that a line end belongs to the line it closes."""
    ends = np.cumsum([len(line) for line in _lines(piece)])
    starts = np.array([start for start, _ in offsets], dtype=np.int64)
    numbers = np.searchsorted(ends, starts, side="right")
    return np.minimum(numbers, max(len(ends) - 1, 0)).astype(np.int32)


def _lines(piece: str) -> list[str]:
    """Lines with their line ends. Only a line feed ends one, as in the files themselves."""
    return re.findall(r"[^\n]*\n|[^\n]+", piece)
