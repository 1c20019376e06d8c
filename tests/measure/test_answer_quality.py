"""What a good answer is: in the language and likeliest after its own question."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.data.language_id import Guess, langid, lingua
from lape.measure.answer_quality import english_word, in_language, judged_lines, lines_of, on_topic, rivals
from lape.model.loss import find_head
from support.brute import logits_of, model_of, some_texts, tokenizer_of

# --- in the language ---


@pytest.mark.parametrize(
    ("answer", "found", "target", "expected"),
    [
        ("ten letters: no", "en", "en", True),
        ("abcdefghij", "en", "en", True),
        ("abcdefghi 123 !?", "en", "en", False),  # 9 letters
        ("abcdefghij", "fr", "en", False),
        ("abcdefghij", None, "en", False),
        ("", None, "en", False),
        ("été à Noël", "fr", "fra_Latn", False),  # 8
        ("été à Noël ici", "fr", "fr-CA", True),
        ("你好世界", "zh", "zh-Hant", True),
        ("你好世，1234", "zh", "zh", False),  # 3
        ("你好世界", "ja", "zh", False),
        ("ねこです", "ja", "ja", True),
        ("ネコ、犬", "ja", "ja", False),  # 3
        ("東京大学病院", "ja", "ja", False),  # no kana
        ("約翰・史密斯", "ja", "ja", False),  # a dot between names is no kana
        ("東京タワー", "ja", "ja", True),
        ("가나다라마바사아자", "ko", "ko", False),  # 9
    ],
)
def test_an_answer_in_the_language_is_named_so_and_has_letters_enough(answer, found, target, expected):
    assert in_language(answer, Guess(found, 0.9), target) is expected


@pytest.mark.parametrize(
    ("first", "second", "target", "expected"),
    [
        ("id", "ms", "id", True),
        ("ms", "id", "id", True),
        ("ms", "ms", "id", False),
        ("ms", "en", "id", True),
        ("ms", None, "id", True),
        ("en", "id", "id", False),
        (None, "id", "id", False),
        ("id", "id", "ms", False),
        ("id", "ms", "ms", True),
        ("ms", "id", "ms", True),
        ("ms", "id", "en", False),
        ("fr", "en", "fr", True),
        ("es", "fr", "fr", False),
    ],
)
def test_indonesian_and_malay_are_one_unless_both_identifiers_object(first, second, target, expected):
    guesses = Guess(first, 0.9), Guess(second, 0.9)
    assert in_language("anak-anak bermain", guesses[0], target, guesses[1]) is expected
    if second == first or target not in ("id", "ms"):
        assert in_language("anak-anak bermain", guesses[0], target) is expected  # alone, an identifier is all there are


def test_indonesian_that_one_identifier_takes_for_malay_is_indonesian_and_malay_is_not():
    pytest.importorskip("lingua", reason="needs the extra lid")
    both = [lingua(("id", "ms", "en"), neighbours=()), langid(("id", "en"))]
    indonesian = [
        "Minum air putih setiap hari bagus untuk badan.",  # Malay to lingua
        "Saya suka membaca buku di rumah.",
        "Tidur yang cukup membantu tubuh pulih.",
        "Kalau hujan, bawa payung dan pakai jaket supaya tidak sakit.",
    ]
    malay = [
        "Awak boleh cuba berbual dengan kawan awak tentang perkara itu kerana mereka faham.",
        "Encik perlu datang ke pejabat pada hari Isnin untuk mengambil wang tersebut.",
    ]
    for texts, expected in ((indonesian, True), (malay, False)):
        for text, first, second in zip(texts, *(identify(texts) for identify in both), strict=True):
            assert in_language(text, first, "id", second) is expected, (text, first, second)


@pytest.mark.parametrize(
    ("answer", "target", "expected"),
    [
        ("one two three four five\nno more\na b c d e", "en", ["one two three four five", "a b c d e"]),
        ("one two three four\n\nfive six", "en", ["one two three four\n\nfive six"]),
        ("你好，世界你\n你好", "zh", ["你好，世界你"]),
        ("你好世界，", "zh-Hans", ["你好世界，"]),
        ("ねこです。\nねこですよ", "ja", ["ねこですよ"]),
        ("ねこですよ", "ko", ["ねこですよ"]),
        ("", "en", [""]),
    ],
)
def test_lines_of_five_words_or_signs_are_judged_and_else_the_whole_answer(answer, target, expected):
    assert judged_lines(answer, target) == expected


def test_every_judged_line_of_every_answer_gets_its_own_guess():
    answers = ["a a a a a\nb b b b b", "", "c c c c c\nd"]
    guesses = lines_of(answers, "en", lambda texts: [Guess(text[:1] or None, 1.0) for text in texts])
    assert [[guess.language for guess in some] for some in guesses] == [["a", "b"], [None], ["c"]]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("我喜欢cats", True),
        ("我喜欢 cat", False),
        ("我喜欢Cats", False),
        ("我用iPhone和WiFi", False),
        ("我喜欢caféteria", False),  # no fragment of a word with accents
        ("我喜欢déjà和naïveté", False),
        ("我喜欢café", False),
        ("Việt Nam有người", False),
        ("我喜欢éclair，the有model2", True),  # a digit ends a word
        ("我喜欢the-mat", False),
        ("我喜欢some_mat", True),
        ("我喜欢ABCmodel", False),
        ("我喜欢 modeL", False),
        ("the model有", True),
        ("Слово and", False),
        ("Слово", False),
        ("", False),
    ],
)
def test_a_lower_case_latin_word_of_more_than_three_letters_is_english(answer, expected):
    assert english_word(answer) is expected


# --- on topic ---


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 30), st.integers(2, 40), st.data())
def test_rivals_are_the_true_question_first_and_others_once_each(questions, candidates, data):
    number = data.draw(st.integers(0, questions - 1))
    found = rivals(number, questions, candidates)
    assert found[0] == number
    assert len(found) == len(set(found)) == min(questions, candidates)
    assert set(found) <= set(range(questions))


def test_every_question_is_as_often_a_rival():
    every = [rival for number in range(11) for rival in rivals(number, 11, 4)]
    assert np.bincount(every).tolist() == [4] * 11


QUESTIONS = some_texts(7, 11, (2, 7))


def judged(answers, candidates=7, bos=True, questions=QUESTIONS):
    model = model_of("llama")
    return on_topic(model, tokenizer_of(bos), find_head(model), answers, questions, "zh", candidates)


def likelihood(question, answer, bos):
    """log P(answer | question), put plainly."""
    prompt, ids = (tokenizer_of(False)(text)["input_ids"] for text in (f"Q: {question}\nA:", answer))
    row = [1] * bos + prompt + ids
    logs = logits_of(model_of("llama"), torch.tensor([row]))[0].log_softmax(-1)
    return sum(float(logs[at - 1, row[at]]) for at in range(len(row) - len(ids), len(row)))


@pytest.mark.parametrize("candidates", [2, 3, 7, 99])
@pytest.mark.parametrize("bos", [True, False])
def test_an_answer_is_on_topic_where_its_question_makes_it_likeliest(candidates, bos):
    answers = [(k % 7, text) for k, text in enumerate(some_texts(16, 12))]
    expected = []
    for number, text in answers:
        values = [likelihood(QUESTIONS[k], text, bos) for k in range(7)]
        others = [values[k] for k in rivals(number, 7, candidates)[1:]]
        expected.append(values[number] > max(others))
    assert judged(answers, candidates, bos) == expected


def test_by_chance_one_of_all_questions_is_an_answer_s_topic():
    for text in some_texts(4, 13):
        assert sum(judged([(number, text) for number in range(7)])) == 1


def test_questions_that_are_the_same_cannot_be_told_apart():
    assert judged([(0, "le chat"), (1, "le chat")], questions=["the cat"] * 3) == [False, False]


def test_an_empty_answer_has_no_topic_and_no_answers_have_none():
    assert judged([(0, "")]) == [False]
    assert judged([]) == []
