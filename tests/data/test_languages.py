"""Language tags: BCP-47, FLORES codes translated, nonsense refused."""

from __future__ import annotations

import sys

import pytest

from lape.data import languages
from lape.data.languages import script, tag
from lape.errors import TextError

SAME = ["en", "fr", "zh", "zh-Hant", "hi-Latn", "fr-x-shuffled", "zh-Hans", "fil", "nb", "no", "arb", "ary"]
TRANSLATED = {
    "fra_Latn": "fr",
    "eng_Latn": "en",
    "spa_Latn": "es",
    "vie_Latn": "vi",
    "ind_Latn": "id",
    "jpn_Jpan": "ja",
    "zho_Hans": "zh-Hans",
    "zho_Hant": "zh-Hant",
    "hin_Latn": "hi-Latn",
    "fra": "fr",
    "EN": "en",
    "zh-hant": "zh-Hant",
    "en_us": "en",
    "pt-BR": "pt",
    "zh-TW": "zh-Hant",
    "zh-CN": "zh",
    "zh_Hant": "zh-Hant",
    "zh-Hant-HK": "zh-Hant",
    "zh-Hans-SG": "zh-Hans",
    "sr-ME": "sr-Latn",
    "es-419": "es",
    "pt-BR-x-mine": "pt-x-mine",
    "de-CH-1901": "de-1901",
    "tl": "fil",
    "deu": "de",
    "nob": "nb",
    " fr ": "fr",
}


@pytest.mark.parametrize("code", SAME)
def test_a_standard_tag_stays_as_it_is(code):
    assert tag(code) == code


@pytest.mark.parametrize(("code", "standard"), TRANSLATED.items())
def test_other_spellings_become_the_standard_tag(code, standard):
    assert tag(code) == standard


@pytest.mark.parametrize("code", [*SAME, *TRANSLATED])
def test_tagging_twice_is_tagging_once(code):
    assert tag(tag(code)) == tag(code)


@pytest.mark.parametrize(
    "code", ["", "elvish", "klingonish", "xx", "a", "12", "fr-", "-fr", "f r", "日本", "../fr", "fr/x"]
)
def test_what_is_no_language_is_refused_and_named(code):
    with pytest.raises(TextError) as error:
        tag(code)
    assert repr(code) in str(error.value)
    assert "fra_Latn" in str(error.value), "the message says what was expected"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("Vietnamese", "vi"),
        ("vietnamese", "vi"),
        ("Tiếng Việt", "vi"),
        ("Deutsch", "de"),
        ("日本語", "ja"),
        ("Brazilian Portuguese", "pt"),
        ("Chinese (Traditional)", "zh-Hant"),
        ("Filipino", "fil"),
        ("Norwegian Bokmål", "nb"),
    ],
)
def test_a_language_s_name_is_its_tag(name, code):
    pytest.importorskip("language_data", reason="needs the extra lid")
    assert tag(name) == code


def test_a_name_without_the_package_that_knows_names_says_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "language_data", None)
    monkeypatch.setitem(sys.modules, "language_data.names", None)
    monkeypatch.setattr(languages, "lacking", lambda *_: 'It needs language-data. Type: pip install "lape[lid]"')
    tag.cache_clear()
    with pytest.raises(TextError, match=r"'Vietnamese' is not a language tag\..*pip install"):
        tag("Vietnamese")


@pytest.mark.parametrize(
    ("wrong", "near"), [("jp", "ja"), ("vn", "vi"), ("cz", "cs"), ("Portugueze", "pt"), ("Duetsch", "de")]
)
def test_what_is_no_language_has_near_ones_suggested(wrong, near):
    pytest.importorskip("language_data", reason="needs the extra lid")
    with pytest.raises(TextError, match=f"Did you mean {near}"):
        tag(wrong)


@pytest.mark.parametrize("wrong", ["\ud83d", "x" * 100_000, "\x00" * 9, "f" * 5 + "\ud83d"])
def test_what_is_no_text_is_refused_in_a_line(wrong):
    with pytest.raises(TextError, match="is not a language tag") as error:
        tag(wrong)
    assert len(str(error.value)) < 400


def test_dialects_are_not_widened_to_one_language():
    assert len({tag(code) for code in ("arb", "ary", "arz", "ar")}) == 4


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("fr", "Latn"),
        ("vi", "Latn"),
        ("fra_Latn", "Latn"),
        ("fr-Cyrl", "Cyrl"),
        ("zh", "Hans"),
        ("zh-TW", "Hant"),
        ("zh-Latn", "Latn"),
        ("ja", "Jpan"),
        ("sr", "Cyrl"),
        ("sr-Latn", "Latn"),
        ("hi-Latn", "Latn"),
        ("uk-x-mine", "Cyrl"),
    ],
)
def test_a_language_s_script_is_the_tag_s_own_or_the_usual_one(language, expected):
    assert script(language) == expected
