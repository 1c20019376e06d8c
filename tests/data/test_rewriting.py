"""The same sentences written differently: what each writing keeps, and what it changes."""

from __future__ import annotations

import importlib.util
import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.data import samples
from lape.data.languages import script, tag
from lape.data.rewriting import converted, equal_noise, noised, private_tag, romanised, shuffled, variant_tag
from lape.errors import OptionError

LAW = settings(deadline=None, max_examples=30)
LINES = st.lists(st.text(st.sampled_from("abcdé ,.1我你\n他のमि̂"), max_size=30), max_size=6)
RATES = st.floats(0, 1)
SEEDS = st.integers(0, 99)


def lines_of(language: str, count: int = 12) -> list[str]:
    return [line for text in samples.texts("all")[language].texts for line in text.split("\n") if line.strip()][:count]


def letters(text: str) -> list[str]:
    return [character for character in text if unicodedata.category(character)[0] == "L"]


def is_latin(text: str) -> bool:
    return all("LATIN" in unicodedata.name(character) for character in letters(text))


# Tags


@pytest.mark.parametrize(
    ("language", "kind", "expected"),
    [
        ("hi", "romanised", "hi-Latn"),
        ("zh", "romanised", "zh-Latn"),
        ("zh-Hant", "romanised", "zh-Latn"),
        ("zh-TW", "romanised", "zh-Latn"),
        ("rus_Cyrl", "romanised", "ru-Latn"),
        ("fr", "romanised", "fr-x-ascii"),
        ("pt-BR", "romanised", "pt-x-ascii"),
        ("zh", "converted", "zh-Hant"),
        ("zh-Hans", "converted", "zh-Hant"),
        ("zh-Hant", "converted", "zh-Hans"),
        ("fr", "shuffled", "fr-x-shuffled"),
        ("zh", "noised", "zh-x-noised"),
        ("fr-x-mine", "shuffled", "fr-x-mine-shuffled"),
    ],
)
def test_a_variant_has_a_standard_tag(language, kind, expected):
    assert variant_tag(language, kind) == expected == tag(expected)


@pytest.mark.parametrize("language", ["ru", "zh", "ja", "hi", "ar", "fr"])
def test_a_romanised_text_is_in_latin_script_by_its_tag(language):
    assert script(variant_tag(language, "romanised")) == "Latn"


def test_a_private_tag_is_the_language_s_own():
    assert private_tag("fra_Latn", "native") == "fr-x-native"


@pytest.mark.parametrize(("language", "kind"), [("fr", "converted"), ("ja", "converted"), ("fr", "sung")])
def test_a_variant_that_there_is_not_is_refused(language, kind):
    with pytest.raises(OptionError, match="Expected"):
        variant_tag(language, kind)


# Shuffled


@pytest.mark.parametrize("language", ["en", "fr", "vi", "zh"])
def test_shuffling_keeps_the_words_of_each_line_and_not_their_order(language):
    lines = lines_of(language)
    found, by = shuffled(lines, language, 0)
    assert by == ("characters" if language == "zh" else "words")
    pieces = list if language == "zh" else str.split
    assert [Counter(pieces(line)) for line in found] == [Counter(pieces(line)) for line in lines]
    assert sum(a != b for a, b in zip(found, lines, strict=True)) > len(lines) / 2


def test_a_line_s_order_depends_on_the_seed_and_the_line_alone():
    lines = lines_of("en")
    found, _ = shuffled(lines, "en", 3)
    assert shuffled(lines[4:], "en", 3)[0] == found[4:]
    assert shuffled(lines, "en", 4)[0] != found


def test_marks_stay_on_their_characters():
    (found,), by = shuffled(["ก้ข่ค๊ง๋"], "th", 1)
    assert by == "characters"
    assert Counter(found[k : k + 2] for k in range(0, 8, 2)) == Counter(["ก้", "ข่", "ค๊", "ง๋"])


def test_japanese_words_stay_whole():
    pytest.importorskip("fugashi")
    pytest.importorskip("unidic_lite")
    (found,), by = shuffled(["彼は東京の大学で iPhone を買いました。"], "ja", 0)
    assert by == "words by fugashi"
    assert found != "彼は東京の大学で iPhone を買いました。"
    assert all(word in found for word in ("東京", "大学", "iPhone"))


# Noise


