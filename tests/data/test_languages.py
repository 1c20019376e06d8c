"""Language tags: BCP-47, FLORES codes translated, nonsense refused."""

from __future__ import annotations

import pytest

from lape.data.languages import script, tag
from lape.errors import TextError

SAME = ["en", "fr", "zh", "zh-Hant", "hi-Latn", "fr-x-shuffled", "pt-BR", "arb", "ary"]
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
    "en_us": "en-US",
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


@pytest.mark.parametrize("code", ["", "french", "xx", "a", "12", "fr-", "-fr", "f r", "日本", "../fr", "fr/x"])
def test_what_is_no_language_is_refused_and_named(code):
    with pytest.raises(TextError) as error:
        tag(code)
    assert repr(code) in str(error.value)
    assert "fra_Latn" in str(error.value), "the message says what was expected"


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
