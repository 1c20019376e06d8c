"""Stretches of an answer in another language: by script exactly, by two identifiers that agree, and never names or quoted words."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.data import samples
from lape.data.language_id import Guess, langid, lingua
from lape.measure.answer_spans import Span, foreign, mixed, script_of, spans


def nobody(texts):
    return [Guess(None, 0.0) for _ in texts]


def found(answer, target, first=nobody, second=nobody):
    (some,) = spans([answer], target, first, second)
    return [(answer[one.start : one.end], one.language, one.whole) for one in some]


# --- by script ---


@pytest.mark.parametrize(
    ("answer", "target", "expected"),
    [
        ("Il fait beau. 今天天气很好，我们去公园。", "fr", [("今天天气很好，我们去公园", "zh", True)]),
        ("Le mot 你好 veut dire bonjour, et 北京 est une ville.", "fr", []),  # names and quoted words
        ("Il fait 今天天气很好 beau.", "fr", [("今天天气很好", "zh", False)]),
        ("I say ありがとうございます to them.", "en", [("ありがとうございます", "ja", False)]),
        ("I say 안녕하세요 to them.", "en", []),
        ("I said 오늘 날씨가 좋습니다 to them.", "en", [("오늘 날씨가 좋습니다", "ko", False)]),
        ("今天天气很好。", "zh", []),
        ("今天天气很好。今日はとても良い天気です。", "zh", [("今日はとても良い天気です", "ja", True)]),
        ("这是“ありがとう”的意思。", "zh", [("ありがとう", "ja", False)]),
        ("美の世界是一本书。", "zh", []),
        ("今天天气很好。今日はとても良い天気です。", "zh-Hant", [("今日はとても良い天気です", "ja", True)]),
        ("今日は東京タワーに行きます。", "ja", []),
        ("我用 iPhone 和 Wi-Fi 上网，去 New York City 看 United States of America。", "zh", []),
        ("你可以 drink more water 每天。", "zh", [("drink more water", None, False)]),
        ("다음은 我们今天去公园玩 입니다.", "ko", [("我们今天去公园玩", "zh", False)]),
        ("Это очень good idea for you сегодня.", "ru", [("good idea for you", None, False)]),
        ("Yes. Это очень хорошая идея.", "en", [("Это очень хорошая идея", None, True)]),
        ("12 + 30 = 42. x = 3, y = 4, z = 5.", "zh", []),
        ("هذا جيد. You should drink more water every day.", "ar", [("You should drink more water every day", None, True)]),
        ("हाँ। पानी पिएँ।", "hi", []),
        ("", "fr", []),
    ],
)  # fmt: skip
def test_runs_in_another_script_are_foreign_where_they_are_longer_than_names(answer, target, expected):
    assert found(answer, target) == expected


@pytest.mark.parametrize(
    ("sign", "expected"),
    [("a", "LATIN"), ("é", "LATIN"), ("Ａ", "LATIN"), ("中", "CJK"), ("々", "CJK"), ("ー", "KATAKANA"), ("ｱ", "KATAKANA"),
     ("の", "HIRAGANA"), ("ж", "CYRILLIC"), ("가", "HANGUL"), ("ب", "ARABIC"), ("3", ""), (" ", ""), ("。", ""), ("・", "")],
)  # fmt: skip
def test_the_script_of_a_letter_is_its_name_in_unicode(sign, expected):
    assert script_of(sign) == expected


# --- by language ---


def naming(**by_word):
    """An identifier that names a language by the first of these words in a text."""

    def identify(texts):
        return [
            Guess(next((language for word, language in by_word.items() if word in text), "fr"), 0.9) for text in texts
        ]

    return identify


OTHER = "you should really drink some more water"


def test_a_sentence_is_foreign_where_both_identifiers_name_the_same_other_language():
    answer = f"Il fait beau ce matin, je pense. {OTHER}. Et voilà."
    assert found(answer, "fr", naming(water="en"), naming(water="en")) == [(OTHER, "en", True)]
    assert found(answer, "fr", naming(water="en"), naming(water="de")) == []
    assert found(answer, "fr", naming(water="en"), naming()) == []
    assert found(answer, "en", naming(water="en"), naming(water="en")) == [
        ("Il fait beau ce matin, je pense", "fr", True)
    ]


def test_malay_in_indonesian_is_not_foreign_and_the_two_are_one_elsewhere():
    assert found(OTHER, "id", naming(water="ms"), naming(water="ms")) == []
    assert found(OTHER, "fr", naming(water="ms"), naming(water="id")) == [(OTHER, "ms", True)]


def test_a_clause_is_foreign_where_its_sentence_is_not():
    answer = f"Il fait beau ce matin, je pense: {OTHER}."

    def whole(texts):
        return [Guess("en" if text == OTHER else "fr", 0.9) for text in texts]

    assert found(answer, "fr", whole, whole) == [(OTHER, "en", False)]


@pytest.mark.parametrize(
    "text", ["Sir Arthur Conan Doyle, London, England, Europe", "The cat", "“bonjour”", "1 2 3 4 5 6 7"]
)
def test_names_quoted_words_and_digits_are_not_asked_about(text):
    def never(texts):
        assert not texts
        return []

    assert found(text, "vi", never, never) == []


# --- shares ---


def test_a_sign_counts_as_two_and_a_half_letters_and_digits_as_none():
    answer = "abcde 123 你好 fghij"
    assert foreign(answer, [Span(10, 12, "zh", False)]) == pytest.approx(5 / 15)
    assert foreign("123", []) == 0
    assert mixed(answer, [Span(10, 12, "zh", False)])
    assert not mixed(answer, [Span(0, 1, "de", False)])
    assert mixed(answer, [Span(0, 1, "de", True)])
    assert not mixed(answer, [])


@settings(max_examples=60, deadline=None)
@given(
    st.text(alphabet="ab c.,。你好吗のは가жЖ1\n", max_size=60), st.sampled_from(["fr", "zh", "ja", "ko", "ru", "hi"])
)
def test_spans_lie_apart_within_the_answer_and_hold_letters_at_both_ends(answer, target):
    (some,) = spans([answer], target, naming(a="en"), naming(a="en"))
    for one in some:
        assert 0 <= one.start < one.end <= len(answer)
        assert answer[one.start].isalpha()
        assert answer[one.end - 1].isalpha()
    assert all(one.end <= after.start for one, after in pairwise(some))
    assert 0 <= foreign(answer, some) <= 1


# --- with the real identifiers ---


@pytest.fixture(scope="module")
def identifiers():
    pytest.importorskip("lingua", reason="needs the extra lid")
    return lingua(samples.LANGUAGES, neighbours=()), langid(samples.LANGUAGES)


@pytest.mark.parametrize("target", samples.LANGUAGES)
def test_native_questions_hold_no_other_language_and_two_questions_in_two_languages_do(identifiers, target):
    asked = samples.questions("development")
    some = asked[target][:12]
    assert not any(spans(some, target, *identifiers))
    other = samples.LANGUAGES[samples.LANGUAGES.index(target) - 1]
    both = [f"{mine} {theirs}" for mine, theirs in zip(some, asked[other][1:13], strict=True)]
    for answer, parts in zip(both, spans(both, target, *identifiers), strict=True):
        assert mixed(answer, parts), answer