@LAW
@given(LINES, RATES, SEEDS)
def test_noise_replaces_exactly_its_share_of_the_letters(lines, rate, seed):
    found = noised(lines, rate, seed)
    before, after = "".join(lines), "".join(found)
    assert [len(line) for line in found] == [len(line) for line in lines]
    changed = [k for k, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    own = letters(before)
    assert len(changed) == (round(rate * len(own)) if len(set(own)) > 1 else 0)
    assert all(before[k] in own and after[k] in own for k in changed)


@LAW
@given(LINES, RATES, RATES, SEEDS)
def test_what_is_replaced_at_a_lower_rate_is_so_at_a_higher_one(lines, one, other, seed):
    before = "".join(lines)
    low, high = ("".join(noised(lines, rate, seed)) for rate in sorted((one, other)))
    assert all(c == b for a, b, c in zip(before, low, high, strict=True) if a != b)


@LAW
@given(LINES, RATES, SEEDS)
def test_noise_is_the_same_again(lines, rate, seed):
    assert noised(lines, rate, seed) == noised(lines, rate, seed)


def test_another_seed_gives_other_noise():
    lines = lines_of("en")
    assert noised(lines, 0.5, 0) != noised(lines, 0.5, 1)


def test_noise_draws_letters_as_often_as_the_text_has_them():
    lines = ["aaaaaabbbc" * 400]
    found = Counter(new for old, new in zip(lines[0], noised(lines, 1.0, 0)[0], strict=True) if old == "a")
    assert set(found) == {"b", "c"}
    assert found["b"] / found.total() == pytest.approx(3 / 4, abs=0.04)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_rate_that_is_no_share_is_refused(rate):
    with pytest.raises(OptionError, match="0 to 1"):
        noised(["ab"], rate, 0)


def cost(lines) -> float:
    """Nats as a model might count them: more, the more letters are not what they were."""
    return 10 + sum(a != b for a, b in zip("".join(lines), "".join(lines_of("en")), strict=True)) / len(lines)


def test_equal_noise_costs_what_is_wanted():
    lines = lines_of("en")
    for wanted in (12.0, 20.0, 30.0):
        found, rate, reached = equal_noise(lines, cost, wanted, seed=0, steps=10)
        assert reached
        assert found == noised(lines, rate, 0)
        assert cost(found) == pytest.approx(wanted, abs=0.2)


def test_noise_that_cannot_cost_as_much_says_so():
    lines = lines_of("en")
    assert equal_noise(lines, cost, 9.0, seed=0) == (lines, 0.0, False)
    assert equal_noise(lines, cost, 999.0, seed=0) == (noised(lines, 1.0, 0), 1.0, False)


def test_equal_noise_asks_for_as_many_measurements_as_it_says():
    asked = []
    equal_noise(lines_of("en"), lambda lines: asked.append(lines) or cost(lines), 20.0, seed=0, steps=5)
    assert len(asked) == 5 + 2


# Romanised


@pytest.mark.parametrize("language", ["fr", "vi", "es"])
def test_latin_text_loses_its_diacritics_and_nothing_else(language):
    pytest.importorskip("anyascii")
    lines = lines_of(language)
    found, by = romanised(lines, language)
    assert by == "anyascii"
    assert all(letter.isascii() for letter in letters("".join(found)))
    for before, after in zip(lines, found, strict=True):
        plain = unicodedata.normalize("NFD", before).replace("đ", "d").replace("Đ", "D")
        assert after == "".join(c for c in plain if unicodedata.category(c) != "Mn")


@pytest.mark.parametrize(
    ("language", "line", "expected"),
    [
        ("ru", "Я читаю «Войну и мир» — 5 раз.", "Ya chitayu «Voynu i mir» — 5 raz."),
        ("ko", "한국어, OK?", "hangugeo, OK?"),
        ("ar", "نعم، لا؟", "n`m, l?"),
        ("el", "Αθήνα", "Athina"),
        ("fr", "", ""),
    ],
)
def test_other_scripts_are_transliterated_with_small_letters_where_they_have_no_capitals(language, line, expected):
    pytest.importorskip("anyascii")
    assert romanised([line], language)[0] == [expected]


def test_chinese_becomes_pinyin_with_latin_punctuation():
    pytest.importorskip("pypinyin")
    pytest.importorskip("anyascii")
    lines = ["他说：“我们有 4 只GDP老鼠，（银行）。”", "《绿色》GDP增长５％", "鲍勃·迪伦", ""]
    found, by = romanised(lines, "zh")
    assert by == "pypinyin"
    assert found == [
        "ta shuo: “wo men you 4 zhi GDP lao shu, (yin hang).”",
        "“lü se” GDP zeng zhang 5%",
        "bao bo·di lun",
        "",
    ]


@pytest.mark.parametrize(("language", "library"), [("zh", "pypinyin"), ("ja", "cutlet")])
def test_nothing_but_latin_letters_is_left(language, library):
    pytest.importorskip(library)
    pytest.importorskip("anyascii")
    found, by = romanised(lines_of(language), language)
    assert by == library
    assert all(is_latin(line) and len(letters(line)) > 5 for line in found)


def test_japanese_foreign_words_are_written_as_they_sound():
    pytest.importorskip("cutlet")
    pytest.importorskip("unidic_lite")
    assert romanised(["今日はカナダでラジオを聞きました。"], "ja")[0] == ["Kyou wa Kanada de rajio wo kikimashita."]


# Converted


def test_conversion_changes_the_script_and_comes_back():
    pytest.importorskip("opencc")
    lines = lines_of("zh")
    there, by = converted(lines, "zh-Hant")
    assert by == "OpenCC s2t"
    assert sum(a != b for a, b in zip(there, lines, strict=True)) > len(lines) / 2
    assert [len(line) for line in there] == [len(line) for line in lines]
    assert converted(there, "zh-Hans")[0] == lines


def test_conversion_knows_words():
    pytest.importorskip("opencc")
    assert converted(["头发和发展"], "zho_Hant")[0] == ["頭髮和發展"]


def test_conversion_to_anything_else_is_refused():
    with pytest.raises(OptionError, match="zh-Hans or zh-Hant"):
        converted(["x"], "fr")


# Missing libraries


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    for library, call in {
        "pypinyin": lambda: romanised(["我"], "zh"),
        "opencc": lambda: converted(["我"], "zh-Hant"),
    }.items():
        with pytest.raises(OptionError, match=rf'needs {library}\..*pip install "\.\[variants\]"'):
            call()
