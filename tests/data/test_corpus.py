"""Packed rows of tokens: each text token exactly once, only text counted, folds, lines, caps, hashes."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.data.corpus import FOLDS, Corpus, TextOptions, bos_id, prepare
from lape.data.reading import PIECE
from lape.data.texts import Documents
from lape.data.windows import batch, batches, rows
from lape.errors import LapeError, OptionError, TextError
from support.made import made_corpus
from support.tiny import tiny_tokenizer

LAW = settings(deadline=None, max_examples=60)
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=12)
ROW = st.integers(8, 32)
BOS = st.sampled_from([None, 1])
TOKENIZER = tiny_tokenizer()


def corpus_of(texts, **options) -> Corpus:
    return prepare("fr", Documents(texts), TOKENIZER, TextOptions(**options))


def whole(corpus: Corpus, row_tokens: int, apart: bool):
    """All rows in one batch."""
    every = rows(corpus, row_tokens, apart=apart)
    return batch(corpus, every)


def decoded(corpus: Corpus, document: int) -> str:
    return TOKENIZER.decode(corpus.tokens[corpus.starts[document] : corpus.starts[document + 1]])


# Packing


@LAW
@given(LENGTHS, ROW, BOS, st.booleans())
def test_every_token_is_in_exactly_one_row(lengths, row_tokens, bos, apart):
    source = whole(made_corpus(lengths, bos), row_tokens, apart).source
    assert sorted(source[source >= 0].tolist()) == list(range(sum(lengths)))


@LAW
@given(LENGTHS, ROW, BOS, st.booleans())
def test_no_row_exceeds_row_tokens_bos_included(lengths, row_tokens, bos, apart):
    every = rows(made_corpus(lengths, bos), row_tokens, apart=apart)
    extra = bos is not None
    assert max(sum(segment.length + extra for segment in row) for row in every) <= row_tokens
    assert whole(made_corpus(lengths, bos), row_tokens, apart).input_ids.shape[1] <= row_tokens


@LAW
@given(LENGTHS, ROW, BOS, st.booleans())
def test_a_segment_stays_within_its_document(lengths, row_tokens, bos, apart):
    corpus = made_corpus(lengths, bos)
    for segment in (segment for row in rows(corpus, row_tokens, apart=apart) for segment in row):
        assert segment.length > 0
        assert corpus.starts[segment.document] <= segment.start
        assert segment.start + segment.length <= corpus.starts[segment.document + 1]


@LAW
@given(LENGTHS, ROW, BOS)
def test_a_row_holds_one_document_where_they_cannot_be_kept_apart(lengths, row_tokens, bos):
    assert all(len(row) == 1 for row in rows(made_corpus(lengths, bos), row_tokens, apart=False))


@LAW
@given(LENGTHS, ROW, BOS)
def test_packed_rows_keep_the_order_of_the_text(lengths, row_tokens, bos):
    packed = rows(made_corpus(lengths, bos), row_tokens, apart=True)
    starts = [segment.start for row in packed for segment in row]
    assert starts == sorted(starts)


@LAW
@given(LENGTHS, ROW, BOS, st.booleans())
def test_a_batch_holds_bos_text_and_padding_in_that_order(lengths, row_tokens, bos, apart):
    corpus = made_corpus(lengths, bos)
    every = rows(corpus, row_tokens, apart=apart)
    made = batch(corpus, every)
    for row, ids, source in zip(every, made.input_ids.tolist(), made.source.tolist(), strict=True):
        expected: list[tuple[int, int]] = []
        for segment in row:
            expected += [] if bos is None else [(bos, -1)]
            expected += [(3 + j, j) for j in range(segment.start, segment.start + segment.length)]
        assert list(zip(ids, source, strict=True))[: len(expected)] == expected
        assert set(source[len(expected) :]) <= {-1}


@LAW
@given(LENGTHS, ROW, BOS)
def test_positions_start_again_at_each_document(lengths, row_tokens, bos):
    corpus = made_corpus(lengths, bos)
    every = rows(corpus, row_tokens, apart=True)
    made = batch(corpus, every)
    if made.position_ids is None:
        assert all(len(row) == 1 for row in every)
        return
    for row, positions in zip(every, made.position_ids.tolist(), strict=True):
        expected = [k for segment in row for k in range(segment.length + (bos is not None))]
        assert positions[: len(expected)] == expected


@LAW
@given(LENGTHS, ROW, st.integers(1, 100), st.booleans())
def test_batches_hold_all_rows_in_order(lengths, row_tokens, batch_tokens, packs):
    corpus = made_corpus(lengths, 1)
    options = TextOptions(row_tokens=row_tokens, batch_tokens=batch_tokens)
    made = batches(corpus, options, packs=packs)
    every = rows(corpus, row_tokens, apart=packs)
    assert [row for some in made for row in some] == every
    assert all(len(some) == 1 or len(some) * row_tokens <= batch_tokens for some in made)


def test_one_per_row_holds_even_where_documents_could_share():
    made = batches(made_corpus([3, 3, 3], 1), TextOptions(row_tokens=32, one_per_row=True), packs=True)
    assert all(len(row) == 1 for some in made for row in some)


# What counts


@LAW
@given(LENGTHS, ROW, BOS, st.booleans())
def test_text_is_counted_and_neither_bos_nor_padding(lengths, row_tokens, bos, apart):
    made = whole(made_corpus(lengths, bos), row_tokens, apart)
    assert ((made.fold >= 0) == (made.source >= 0)).all()


def test_a_text_token_with_the_id_of_padding_is_still_not_padding():
    corpus = made_corpus([5, 9])
    corpus.tokens[:] = 0
    assert int((whole(corpus, 16, True).fold >= 0).sum()) == 14


def test_special_tokens_spelled_out_in_a_text_are_not_counted():
    corpus = corpus_of(["the cat</s><s> sat <pad>on</s>"], bos="always")
    made = whole(corpus, 64, True)
    counted = made.input_ids[made.fold >= 0].tolist()
    assert not set(counted) & set(TOKENIZER.all_special_ids)
    assert TOKENIZER.decode(counted) == "the cat sat on"
    assert len(corpus.tokens) == len(counted) + 4


@pytest.mark.parametrize(
    ("adds", "rule", "expected"),
    [
        (True, "auto", 1),
        (False, "auto", None),
        (True, "always", 1),
        (False, "always", 1),
        (True, "never", None),
        (False, "never", None),
    ],
)
def test_bos_auto_asks_the_tokenizer_always_and_never_do_not(adds, rule, expected):
    assert bos_id(tiny_tokenizer(bos=adds), rule) == expected


def test_bos_always_without_a_bos_token_is_refused():
    tokenizer = tiny_tokenizer(bos=False)
    tokenizer.bos_token = None
    assert bos_id(tokenizer, "auto") is None
    with pytest.raises(OptionError, match="bos='auto'"):
        bos_id(tokenizer, "always")


def test_the_tokens_of_a_text_hold_no_bos_whatever_the_rule():
    found = [corpus_of(["the cat sat"], bos=rule).tokens.tolist() for rule in ("auto", "always", "never")]
    assert found[0] == found[1] == found[2] == TOKENIZER("the cat sat", add_special_tokens=False)["input_ids"]


# Documents, caps, hashes

TEXTS = ["le chat dort\nsur le lit", "", "東京", "the dog ate\n"]


def test_documents_come_back_and_empty_ones_are_left_out():
    corpus = corpus_of(TEXTS)
    assert [decoded(corpus, k) for k in range(corpus.documents)] == [text for text in TEXTS if text]


@pytest.mark.parametrize("cap", [1, 5, 6, 14, 15, 10_000])
def test_the_token_cap_is_exact(cap):
    everything = corpus_of(TEXTS).tokens
    corpus = corpus_of(TEXTS, tokens=cap)
    assert corpus.tokens.tolist() == everything[:cap].tolist()
    assert corpus.starts[-1] == min(cap, len(everything))


@LAW
@given(st.lists(st.text("ab \n", max_size=40), max_size=80), st.integers(1, 200))
def test_the_token_cap_is_exact_for_any_documents(texts, cap):
    total = sum(len(TOKENIZER(text, add_special_tokens=False)["input_ids"]) for text in texts)
    if total:
        corpus = corpus_of(texts, tokens=cap)
        assert len(corpus.tokens) == min(cap, total)
        assert (np.diff(corpus.starts) > 0).all()


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_a_text_without_a_token_is_refused_naming_the_language(texts):
    with pytest.raises(TextError, match=r"fr.*empty"):
        corpus_of(texts)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_an_empty_file_is_refused_naming_it(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(TextError, match=name):
        prepare("fr", tmp_path / name, TOKENIZER, TextOptions())


def test_a_lone_surrogate_is_refused_or_replaced_never_a_stack_trace(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "half an emoji: \\ud83d, cut"}\n')
    with suppress(LapeError):
        corpus = prepare("fr", tmp_path / "a.jsonl", TOKENIZER, TextOptions())
        assert decoded(corpus, 0).startswith("half an emoji")


def test_the_hash_is_that_of_the_documents_however_they_are_stored(tmp_path):
    texts = ["le chat\ndort", "the dog\n"]
    (tmp_path / "folder").mkdir()
    for k, text in enumerate(texts):
        (tmp_path / "folder" / f"{k}.txt").write_text(text)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    sources: list[Any] = [Documents(texts), tmp_path / "folder", tmp_path / "a.jsonl"]
    assert len({prepare("fr", source, TOKENIZER, TextOptions()).hash for source in sources}) == 1


@pytest.mark.parametrize("other", [["ab", "c"], ["a", "cb"], ["bc", "a"], ["abc"], ["a", "bc", "a"], ["a", "bc "]])
def test_the_hash_tells_other_documents_apart(other):
    assert corpus_of(other).hash != corpus_of(["a", "bc"]).hash


def test_equal_texts_have_equal_fingerprints_wherever_they_lie():
    one, two = corpus_of(["le chat", "the dog"]), corpus_of(["new", "the dog", "le chat"])
    assert set(one.fingerprints.tolist()) < set(two.fingerprints.tolist())
    assert len(two.fingerprints.unique()) == 3


def test_a_manifest_entry_says_hash_documents_and_tokens():
    corpus = corpus_of(TEXTS)
    assert corpus.describe() == {"hash": corpus.hash, "documents": 3, "tokens": len(corpus.tokens)}


def test_tokens_on_disk_leave_nothing_behind(tmp_path):
    corpus = prepare("fr", Documents(TEXTS), TOKENIZER, TextOptions(), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert len(corpus.tokens) > 0


# Folds


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("documents", [64, 65, 100])
def test_many_documents_lie_in_the_fold_of_their_number_mod_8(documents, apart):
    corpus = made_corpus([3 + k % 20 for k in range(documents)], 1)
    made = whole(corpus, 10, apart)
    owner = np.searchsorted(corpus.starts, made.source[made.source >= 0].numpy(), side="right") - 1
    assert (made.fold[made.source >= 0].numpy() == owner % 8).all()


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("documents", [1, 7, 63])
def test_few_documents_are_cut_into_8_runs_of_consecutive_rows(documents, apart):
    corpus = made_corpus([630 // documents] * documents, 1)
    every = rows(corpus, 16, apart=apart)
    made = batch(corpus, every)
    folds = [set(fold[source >= 0].tolist()) for fold, source in zip(made.fold, made.source, strict=True)]
    assert all(len(fold) == 1 for fold in folds)
    by_row = [fold.pop() for _, fold in sorted(zip((row[0].start for row in every), folds, strict=True))]
    assert by_row == sorted(by_row)
    sizes = [int((made.fold == fold).sum()) for fold in range(FOLDS)]
    assert max(sizes) - min(sizes) <= 2 * 15


@LAW
@given(LENGTHS, ROW)
def test_folds_do_not_depend_on_how_rows_are_batched(lengths, row_tokens):
    corpus = made_corpus(lengths, 1)
    every = rows(corpus, row_tokens, apart=True)
    together = whole(corpus, row_tokens, True)
    expected = dict(zip(together.source.flatten().tolist(), together.fold.flatten().tolist(), strict=True))
    for at in range(len(every)):
        alone = batch(corpus, every[at : at + 1])
        found = dict(zip(alone.source.flatten().tolist(), alone.fold.flatten().tolist(), strict=True))
        assert all(expected[position] == fold for position, fold in found.items())


# Lines


def lines_by_hand(texts: list[str], corpus: Corpus) -> tuple[list[int], list[int], list[int]]:
    """Line of each token, document and characters of each line, from the byte at which each token begins.

    A token of a byte-level tokenizer spells one character per byte of text.
    """
    of_token: list[int] = []
    of_line: list[int] = []
    characters: list[int] = []
    for document, text in enumerate(text for text in texts if text):
        number: dict[int, int] = {}
        for raw, line in enumerate(text.split("\n")):
            if line.strip():
                number[raw] = len(of_line)
                of_line.append(document)
                characters.append(len(line.strip()))
        byte = 0
        ids = corpus.tokens[corpus.starts[document] : corpus.starts[document + 1]].tolist()
        for token in TOKENIZER.convert_ids_to_tokens(ids):
            raw = text.encode()[:byte].count(b"\n")
            before = [line for line in number if line <= raw]
            of_token.append(number[max(before)] if before else number[min(number)])
            byte += len(token)
    return of_token, of_line, characters


def lined(texts, tokenizer=TOKENIZER) -> Corpus:
    return prepare("fr", Documents(texts), tokenizer, TextOptions(), lines=True)


@LAW
@given(
    st.lists(st.text("ab é中 \n\t", max_size=30).filter(lambda text: not text or text.strip()), min_size=1, max_size=6)
)
def test_each_token_knows_its_line_and_each_line_its_document_and_characters(texts):
    if any(texts):
        corpus = lined(texts)
        of_token, of_line, characters = lines_by_hand(texts, corpus)
        assert corpus.lines.of_token.tolist() == of_token
        assert corpus.lines.document.tolist() == of_line
        assert corpus.lines.characters.tolist() == characters


def test_lines_are_numbered_over_the_whole_corpus_empty_ones_left_out():
    corpus = lined(["  one \n\n\ntwo", "three\n"])
    assert corpus.lines.document.tolist() == [0, 0, 1]
    assert corpus.lines.characters.tolist() == [3, 3, 5]


def test_each_line_knows_its_place_in_the_source_empty_ones_counted():
    corpus = lined(["", "  one \n\n \ntwo", "", "three\n", "\n\nfour"])
    assert corpus.lines.place.tolist() == [[1, 0], [1, 3], [3, 0], [4, 2]]


def test_a_blank_line_of_a_file_that_is_a_document_a_line_counts(tmp_path):
    (tmp_path / "fr.txt").write_text("un\n\ndeux\n", encoding="utf-8")
    corpus = prepare("fr", tmp_path / "fr.txt", TOKENIZER, TextOptions(document="line"), lines=True)
    assert corpus.lines.place.tolist() == [[0, 0], [2, 0]]
    assert corpus.lines.document.tolist() == [0, 1]


LONG = "a line\n" * (PIECE // 7 + 1)


@pytest.mark.parametrize("first", ["", "the cat\n\n", "\n\n"])
def test_lines_are_numbered_on_over_the_pieces_of_a_document(first):
    text = first + LONG + "\nlast"
    expected = [number for number, line in enumerate(text.split("\n")) if line.strip()]
    assert lined([text]).lines.place[:, 1].tolist() == expected


@pytest.mark.parametrize("texts", [["a", " \n\n"], [" \n", "a"], ["a", "\n", "b"], [LONG + "\n", "b"]])
def test_a_blank_document_or_piece_lends_its_tokens_to_no_other_documents_line(texts):
    corpus = lined(texts)
    document = np.searchsorted(corpus.starts, np.arange(len(corpus.tokens)), side="right") - 1
    assert corpus.lines.of_token.max() < len(corpus.lines.document), "every token's line is in the table"
    assert (corpus.lines.document[corpus.lines.of_token] == document).all()


def test_without_being_asked_no_line_is_kept():
    assert corpus_of(TEXTS).lines is None


class Slow:
    """A tokenizer that gives no offsets."""

    is_fast = False

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, text: Any, **options: Any) -> Any:
        assert "return_offsets_mapping" not in options
        return self.inner(text, **options)


def test_a_tokenizer_without_offsets_gives_the_same_lines():
    texts = ["the cat\nsat\n\non the mat", "the dog\n"]
    fast, slow = lined(texts), lined(texts, Slow(TOKENIZER))
    assert fast.tokens.tolist() == slow.tokens.tolist()
    assert fast.lines.of_token.tolist() == slow.lines.of_token.tolist()
