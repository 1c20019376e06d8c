"""The text of single tokens, such that the pieces of a text, put together, are the text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from lape.data.corpus import Corpus

_AROUND = 8
"""Tokens on both sides that are decoded too: a character has at most four bytes, and some tokenizers strip a text's first space."""
_LOST = "�"
"""What a decoder gives for bytes that are no character."""


def window_pieces(tokenizer: Any, corpus: Corpus, document: int, start: int, length: int) -> list[str]:
    """The text of each of `length` tokens of a document, from position `start` of the corpus on: see `pieces`."""
    first, last = int(corpus.starts[document]), int(corpus.starts[document + 1])
    stop = start + length
    spans = (max(first, start - _AROUND), start), (start, stop), (stop, min(last, stop + _AROUND))
    before, tokens, after = (corpus.tokens[a:b].tolist() for a, b in spans)
    return pieces(tokenizer, before, tokens, after)


def pieces(tokenizer: Any, before: Sequence[int], tokens: Sequence[int], after: Sequence[int] = ()) -> list[str]:
    """The text of each token, by decoding longer and longer beginnings; put together they are the text.

    A character that is spread over several tokens is attached to the one that completes it, and the others are empty. `before`, `after`:
    ids of the same text on both sides, by which a character that a cut goes through is known.
    """
    ids = [*before, *tokens, *after]
    first, whole = _whole(tokenizer, ids, len(before))
    ends = [0]
    for stop in range(max(first, len(before) - 3), len(ids) - len(after) + 1):  # a cut may go through a character
        ends.append(max(ends[-1], _shared(decoded(tokenizer, ids[first:stop]), whole)))
    return [whole[a:b] for a, b in pairwise(ends[-len(tokens) - 1 :])]


def decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of ids as it is, special tokens and spaces too."""
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def _whole(tokenizer: Any, ids: Sequence[int], before: int) -> tuple[int, str]:
    """From which token on all of it is decoded, and its text.

    Where an end lies within a character, some decoders give up on all characters of bytes beside it: then a few tokens less are taken.
    """
    whole = decoded(tokenizer, ids)
    if _LOST not in whole:
        return 0, whole
    cuts = [(a, b) for a in range(min(4, before + 1)) for b in range(4)]
    tried = [(a, decoded(tokenizer, ids[a : len(ids) - b])) for a, b in sorted(cuts, key=sum)]
    return max(tried, key=lambda one: len(one[1]) - one[1].count(_LOST))


def _shared(a: str, b: str) -> int:
    """Characters that two texts have in common at their beginning."""
    if b.startswith(a):
        return len(a)
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
