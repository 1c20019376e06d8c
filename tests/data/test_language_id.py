"""Which language a short text is in: two identifiers of one shape, among the languages in play and their neighbours."""

from __future__ import annotations

import importlib.util

import pytest

from lape.data.language_id import IDENTIFIERS, NEIGHBOURS, Guess, Teller, base, candidates, identifier
from lape.errors import OptionError

SENTENCES = {
    "en": "The children play in the garden every afternoon.",
    "zh": "孩子们每天下午在花园里玩耍。",
    "fr": "Les enfants jouent dans le jardin tous les après-midi.",
    "es": "Los niños juegan en el jardín todas las tardes.",
    "vi": "Trẻ em chơi trong vườn mỗi buổi chiều.",
    "id": "Anak-anak bermain di taman setiap sore bersama ibunya.",
    "ja": "子どもたちは毎日午後に庭で遊びます。",
}
NEIGHBOURING = {
    "pt": "As crianças não estão no jardim porque está chovendo muito.",
    "de": "Die Kinder spielen jeden Nachmittag im Garten hinter dem Haus.",
    "ru": "Дети каждый день играют в саду за домом.",
    "ko": "아이들은 매일 오후 정원에서 놉니다.",
}


@pytest.fixture(scope="module", params=list(IDENTIFIERS))
def name(request):
    pytest.importorskip({"lingua": "lingua", "langid": "py3langid"}[request.param], reason="needs the extra lid")
    return request.param


@pytest.fixture(scope="module")
def identify(name):
    return identifier(name, SENTENCES)


def test_a_short_sentence_is_named_with_its_certainty_each_in_its_place(identify):
    guesses = identify(list(SENTENCES.values()))
    assert [guess.language for guess in guesses] == list(SENTENCES)
    assert all(0.3 <= guess.certainty <= 1 for guess in guesses)
    alone = [identify([text])[0] for text in SENTENCES.values()]
    assert [guess.certainty for guess in alone] == pytest.approx([guess.certainty for guess in guesses])


def test_a_text_in_a_neighbour_is_not_taken_for_a_language_in_play(identify):
    assert [guess.language for guess in identify(list(NEIGHBOURING.values()))] == list(NEIGHBOURING)


@pytest.mark.parametrize("text", ["", "   ", "1234 + 5678", "…?!"])
def test_what_holds_no_words_is_in_no_language(identify, text):
    (guess,) = identify([text])
    assert guess.language is None
    assert guess.certainty < 0.3


def test_no_texts_have_no_guesses(identify):
    assert identify([]) == []


def test_a_language_is_named_from_the_threshold_on_and_not_under_it(name, identify):
    text = SENTENCES["id"]  # close to Malay, so far from certain
    (plain,) = identify([text])
    assert plain.certainty < 0.99
    for unknown, language in ((plain.certainty * 0.999, "id"), (plain.certainty * 1.001, None)):
        (guess,) = IDENTIFIERS[name](SENTENCES, unknown=unknown)([text])
        assert guess == Guess(language, pytest.approx(plain.certainty))


def test_scripts_and_regions_are_left_out(name):
    guesses = identifier(name, ["zh-Hant", "fr-CA", "eng_Latn"])([SENTENCES["zh"], SENTENCES["fr"], SENTENCES["en"]])
    assert [guess.language for guess in guesses] == ["zh", "fr", "en"]
    assert base("zho_Hant") == "zh"


@pytest.mark.parametrize("languages", [["en"], ["en", "fr", "de"], ["zh-Hant", "zh", "fr-x-made"], list(SENTENCES)])
def test_candidates_are_those_in_play_once_each_and_at_least_15_neighbours(languages):
    found = candidates(languages)
    assert len(NEIGHBOURS) >= 15
    assert len(set(found)) == len(found)
    assert set(found) == {code.split("-")[0] for code in languages} | set(NEIGHBOURS)


# --- what is refused ---


def test_a_language_that_cannot_be_identified_is_named_with_what_to_do(name):
    with pytest.raises(OptionError, match=r"tlh\b.*give another identifier"):
        identifier(name, ["en", "tlh"])


@pytest.mark.parametrize(("name", "package"), [("lingua", "lingua-language-detector"), ("langid", "py3langid")])
def test_a_missing_package_is_named_with_how_to_install_it(monkeypatch, name, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(OptionError, match=rf'{package}.*pip install "\.\[lid\]"'):
        identifier(name, ["en"])


def test_an_identifier_there_is_not_is_refused_with_those_there_are():
    with pytest.raises(OptionError, match=r"'nobody'.*lingua or langid"):
        identifier("nobody", ["en"])


def test_a_short_question_is_in_a_recorded_language_and_not_in_one_that_nobody_recorded():
    """Among all neighbours the first is in no language for certain and the second in Latin."""
    pytest.importorskip("lingua", reason="needs the extra lid")
    asked = ["How do I write a for loop in Python?", "What is photosynthesis?", "Qu'est-ce que la photosynthèse ?"]
    tell = Teller(["en", "fr-x-mine", "es", "de"])
    assert tell.sources(asked, "es") == ["en", "en", "fr-x-mine"]
    assert tell.sources(["1234 + 5678"], "es") == [None]
    assert tell.sources(["Les enfants jouent dans le jardin."], "fr-x-mine") == [
        "fr-x-mine"
    ]  # for the caller to refuse
    assert tell("Дети каждый день играют в саду за домом.").language == "ru"
    assert tell(" ") == Guess(None, 0.0)
