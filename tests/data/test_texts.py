"""Texts: every kind of source becomes the same documents; what cannot be read is refused by name."""

from __future__ import annotations

import gzip
import json
import re
from warnings import catch_warnings, simplefilter

import polars as pl
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.data.corpus import TextOptions, prepare, prepare_all
from lape.data.reading import PIECE
from lape.data.texts import Documents, documents, preview
from lape.errors import LapeWarning, TextError
from support.tiny import tiny_tokenizer

LAW = settings(deadline=None, max_examples=40)
TEXTS = ["Bonjour le monde.\nÇa va ?\n", "東京は雨。", "a b  c\n\nd"]


def read(source, **options) -> list[str]:
    """All documents, each in one string."""
    return ["".join(pieces) for pieces in documents(source, **options)]


def as_json_lines(texts, column="text") -> bytes:
    return "".join(json.dumps({"id": k, column: text}) + "\n" for k, text in enumerate(texts)).encode()


def two_frames(data: bytes) -> bytes:
    """Zstandard data of two frames, as `cat a.zst b.zst` or a parallel compressor makes it."""
    half = len(data) // 2
    return zstandard.compress(data[:half]) + zstandard.compress(data[half:])


PACK = {".jsonl": bytes, ".jsonl.gz": gzip.compress, ".jsonl.zst": zstandard.compress}


@pytest.mark.parametrize("suffix", PACK)
def test_records_come_back_whole_and_in_order(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(PACK[suffix](as_json_lines(TEXTS)))
    assert read(path) == TEXTS


def test_parquet_records_come_back_whole_and_in_order(tmp_path):
    pl.DataFrame({"id": range(len(TEXTS)), "text": TEXTS}).write_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == TEXTS


def test_a_compressed_file_of_several_parts_is_read_to_its_end(tmp_path):
    data = as_json_lines(TEXTS * 50)
    half = len(data) // 2
    (tmp_path / "a.jsonl.zst").write_bytes(two_frames(data))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(data[:half]) + gzip.compress(data[half:]))
    assert read(tmp_path / "a.jsonl.zst") == TEXTS * 50
    assert read(tmp_path / "a.jsonl.gz") == TEXTS * 50


