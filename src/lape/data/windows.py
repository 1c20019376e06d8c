"""A corpus becomes rows of tokens and rows become batches: each token in exactly one row, documents kept apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from lape.data.corpus import FOLDS, Corpus, TextOptions

_DOCUMENTS_FOR_FOLDS = 64
_SORT_WINDOW = 256


@dataclass(frozen=True)
class Segment:
    """`length` tokens of one document, from `start` on."""

    start: int
    length: int
    document: int


Row: TypeAlias = tuple[Segment, ...]
"""What runs side by side in one row."""


@dataclass(frozen=True)
class Batch:
    """Rows ready for a model."""

    input_ids: Tensor
    """(rows, tokens) int64, padded on the right."""
    position_ids: Tensor | None
    """(rows, tokens) int64, starting again at each document; None where every row holds one document."""
    source: Tensor
    """(rows, tokens) int64: the position in `Corpus.tokens`, -1 for BOS and padding."""
    fold: Tensor
    """(rows, tokens) int64: the fold that a token counts in, -1 where it doesn't count."""


def rows(corpus: Corpus, row_tokens: int, *, apart: bool, mixed: bool = False) -> list[Row]:
    """Cut documents into rows of at most `row_tokens`, BOS included: each token in exactly one row.

    `apart`: the model keeps several documents in one row apart; otherwise a row holds one document, and rows are sorted by
    length within a window, so that little is padded. `mixed`: the first rows are taken from all over the text, so that a part of them
    stands for the whole and holds every fold.
    """
    extra = int(corpus.bos is not None)
    result: list[Row] = []
    row: list[Segment] = []
    used = 0
    for document in range(corpus.documents):
        for segment in _cut(
            document, int(corpus.starts[document]), int(corpus.starts[document + 1]), row_tokens - extra
        ):
            if row and (not apart or used + segment.length + extra > row_tokens):
                result.append(tuple(row))
                row, used = [], 0
            row.append(segment)
            used += segment.length + extra
    if row:
        result.append(tuple(row))
    if mixed:
        size = -(-len(result) // FOLDS)
        result = [result[at] for k in range(size) for at in range(k, len(result), size)]
    return result if apart else _by_length(result)


def _cut(document: int, start: int, stop: int, room: int) -> Iterator[Segment]:
    for at in range(start, stop, room):
        yield Segment(at, min(room, stop - at), document)


def _by_length(result: list[Row]) -> list[Row]:
    """Rows of one document differ in length: sorted within a window, little is padded and the order stays fixed."""
    windows = (result[at : at + _SORT_WINDOW] for at in range(0, len(result), _SORT_WINDOW))
    return [row for window in windows for row in sorted(window, key=lambda row: -row[0].length)]


def at_once(options: TextOptions) -> int:
    """How many rows a batch has, but for the last one."""
    return max(1, options.batch_tokens // options.row_tokens)


def batches(corpus: Corpus, options: TextOptions, *, packs: bool, mixed: bool = False) -> list[list[Row]]:
    """All rows in batches of about `options.batch_tokens`. `mixed`: see `rows`."""
    every = rows(corpus, options.row_tokens, apart=packs and not options.one_per_row, mixed=mixed)
    size = at_once(options)
    return [every[at : at + size] for at in range(0, len(every), size)]


def batch(corpus: Corpus, some: list[Row]) -> Batch:
    """Build the tensors of a few rows."""
    extra, bos = int(corpus.bos is not None), corpus.bos or 0
    length = max(sum(segment.length + extra for segment in row) for row in some)
    shape = (len(some), length)
    ids, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    source, fold = np.full(shape, -1, np.int64), np.full(shape, -1, np.int64)
    for r, row in enumerate(some):
        at = 0
        for segment in row:
            stop = at + extra + segment.length
            if extra:
                ids[r, at] = bos
            ids[r, at + extra : stop] = corpus.tokens[segment.start : segment.start + segment.length]
            source[r, at + extra : stop] = np.arange(segment.start, segment.start + segment.length)
            fold[r, at + extra : stop] = _fold(corpus, segment.document, row)
            positions[r, at:stop] = np.arange(stop - at)
            at = stop
        positions[r, at:] = np.arange(length - at)
    fold[np.isin(ids, list(corpus.special))] = -1
    several = any(len(row) > 1 for row in some)
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(positions) if several else None,
        torch.from_numpy(source),
        torch.from_numpy(fold),
    )


def _fold(corpus: Corpus, document: int, row: Row) -> int:
    """A document lies in one fold; where there are too few documents, runs of consecutive rows do, as long as each other."""
    return document % FOLDS if corpus.documents >= _DOCUMENTS_FOR_FOLDS else row[0].start * FOLDS // len(corpus.tokens)
