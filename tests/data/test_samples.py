"""The bundled texts and questions: complete, parallel, free of duplicates, and in the language they claim."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

import pytest

from lape.data.samples import LANGUAGES, questions, texts
from lape.errors import OptionError

SCRIPTS = {"zh": {"CJK"}, "ja": {"CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC"}}
OTHERS = ["PT", "IT", "DE", "NL", "KO"]


def documents(part: str = "all") -> dict[str, list[str]]:
    return {language: list(source.texts) for language, source in texts(part).items()}


def scripts(text: str) -> Counter[str]:
    """How many letters of each script, by the first word of each letter's Unicode name."""
    return Counter(re.split(r"[ -]", unicodedata.name(letter, "?"))[0] for letter in text if letter.isalpha())


@pytest.fixture(scope="module")
def detector():
    lingua = pytest.importorskip("lingua", reason="needs the extra lid")
    codes = [getattr(lingua.IsoCode639_1, code.upper()) for code in (*LANGUAGES, *OTHERS)]
    return lingua.LanguageDetectorBuilder.from_iso_codes_639_1(*codes).build()


def test_the_languages_are_those_of_the_paper():
    assert LANGUAGES == ("en", "zh", "fr", "es", "vi", "id", "ja")
    assert tuple(texts("all")) == tuple(questions("all")) == LANGUAGES


@pytest.mark.parametrize("language", LANGUAGES)
def test_there_are_48_documents_of_8_lines(language):
    found = documents()[language]
    assert len(found) == 48
    assert [len(document.split("\n")) for document in found] == [8] * 48
    assert all(line == line.strip() and line for document in found for line in document.split("\n"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_there_are_64_questions_of_one_line(language):
    found = questions("all")[language]
    assert len(found) == 64
    assert all(question == question.strip() and question and "\n" not in question for question in found)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_question_asks(language):
    assert all(re.search(r"[?？]", question) for question in questions("all")[language])


def test_texts_are_split_28_to_record_and_20_to_evaluate():
    record, evaluate, everything = documents("record"), documents("evaluate"), documents()
    for language in LANGUAGES:
        assert (len(record[language]), len(evaluate[language])) == (28, 20)
        assert record[language] + evaluate[language] == everything[language]


def test_questions_are_split_24_for_development_and_40_for_reporting():
    development, reporting, everything = questions("development"), questions("reporting"), questions("all")
    for language in LANGUAGES:
        assert (len(development[language]), len(reporting[language])) == (24, 40)
        assert development[language] + reporting[language] == everything[language]


@pytest.mark.parametrize("given", [texts, questions])
def test_a_part_that_there_is_not_is_refused(given):
    with pytest.raises(OptionError, match=r"part is 'eval'\. Expected .*, all"):
        given("eval")


def test_fewer_documents_are_the_first_ones():
    few = texts("evaluate", documents=3)
    assert all(list(few[language].texts) == documents("evaluate")[language][:3] for language in LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_line_or_question_comes_twice(language):
    lines = [line for document in documents()[language] for line in document.split("\n")]
    everything = lines + questions("all")[language]
    assert [line for line, times in Counter(everything).items() if times > 1] == []


def test_no_line_is_left_in_another_language():
    owners: dict[str, set[str]] = {}
    for language, found in documents().items():
        for line in (line for document in found for line in document.split("\n")):
            owners.setdefault(line, set()).add(language)
    assert [line for line, languages in owners.items() if len(languages) > 1] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_letters_are_of_the_languages_own_script(language):
    own = SCRIPTS.get(language, {"LATIN"})
    for text in documents()[language] + questions("all")[language]:
        foreign = {script: times for script, times in scripts(text).items() if script not in own}
        assert not foreign, text


def test_japanese_has_kana_in_every_line_and_chinese_in_none():
    kana = re.compile(r"[\u3041-\u3096\u30a1-\u30fa]")
    found = documents()
    assert all(kana.search(line) for document in found["ja"] for line in document.split("\n"))
    assert not any(kana.search(document) for document in found["zh"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_are_in_unicode_normal_form_without_strange_characters(language):
    for text in documents()[language] + questions("all")[language]:
        assert unicodedata.normalize("NFC", text) == text
        assert not [c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Co", "Cn", "Cs")]


@pytest.mark.parametrize("language", LANGUAGES)
def test_lingua_agrees_on_the_language_of_every_document(detector, language):
    found = detector.detect_languages_in_parallel_of(documents()[language])
    assert [k for k, name in enumerate(found) if name.iso_code_639_1.name.lower() != language] == []


def test_parallel_documents_are_of_like_length():
    found = documents()
    for language in LANGUAGES:
        for document, english in zip(found[language], found["en"], strict=True):
            low, high = (0.15, 0.8) if language in SCRIPTS else (0.7, 1.7)
            assert low < len(document) / len(english) < high