def test_a_text_file_is_one_document(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\nthree", encoding="utf-8")
    assert read(tmp_path / "a.txt") == ["one\n\ntwo\nthree"]


def test_each_line_is_a_document_where_asked_and_blank_ones_are_none(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\r\n\n   \ntwo \nthree")
    assert read(tmp_path / "a.txt", rule="line") == ["one", "two ", "three"]


def test_blank_lines_are_empty_documents_where_numbers_matter(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\r\n\n   \ntwo \nthree")
    assert read(tmp_path / "a.txt", rule="line", blank=True) == ["one", "", "", "two ", "three"]


def test_only_a_line_feed_ends_a_line(tmp_path):
    lines = ["page\x0cfeed", "next\x85line", "line\u2028separator", "carriage\rreturn"]
    (tmp_path / "a.txt").write_bytes("\n".join(lines).encode())
    assert read(tmp_path / "a.txt", rule="line") == lines


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfbonjour")
    assert read(tmp_path / "a.txt") == ["bonjour"]


def test_strings_in_memory_are_the_documents():
    assert read(Documents(TEXTS)) == TEXTS


@LAW
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=8))
def test_no_character_is_lost(texts):
    assert read(Documents(texts)) == texts


def test_a_long_document_comes_in_pieces_cut_at_line_ends():
    text = "".join(f"line {k} of a long document\n" for k in range(3 * PIECE // 20))
    (pieces,) = [list(document) for document in documents(Documents([text]))]
    assert "".join(pieces) == text
    assert len(pieces) > 2
    assert all(piece.endswith("\n") and len(piece) < PIECE + 100 for piece in pieces)


def test_a_folder_gives_its_texts_in_the_order_of_their_names(tmp_path):
    for name in ("b.txt", "a.txt", "sub/c.txt", "notes.md", "picture.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert read(tmp_path) == ["a.txt", "b.txt", "sub/c.txt"]


def test_a_glob_gives_what_matches_in_order(tmp_path):
    for name in ("b1.txt", "a2.txt", "a1.txt"):
        (tmp_path / name).write_text(name)
    assert read(str(tmp_path / "a*.txt")) == ["a1.txt", "a2.txt"]
    assert read(str(tmp_path / "**" / "b?.txt")) == ["b1.txt"]


def test_a_name_with_brackets_is_that_file(tmp_path):
    (tmp_path / "a[1].txt").write_text("yes")
    assert read(str(tmp_path / "a[1].txt")) == ["yes"]


def test_several_sources_follow_one_another(tmp_path):
    (tmp_path / "z.txt").write_text("z")
    (tmp_path / "a.jsonl").write_bytes(as_json_lines(["a", "b"]))
    assert read([tmp_path / "z.txt", str(tmp_path / "a.jsonl")]) == ["z", "a", "b"]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_another_column_can_be_named(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".jsonl":
        path.write_bytes(as_json_lines(TEXTS, "body"))
    else:
        pl.DataFrame({"body": TEXTS}).write_parquet(path)
    assert read(path, column="body") == TEXTS


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_missing_column_is_refused_naming_it_and_those_there_are(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".jsonl":
        path.write_bytes(as_json_lines(TEXTS, "body"))
    else:
        pl.DataFrame({"body": TEXTS}).write_parquet(path)
    with pytest.raises(TextError, match=r"(?s)'text'.*body.*column=") as error:
        read(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("line", ['{"text": 3}', '{"text": null}', '["text"]', '"text"', "3"])
def test_a_record_without_text_is_refused(tmp_path, line):
    (tmp_path / "a.jsonl").write_text(line + "\n")
    with pytest.raises(TextError, match="text"):
        read(tmp_path / "a.jsonl")


def test_a_line_that_is_not_json_is_refused_with_its_number(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n\n{"text": "cut\n')
    with pytest.raises(TextError, match="line 3"):
        read(tmp_path / "a.jsonl")


def test_a_record_that_is_nested_too_deeply_is_refused_with_its_number(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text":' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(TextError, match=r"line 2 is not JSON \(it is nested too deeply\)"):
        read(tmp_path / "a.jsonl")


def test_a_parquet_file_without_columns_is_refused(tmp_path):
    pl.DataFrame().write_parquet(tmp_path / "a.parquet")
    with pytest.raises(TextError, match=r"a\.parquet has no columns"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    "thrown", [RecursionError(), TypeError("x"), ZeroDivisionError(), Exception("?"), IndexError(3)]
)
def test_whatever_a_tokenizer_throws_is_one_paragraph(thrown):
    class Broken:
        bos_token_id, all_special_ids, is_fast = None, (), True

        def __call__(self, *_args, **_options):
            raise thrown

    with pytest.raises(TextError, match=r"tokenizer failed on this text: ."):
        prepare("fr", Documents(["the cat"]), Broken(), TextOptions())


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252"])
def test_another_encoding_is_refused_naming_the_file_and_a_way_out(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("déjà vu, déjà lu".encode(encoding))
    with pytest.raises(TextError, match=r"a\.txt is not UTF-8.*iconv"):
        read(tmp_path / "a.txt")


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst", ".parquet"])
@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_truncated_file_is_refused_not_read_in_part(tmp_path, suffix, keep):
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pl.DataFrame({"text": TEXTS * 50}).write_parquet(path)
    else:
        path.write_bytes(PACK[suffix](as_json_lines(TEXTS * 50)))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(TextError, match=path.name):
        read(path)


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst", ".parquet"])
def test_garbage_is_refused_with_the_files_name(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"no such format at all" * 10)
    with pytest.raises(TextError, match=path.name):
        read(path)


@pytest.mark.parametrize("name", ["missing.txt", "no*.txt", "empty_folder"])
def test_where_there_is_no_text_it_says_so(tmp_path, name):
    (tmp_path / "empty_folder").mkdir()
    with pytest.raises(TextError, match="no text"):
        read(str(tmp_path / name))


def test_an_unknown_kind_of_file_is_refused_naming_the_known_ones(tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(TextError, match=r"a\.pdf.*\.parquet"):
        read(tmp_path / "a.pdf")


@pytest.mark.parametrize("source", [[], [3], [None]])
def test_what_is_no_path_is_refused(source):
    with pytest.raises(TextError, match="Expected"):
        read(source)


@pytest.fixture
def hub(tmp_path):
    """A data set of two splits in a folder, which `datasets` reads without a network."""
    pytest.importorskip("datasets", reason="needs the extra datasets")
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / "train.jsonl").write_bytes(as_json_lines(TEXTS))
    (folder / "test.jsonl").write_bytes(as_json_lines(["held out"]))
    return folder


def test_a_data_set_gives_one_document_a_record(hub):
    assert read(f"hf:{hub}") == TEXTS


def test_a_data_sets_split_can_be_named(hub):
    assert read(f"hf:{hub}::test") == ["held out"]


def test_a_data_set_without_the_column_or_the_split_is_refused(hub):
    with pytest.raises(TextError, match=r"'body'.*id, text"):
        read(f"hf:{hub}", column="body")
    with pytest.raises(TextError, match="nosuch"):
        read(f"hf:{hub}::nosuch")


def test_a_missing_data_set_is_refused(tmp_path):
    pytest.importorskip("datasets", reason="needs the extra datasets")
    with pytest.raises(TextError, match="hf:"):
        read(f"hf:{tmp_path / 'nothing'}")


def test_a_preview_reads_no_more_than_asked():
    assert preview(Documents(["one", "two", "three"]), rule="file", column="text", pieces=2) == ["one", "two"]
    assert preview(Documents([]), rule="file", column="text") == []


SENTENCES = "".join(f"sentence {k} of the news\n" for k in range(1997))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SENTENCES, "1,997 lines"),
        (SENTENCES[:-1], "1,997 lines"),
        (SENTENCES * 100, "over [0-9,]+ lines"),
        (SENTENCES.replace("5 of", "5 of\n\n"), ""),
        ("".join(SENTENCES.splitlines(True)[:199]), ""),
        ("a paragraph of prose " * 30 + "\n", ""),
        (("a paragraph of prose " * 30 + "\n") * 300, ""),
    ],
    ids=["sentences", "no last line feed", "a large file", "blank lines between", "few", "one line", "long paragraphs"],
)
def test_a_text_file_of_independent_lines_taken_as_one_document_is_warned_of(tmp_path, text, said):
    (tmp_path / "en.txt").write_text(text)
    with catch_warnings(record=True) as caught:
        simplefilter("always")
        prepare_all({"en": tmp_path / "en.txt"}, tiny_tokenizer(), TextOptions(tokens=50))
        prepare_all({"en": tmp_path / "en.txt"}, tiny_tokenizer(), TextOptions(tokens=50, document="line"))
        prepare_all({"en": Documents([text])}, tiny_tokenizer(), TextOptions(tokens=50))
        read(tmp_path / "en.txt")
    found = [str(one.message) for one in caught if issubclass(one.category, LapeWarning)]
    assert len(found) == bool(said)
    assert not said or re.search(rf"read as one document.* en\.txt \({said}\)\. .*document='line'", found[0])


def test_files_of_independent_lines_are_warned_of_together(tmp_path):
    texts = {language: tmp_path / f"{language}.txt" for language in ("en", "fr", "id", "vi", "zh")}
    for path in texts.values():
        path.write_text(SENTENCES)
    with catch_warnings(record=True) as caught:
        simplefilter("always")
        prepare_all(texts, tiny_tokenizer(), TextOptions(tokens=50))
    (told,) = [str(one.message) for one in caught if issubclass(one.category, LapeWarning)]
    assert "en.txt (1,997 lines), fr.txt (1,997 lines), id.txt (1,997 lines), 2 more." in told


def test_documents_are_read_only_when_asked_for(tmp_path):
    (tmp_path / "a.txt").write_text("good")
    (tmp_path / "b.jsonl").write_text("not json")
    found = documents([tmp_path / "a.txt", tmp_path / "b.jsonl"])
    assert "".join(next(found)) == "good"
