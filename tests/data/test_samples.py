"""The bundled texts and questions: complete, parallel, free of duplicates, and in the language they claim."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache

import pytest

from lape.data.language_id import base, langid, lingua
from lape.data.samples import FURTHER, LANGUAGES, questions, texts
from lape.data.samples.reserved import reserved_questions
from lape.errors import OptionError

EVERY = (*LANGUAGES, *FURTHER)
SCRIPTS = {
    "zh": {"CJK"},
    "zh-Hant": {"CJK"},
    "ja": {"CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC"},
    "ko": {"HANGUL"},
    "ar": {"ARABIC"},
    "ru": {"CYRILLIC"},
}
MARKS = {"zh": "？", "zh-Hant": "？", "ja": "？", "ar": "؟"}
LENGTHS = {"zh": (0.15, 0.8), "ja": (0.15, 0.8), "zh-Hant": (0.26, 0.38), "ko": (0.44, 0.6), "ar": (0.7, 1.7)}
"""Characters of a document per character of the English one."""
MALAY = (2, 6, 20, 40, 42, 50, 56)
"""Questions of the first 64 that both identifiers take for Malay in Indonesian; figures stand on them, so they stay as they are."""
WRITTEN_IN_TAIWAN_TOO = set("岩游里")
"""Characters that are traditional as well, which a converter takes for simplified where they stand alone."""


@cache
def documents(language: str) -> list[str]:
    part = "all" if language in LANGUAGES else "record"
    return list(texts(part, languages=[language])[language].texts)


@cache
def asked(language: str) -> list[str]:
    """Every question there is in a language: the 64, those to choose by, the reserved ones."""
    if language in FURTHER:
        return questions("all", languages=[language])[language]
    return questions("native", languages=[language])[language] + reserved_questions()[language]


def lines(language: str) -> list[str]:
    return [line for document in documents(language) for line in document.split("\n")]


def scripts(text: str) -> Counter[str]:
    """How many letters of each script, by the first word of each letter's Unicode name."""
    return Counter(re.split(r"[ -]", unicodedata.name(letter, "?"))[0] for letter in text if letter.isalpha())


@cache
def told(language: str) -> list[tuple[str | None, str | None]]:
    """What both identifiers take every document and question for; Malay and Tagalog are among the candidates."""
    first, second = identifiers()
    every = documents(language) + asked(language)
    return [(a.language, b.language) for a, b in zip(first(every), second(every), strict=True)]


@cache
def identifiers():
    return lingua(EVERY, neighbours=("ms", "tl", "pt", "it", "nl")), langid(EVERY)


@pytest.fixture
def _identifiers() -> None:
    for module in ("lingua", "py3langid"):
        pytest.importorskip(module, reason="needs the extra lid")


@pytest.fixture
def simplified():
    return pytest.importorskip("opencc", reason="needs opencc").OpenCC("t2s").convert


def test_the_languages_are_those_of_the_paper():
    assert LANGUAGES == ("en", "zh", "fr", "es", "vi", "id", "ja")
    assert tuple(texts("all")) == tuple(questions("all")) == tuple(reserved_questions()) == LANGUAGES
    assert not set(FURTHER) & set(LANGUAGES)


@pytest.mark.parametrize("language", EVERY)
def test_there_are_48_documents_of_8_lines_or_the_28_recorded_ones(language):
    found = documents(language)
    assert len(found) == (48 if language in LANGUAGES else 28)
    assert [len(document.split("\n")) for document in found] == [8] * len(found)
    assert all(line == line.strip() and line for line in lines(language))


@pytest.mark.parametrize("language", EVERY)
def test_there_are_264_questions_of_one_line_or_the_first_64(language):
    found = asked(language)
    assert len(found) == (64 + 40 + 160 if language in LANGUAGES else 64)
    assert all(question == question.strip() and question and "\n" not in question for question in found)


@pytest.mark.parametrize("language", EVERY)
def test_every_question_asks(language):
    assert all(question.endswith(MARKS.get(language, "?")) for question in asked(language))


def test_texts_are_split_28_to_record_and_20_to_evaluate():
    record, evaluate, everything = texts("record"), texts("evaluate"), texts("all")
    for language in LANGUAGES:
        assert (len(record[language].texts), len(evaluate[language].texts)) == (28, 20)
        assert record[language].texts + evaluate[language].texts == everything[language].texts


def test_questions_are_split_24_for_development_and_40_for_reporting():
    development, reporting = questions("development", languages=EVERY), questions("reporting", languages=EVERY)
    for language, everything in questions("all", languages=EVERY).items():
        assert (len(development[language]), len(reporting[language])) == (24, 40)
        assert development[language] + reporting[language] == everything


def test_native_questions_are_all_that_may_be_answered():
    everything, choosing = questions("all"), questions("choosing")
    for language, native in questions("native").items():
        assert (len(everything[language]), len(choosing[language])) == (64, 40)
        assert native == everything[language] + choosing[language]


def test_languages_are_those_asked_for_in_their_order():
    assert tuple(texts("record", languages=EVERY)) == tuple(questions("all", languages=EVERY)) == EVERY
    assert (
        list(texts("record", 2, languages=["ko", "en"]))
        == list(questions("all", languages=("ko", "en")))
        == ["ko", "en"]
    )
    assert texts("record", 2, languages=["ko", "en"])["en"].texts == texts("record")["en"].texts[:2]


