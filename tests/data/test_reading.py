"""However long a line or record, and however small a file was packed, little of it is in memory at once."""

from __future__ import annotations

import gzip
import subprocess
import sys
import tracemalloc
from contextlib import suppress

import numpy as np
import polars as pl
import pytest
import zstandard

from lape.data import parquet, reading
from lape.data.corpus import TextOptions, prepare
from lape.data.reading import LINE, PIECE, pieces
from lape.data.texts import Documents, documents
from lape.errors import TextError
from support.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
PACK = {".jsonl": bytes, ".jsonl.gz": gzip.compress, ".jsonl.zst": zstandard.compress}


class Watched:
    """A tokenizer that notes how much it is given at once."""

    is_fast = True

    def __init__(self) -> None:
        self.longest, self.total = 0, 0

    def __getattr__(self, name: str):
        return getattr(TOKENIZER, name)

    def __call__(self, text, **options):
        given = sum(map(len, text)) if isinstance(text, list) else len(text)
        self.longest, self.total = max(self.longest, given), self.total + given
        return TOKENIZER(text, **options)


@pytest.mark.parametrize(("rule", "word"), [("file", "the cat "), ("line", "the cat "), ("file", "中文")])
def test_a_line_without_end_is_read_in_pieces_and_no_further_than_needed(tmp_path, rule, word):
    path = tmp_path / "a.txt"
    path.write_text(word * (4_000_000 // len(word)))
    tokenizer = Watched()
    corpus = prepare("fr", path, tokenizer, TextOptions(tokens=2000, document=rule), lines=True)
    assert len(corpus.tokens) == 2000
    assert tokenizer.total <= LINE + PIECE
    assert (corpus.documents, len(corpus.lines.document)) == (1, 1)


@pytest.mark.parametrize("kind", [".jsonl", ".parquet", "memory"])
def test_a_long_record_is_tokenised_in_pieces(tmp_path, kind):
    text = "the cat " * 100_000
    path = tmp_path / f"a{kind}"
    if kind == ".jsonl":
        path.write_text('{"text": "' + text + '"}')
    elif kind == ".parquet":
        pl.DataFrame({"text": [text]}).write_parquet(path)
    tokenizer = Watched()
    corpus = prepare("fr", Documents([text]) if kind == "memory" else path, tokenizer, TextOptions())
    assert tokenizer.longest <= 2**19 + LINE
    assert TOKENIZER.decode(corpus.tokens) == text


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("what", ["a record", "white space"])
def test_a_record_or_gap_without_end_is_given_up_naming_file_and_line(tmp_path, monkeypatch, suffix, what):
    monkeypatch.setattr(reading, "RECORD", 300_000)
    monkeypatch.setattr(reading, "BLANK", 300_000)
    data = b'{"text": "one"}\n' + (b'{"text": "' + b"a" * 4_000_000 if what == "a record" else b"\n" * 4_000_000)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(PACK[suffix](data))
    tracemalloc.start()
    with pytest.raises(TextError, match=r"line 2 is longer" if what == "a record" else "white space in a row"):
        list(documents(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (20e6 if suffix.endswith("zst") else 3e6)


@pytest.mark.parametrize(
    "text", ["one two  three " * 9000, "中文" * 70_000 + "\nlast", "a" * 400_000, " " * 400_000, "\r\n" * 90_000]
)
def test_pieces_of_a_long_line_lose_nothing_and_are_bounded(text):
    some = list(pieces(reading.parts_of(text)))
    assert "".join(some) == text
    assert max(map(len, some)) <= LINE + PIECE
    assert all(piece.endswith("\n") or len(piece) > LINE - 5000 for piece in some[:-1])


def test_a_long_line_is_cut_where_a_word_begins():
    some = list(pieces(reading.parts_of("one two  three " * 40_000)))
    assert len(some) > 2
    assert all(piece[0] == " " and not piece[1].isspace() for piece in some[1:])


def test_lines_documents_and_characters_do_not_depend_on_how_a_line_is_cut(monkeypatch):
    texts = [
        "short\n" + "the cat  sat " * 40 + " \nnext " + "x" * 300,
        "  one\n" + " " * 400 + "\ntwo " + " " * 300 + "three \n",
        "end",
    ]
    whole = prepare("fr", Documents(texts), TOKENIZER, TextOptions(), lines=True)
    monkeypatch.setattr(reading, "PIECE", 40)
    monkeypatch.setattr(reading, "LINE", 100)
    cut = prepare("fr", Documents(texts), TOKENIZER, TextOptions(), lines=True)
    for name in ("document", "characters", "place"):
        assert np.array_equal(getattr(cut.lines, name), getattr(whole.lines, name)), name
    assert (cut.hash, cut.documents) == (whole.hash, whole.documents)
    assert cut.fingerprints.tolist() == whole.fingerprints.tolist()
    assert cut.line_hashes.tolist() == whole.line_hashes.tolist()
    assert TOKENIZER.decode(cut.tokens) == TOKENIZER.decode(whole.tokens)
    line = np.bincount(cut.lines.of_token, minlength=len(cut.lines.document))
    assert (line > 0).all()


def test_a_preview_of_a_line_without_end_is_a_million_characters(tmp_path):
    from lape.data.texts import preview

    (tmp_path / "a.txt").write_text("the cat " * 1_000_000)
    assert sum(map(len, preview(tmp_path / "a.txt", rule="file", column="text"))) <= 16 * PIECE + LINE + PIECE


def _one_text(characters):
    return ["the cat " * (characters // 8)]


@pytest.mark.parametrize("compression", ["zstd", "snappy", "uncompressed"])
@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (_one_text(60_000_000), "a record of over 50,331,648 bytes|a footer of"),
        (["a" * 60_000_000, *["b"] * 9], "a record of over|a footer of"),
        (["the cat " * 1000, "é" * 9, "", "中文"], ""),
        ([f"{k} sat" for k in range(30_000)], ""),
    ],
    ids=["one", "one among others", "ordinary", "many"],
)
def test_a_parquet_file_with_a_text_without_end_is_refused_and_others_come_back(tmp_path, texts, said, compression):
    frame = pl.DataFrame({"id": range(len(texts)), "text": texts, "more": [[1, 2]] * len(texts)})
    frame.write_parquet(tmp_path / "a.parquet", compression=compression, row_group_size=10_000)
    if said:
        with pytest.raises(TextError, match=said):
            list(documents(tmp_path / "a.parquet"))
    else:
        assert ["".join(one) for one in documents(tmp_path / "a.parquet")] == texts


def test_what_a_footer_says_is_believed_before_a_column_is_unpacked(tmp_path, monkeypatch):
    """One text 600 MB long is a file of 56 kB, which took 3.5 GB to refuse after it was read."""
    pl.DataFrame({"text": _one_text(60_000_000)}).write_parquet(tmp_path / "a.parquet")
    monkeypatch.setattr(pl.LazyFrame, "collect_batches", None)
    with pytest.raises(TextError, match=r"a record of over|a footer of"):
        list(documents(tmp_path / "a.parquet"))
    pl.DataFrame({"text": ["a" * 1000] * 5000}).write_parquet(tmp_path / "b.parquet", use_pyarrow=False)
    (chunk,) = parquet._chunks(tmp_path / "b.parquet", "text")
    assert chunk[5] == 5000
    monkeypatch.setattr(parquet, "_CHUNK", 1000)
    monkeypatch.setattr(parquet, "_RATIO", 1.01)
    with pytest.raises(TextError, match="unpacks from"):
        list(documents(tmp_path / "b.parquet"))


@pytest.mark.parametrize(
    "footer", [b"", b"\x00", b"\x19" * 500, b"\xff" * 40, b"\x4c" * 100_000, b"\x48\xff\xff\xff\x7f"]
)
def test_a_footer_of_nonsense_is_one_paragraph(tmp_path, footer):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(TextError, match=r"a\.parquet"):
        list(documents(path))
    with suppress(ValueError, IndexError, RecursionError, AttributeError, TypeError):
        list(parquet._chunks(path, "text"))


BIG = {
    "line.txt": "file.write(b'the cat ' * 13_000_000)",
    "record.jsonl": """file.write(b'{"text": "' + b'the cat ' * 13_000_000 + b'"}')""",
    "record.jsonl.gz": """file.write(b'{"text": "'); [file.write(b'the cat ' * 1_000_000) for _ in range(75)]""",
    "blank.jsonl.gz": "[file.write(b'\\n' * 10_000_000) for _ in range(100)]",
    "record.jsonl.zst": """file.write(b'{"text": "'); [file.write(b'the cat ' * 1_000_000) for _ in range(75)]""",
}
BIG["record.parquet"] = """import polars; polars.DataFrame({'text': ['the cat ' * 75_000_000]}).write_parquet(file)"""
_CHILD = """
import resource, sys
sys.path.insert(0, "tests")
from support.tiny import tiny_tokenizer
from lape.data.corpus import TextOptions, prepare
from lape.errors import TextError
tokenizer, before = tiny_tokenizer(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    prepare("fr", sys.argv[1], tokenizer, TextOptions(tokens=2000), lines=True)
except TextError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.soak
@pytest.mark.parametrize("name", BIG)
def test_peak_memory_is_bounded_whatever_comes(tmp_path, name):
    path = tmp_path / name
    opened = {".gz": gzip.open, ".zst": zstandard.open}.get(path.suffix, open)
    with opened(path, "wb") as file:
        exec(BIG[name], {"file": file})
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(path)], capture_output=True, text=True, timeout=120, check=True
    )
    assert int(done.stdout.split()[-1]) < 500_000
