"""What a good answer is: in the language, as fluent as the ceiling's answers, and likeliest after its own question."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.data.language_id import Guess
from lape.errors import OptionError
from lape.measure.answer_quality import (
    Band,
    Written,
    english_word,
    in_language,
    judged_lines,
    lines_of,
    on_topic,
    repetition,
    rivals,
    written,
)
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


# --- fluent ---


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab 猫", max_size=30))
def test_repetition_is_the_share_of_4_grams_that_occurred_before(text):
    grams = [text[at : at + 4] for at in range(len(text) - 3)]
    again = sum(gram in grams[:at] for at, gram in enumerate(grams))
    assert repetition(text) == pytest.approx(again / len(grams) if grams else 0)


@pytest.mark.parametrize("bos", [True, False])
def test_what_the_model_thinks_of_an_answer_alone_is_the_loss_of_its_full_logits(bos):
    model, tokenizer = model_of("llama"), tokenizer_of(bos)
    texts = [*some_texts(4, 3), "", "a"]
    for text, one in zip(texts, written(model, tokenizer, find_head(model), texts), strict=True):
        ids = tokenizer_of(False)(text)["input_ids"]
        scored = ids if bos else ids[1:]
        row = [1, *ids] if bos else ids
        logs = logits_of(model, torch.tensor([row]))[0].log_softmax(-1) if scored else None
        expected = [-float(logs[k, token]) for k, token in enumerate(row[1:])]
        np.testing.assert_allclose(one.nll, expected, rtol=2e-6, atol=2e-5)
        ends = [len(tokenizer.decode(ids[: k + 1])) for k in range(len(ids))]
        assert one.ends.tolist() == ends[len(ids) - len(scored) :]
        if scored:
            assert one.at(3)[0] == pytest.approx(np.mean(expected[:3]), rel=1e-5)
            assert one.at(999)[1] == pytest.approx(repetition(text))
            first = text[: ends[min(3, len(scored)) - 1 + len(ids) - len(scored)]]
            assert one.at(3)[1] == pytest.approx(repetition(first))


def made(length, random, shift=0.0, alphabet="ab"):
    """An answer of so many tokens of 1 to 3 letters."""
    sizes = random.integers(1, 4, length)
    text = "".join(random.choice(list(alphabet), sizes.sum()))
    return Written(text, random.normal(3 + shift, 1, length), np.cumsum(sizes))


def quantile(values, share):
    """Between the two values nearest to that rank, as far along as the rank says."""
    values = sorted(values)
    rank = share * (len(values) - 1)
    low = int(rank)
    high = min(low + 1, len(values) - 1)
    return values[low] + (rank - low) * (values[high] - values[low])


def fluent_by_hand(ceiling, answer):
    """In the central 95 % of the ceiling's answers of at least its length, cut to it; 8 of them must be as long."""
    lengths = sorted((len(one.nll) for one in ceiling), reverse=True)
    tokens = min(len(answer.nll), lengths[7])
    if tokens == 0:
        return False
    of = [one for one in ceiling if len(one.nll) >= tokens]

    def measured(one):
        return np.mean(one.nll[:tokens]), repetition(one.text[: one.ends[tokens - 1]])

    return all(
        quantile([measured(one)[k] for one in of], 0.025) <= value <= quantile([measured(one)[k] for one in of], 0.975)
        for k, value in enumerate(measured(answer))
    )


@pytest.mark.parametrize("seed", range(4))
def test_an_answer_is_fluent_within_the_central_95_percent_at_its_length(seed):
    random = np.random.default_rng(seed)
    ceiling = [made(int(random.integers(0, 25)), random) for _ in range(40)]
    answers = [made(int(random.integers(0, 40)), random, random.choice([0, 0.5, -1])) for _ in range(80)]
    band = Band(ceiling)
    found = [band.fluent(answer) for answer in answers]
    assert found == [fluent_by_hand(ceiling, answer) for answer in answers]
    assert {True, False} == set(found)


def test_about_19_in_20_answers_like_the_ceiling_s_are_within_each_bound():
    random = np.random.default_rng(0)
    letters = "".join(chr(0x4E00 + k) for k in range(2_000))  # no 4-gram comes twice
    ceiling, fresh = ([made(12, random, alphabet=letters) for _ in range(500)] for _ in range(2))
    band = Band(ceiling)
    assert np.mean([band.fluent(one) for one in fresh]) == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize(("shift", "alphabet"), [(9, "abcdefghij"), (-9, "abcdefghij"), (0, "a")])
def test_loss_too_high_or_too_low_or_repetition_is_not_fluent(shift, alphabet):
    random = np.random.default_rng(1)
    band = Band([made(15, random, alphabet="abcdefghij") for _ in range(40)])
    assert not any(band.fluent(made(15, random, shift, alphabet)) for _ in range(10))


@pytest.mark.parametrize("held", [7, 8])
def test_a_band_needs_8_answers_that_are_not_empty(held):
    random = np.random.default_rng(2)
    ceiling = [made(5 if k < held else 0, random) for k in range(20)]
    if held < 8:
        with pytest.raises(OptionError, match=r"Only 7 .*at least 8.*more questions"):
            Band(ceiling)
    else:
        assert not Band(ceiling).fluent(made(0, random))


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
