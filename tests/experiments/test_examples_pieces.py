"""The text of single tokens, against the bytes that each token stands for."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from lape.data.corpus import Corpus
from lape.experiments.examples.pieces import pieces, window_pieces
from support.brute import tokenizer_of

WRITING = "aé ñ\n猫坐たべ한ملםहिก😀🏴‍☠️👨‍👩‍👧ꙮ𐍈"
TEXT = st.text(st.one_of(st.sampled_from(WRITING), st.characters(exclude_categories=["Cs"])), min_size=1, max_size=40)


@cache
def fallback_tokenizer():
    """As Llama's: spaces are ▁, one is put before the text, and what is not in the vocabulary becomes its bytes."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{k:02X}>" for k in range(256)), "▁", *"abcdé猫", "▁a", "ab"]
    model = models.BPE(
        {w: k for k, w in enumerate(words)},
        [("▁", "a"), ("a", "b")],
        byte_fallback=True,
        unk_token="<unk>",
        fuse_unk=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


TOKENIZERS = {"bytes": tokenizer_of, "fallback": fallback_tokenizer}


def bytes_of(kind, token):
    if kind == "fallback":
        return bytes([int(token[3:5], 16)]) if token.startswith("<0x") else token.replace("▁", " ").encode()
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [k for k in range(256) if k not in printable]
    table = {chr(k): k for k in printable} | {chr(256 + n): k for n, k in enumerate(others)}
    return bytes(table[character] for character in token)


def by_bytes(kind, ids):
    """Each token's piece: the characters that are whole with its bytes and were not without them."""
    read, result = b"", []
    for token in TOKENIZERS[kind]().convert_ids_to_tokens(ids):
        before = read.decode("utf-8", "ignore")
        read += bytes_of(kind, token)
        result.append(read.decode("utf-8", "ignore")[len(before) :])
    if kind == "fallback":  # the space that was put before the text
        first = next(k for k, piece in enumerate(result) if piece)
        result[first] = result[first].removeprefix(" ")
    return result


def in_windows(kind, text, length):
    tokenizer = TOKENIZERS[kind]()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    tokens, starts = np.array([3, *ids, 4], np.int32), np.array([0, 1, 1 + len(ids), 2 + len(ids)])
    corpus = Corpus("fr", tokens, starts, "", torch.empty(0, dtype=torch.int64), frozenset(), None)
    found = []
    for at in range(0, len(ids), length):
        size = min(length, len(ids) - at)
        part = window_pieces(tokenizer, corpus, 1, 1 + at, size)
        assert len(part) == size
        found += part
    return ids, found


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=80, deadline=None)
@given(TEXT, st.integers(1, 12))
def test_pieces_of_all_windows_are_the_text(kind, text, length):
    ids, found = in_windows(kind, text, length)
    assert "".join(found) == text
    if "�" not in text:
        assert found == by_bytes(kind, ids)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_character_belongs_to_the_token_that_completes_it(kind):
    tokenizer = TOKENIZERS[kind]()
    ids = tokenizer("a😀b", add_special_tokens=False)["input_ids"]
    assert pieces(tokenizer, [], ids) == ["a", "", "", "", "😀", "b"]
    assert pieces(tokenizer, ids[:3], ids[3:5], ids[5:]) == ["", "😀"]
    assert pieces(tokenizer, [], ids[:3], ids[3:]) == ["a", "", ""]


def test_special_tokens_that_a_text_spells_out_are_shown():
    tokenizer = tokenizer_of()
    ids = tokenizer("the cat</s> sat", add_special_tokens=False)["input_ids"]
    assert 2 in ids
    assert "".join(pieces(tokenizer, [], ids)) == "the cat</s> sat"