@pytest.mark.parametrize("given", [texts, questions])
def test_a_part_that_there_is_not_is_refused(given):
    with pytest.raises(OptionError, match=r"part is 'eval'\. Expected .*, all"):
        given("eval")


@pytest.mark.parametrize("part", ["evaluate", "all"])
@pytest.mark.parametrize("language", FURTHER)
def test_further_languages_have_what_is_recorded_alone(language, part):
    said = rf"languages has {language}, and the part {part} is in en, .*, ja\. .* that is in {language}: record\."
    with pytest.raises(OptionError, match=said):
        texts(part, languages=["en", language])


@pytest.mark.parametrize("part", ["choosing", "native"])
def test_further_languages_have_the_64_questions_alone(part):
    with pytest.raises(OptionError, match=r"languages has ko, ar, and .* is in ko, ar: development, reporting, all\."):
        questions(part, languages=["ko", "en", "ar"])


@pytest.mark.parametrize(("given", "part"), [(texts, "record"), (questions, "all")])
def test_a_language_that_there_is_not_is_refused(given, part):
    with pytest.raises(OptionError, match=r"languages has sw, and .* is in en, .*, zh-Hant\. Expected some of these\."):
        given(part, languages=["en", "sw"])


def test_fewer_documents_are_the_first_ones():
    few, every = texts("evaluate", documents=3), texts("evaluate")
    assert all(few[language].texts == every[language].texts[:3] for language in LANGUAGES)


@pytest.mark.parametrize("language", EVERY)
def test_no_line_or_question_comes_twice(language):
    """Nor in other case or with other punctuation."""
    letters = [re.sub(r"\W", "", line.casefold()) for line in lines(language) + asked(language)]
    assert [line for line, times in Counter(letters).items() if times > 1] == []


def test_no_line_or_question_is_left_in_another_language():
    owners = Counter(line for language in EVERY for line in {*lines(language), *asked(language)})
    assert [line for line, languages in owners.items() if languages > 1] == []


@pytest.mark.parametrize("language", EVERY)
def test_letters_are_of_the_languages_own_script(language):
    own = SCRIPTS.get(language, {"LATIN"})
    for text in documents(language) + asked(language):
        assert set(scripts(text)) <= own, text


def test_japanese_has_kana_in_every_line_and_chinese_in_none():
    kana = re.compile(r"[\u3041-\u3096\u30a1-\u30fa]")
    assert all(kana.search(line) for line in lines("ja") + asked("ja"))
    assert not any(kana.search(line) for language in ("zh", "zh-Hant") for line in lines(language) + asked(language))


def test_traditional_chinese_is_told_from_simplified_in_every_line_and_question(simplified):
    hant, hans = lines("zh-Hant") + asked("zh-Hant"), lines("zh") + asked("zh")
    assert [line for line in hant if simplified(line) == line] == []
    assert [line for line in hans if simplified(line) != line] == [], "simplified already"
    assert not {simplified(line) for line in hant} & set(hans), "written anew, not converted"


def test_traditional_chinese_has_no_simplified_character():
    opencc = pytest.importorskip("opencc", reason="needs opencc")
    taiwan = opencc.OpenCC("s2tw").convert
    assert {c for c in "".join(lines("zh-Hant") + asked("zh-Hant")) if taiwan(c) != c} <= WRITTEN_IN_TAIWAN_TOO
    assert taiwan("网") != "网", "one would be seen"


@pytest.mark.parametrize("language", EVERY)
def test_texts_are_in_unicode_normal_form_without_strange_characters(language):
    for text in documents(language) + asked(language):
        assert unicodedata.is_normalized("NFC", text)
        assert not [c for c in text if c not in "\n " and unicodedata.category(c)[0] in "CZ"], "or other white space"
        assert "\N{ARABIC TATWEEL}" not in text


@pytest.mark.usefixtures("_identifiers")
@pytest.mark.parametrize("language", [language for language in EVERY if language != "id"])
def test_both_identifiers_agree_on_the_language_of_every_document_and_question(language):
    """They know Chinese alone: simplified and traditional are told apart above. Cantonese is what py3langid may take the latter for."""
    named = {base(language), "yue"} if language == "zh-Hant" else {language}
    every = documents(language) + asked(language)
    wrong = [(text, guess) for text, guess in zip(every, told(language), strict=True) if not set(guess) <= named]
    assert wrong == []


@pytest.mark.usefixtures("_identifiers")
def test_indonesian_is_taken_for_malay_by_one_identifier_at_most():
    guesses = told("id")
    assert {language for guess in guesses for language in guess} <= {"id", "ms"}
    malay = [k - len(documents("id")) for k, guess in enumerate(guesses) if "id" not in guess]
    assert tuple(malay) == MALAY
    planted = ["Bolehkah awak terangkan kenapa kereta itu tidak boleh bergerak kerana kesejukan?"]
    assert [identify(planted)[0].language for identify in identifiers()] == ["ms", "ms"], "one would be seen"


@pytest.mark.parametrize("language", EVERY)
def test_parallel_documents_are_of_like_length(language):
    low, high = LENGTHS.get(language, (0.7, 1.7))
    for document, english in zip(documents(language), documents("en"), strict=language in LANGUAGES):
        assert low < len(document) / len(english) < high, document
