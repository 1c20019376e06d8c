"""Parallel text: which lines are of one document, in every language the same, and what is resampled together."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lape.data.parallel import aligned, spread, warn_of_few
from lape.data.texts import Documents
from lape.errors import LapeWarning, TextError
from support.planted import planted_tokenizer, sentences


def records(path: Path, documents: list[list[str]]) -> Path:
    path.write_text("".join(json.dumps({"text": "\n".join(lines)}) + "\n" for lines in documents), encoding="utf-8")
    return path


def of_lengths(mark: str, lengths: list[int]) -> list[list[str]]:
    return [[f"{mark} {number} {k}" for k in range(count)] for number, count in enumerate(lengths)]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_lines_of_records_keep_the_document_that_they_are_of(tmp_path_factory, lengths):
    folder = tmp_path_factory.mktemp("records")
    found = aligned({k: records(folder / f"{k}.jsonl", of_lengths(k, lengths)) for k in ("en", "fr")})
    assert found.lines["fr"] == [line for document in of_lengths("fr", lengths) for line in document]
    alone = len(lengths) == 1 or max(lengths) == 1
    expected = None if alone else tuple(number for number, count in enumerate(lengths) for _ in range(count))
    assert found.documents == expected


def test_lines_alone_say_nothing_of_documents_and_those_of_another_language_are_taken(tmp_path):
    (tmp_path / "en.txt").write_text("a\nb\nc\n", encoding="utf-8")
    fr = records(tmp_path / "fr.jsonl", [["a"], ["b", "c"]])
    assert aligned({"en": tmp_path / "en.txt"}).documents is None
    assert aligned({"en": ["a", "b", "c"], "fr": Documents(["a", "b", "c"])}).documents is None
    assert aligned({"en": tmp_path / "en.txt", "fr": fr}).documents == (0, 1, 1)


def test_documents_of_other_lengths_are_refused_by_number_and_language(tmp_path):
    en = records(tmp_path / "en.jsonl", [["a", "b"], ["c"]])
    fr = records(tmp_path / "fr.jsonl", [["a"], ["b", "c"]])
    with pytest.raises(TextError, match="Document 1 has 2 lines in en and 1 in fr"):
        aligned({"en": en, "fr": fr})


LINES = {language: sentences(language, 60, 1) for language in ("en", "fr")}


def test_the_lines_that_are_taken_say_which_document_they_are_of():
    within = [k // 4 for k in range(60)]
    numbers, texts = spread(LINES, 100, planted_tokenizer(), within)
    assert 2 < len(numbers) < 60
    for one in texts.values():
        assert one.units == tuple(number // 4 for number in numbers)
    assert spread(LINES, 100, planted_tokenizer())[1]["fr"].units is None


@pytest.mark.parametrize(("each", "said"), [(10, "6 documents"), (2, None)])
def test_lines_of_few_documents_are_warned_of(each, said):
    texts = spread(LINES, 5000, planted_tokenizer(), [k // each for k in range(60)])[1]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_few(texts, 5000, planted_tokenizer())
    told = [str(one.message) for one in caught if issubclass(one.category, LapeWarning)]
    assert len(told) == (said is not None)
    assert said is None or said in told[0]


def test_as_many_units_as_documents():
    with pytest.raises(TextError, match="2 documents and 1 units"):
        Documents(["a", "b"], [0])
