"""Likeness of languages by family, script and tokens."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import langcodes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.data.languages import tag
from lape.errors import OptionError, TextError
from lape.experiments.overlap import genealogy
from lape.experiments.overlap.genealogy import kinship, path
from lape.experiments.overlap.relations import relations, token_overlap

LAW = settings(deadline=None, max_examples=40)
KNOWN = "en zh fr es vi id ja de ru ar ko pt it nl pl tr fa hi bn ta te th sw he el hu fi cs uk ro"
IN_TABLE = sorted(code for codes in genealogy._BRANCHES.values() for code in codes.split())


# Families


def test_the_table_holds_every_language_once_under_its_standard_name():
    assert len(IN_TABLE) >= 60
    assert [code for code, times in Counter(IN_TABLE).items() if times > 1] == []
    assert [code for code in IN_TABLE if tag(code) != code] == []
    assert [code for code in IN_TABLE if not langcodes.tag_is_valid(code)] == []


def test_widely_used_languages_have_a_place():
    assert [language for language in KNOWN.split() if path(language) is None] == []


def test_a_path_runs_from_the_family_to_the_language():
    assert path("fr") == ("Indo-European", "Italic", "Romance", "Western", "Gallo", "fr")
    assert path("ja") == ("Japonic", "ja")


@pytest.mark.parametrize(
    ("tag_", "same"),
    [
        ("zh-Hant", "zh"),
        ("fr-x-shuffled", "fr"),
        ("hi-Latn", "hi"),
        ("fra_Latn", "fr"),
        ("arb_Arab", "ar"),
        ("zsm", "ms"),
        ("lvs", "lv"),
        ("pt-BR", "pt"),
    ],
)
def test_script_region_and_private_use_do_not_move_a_language(tag_, same):
    assert path(tag_) == path(same)
    assert kinship(tag_, same) == 1


def test_a_language_without_a_place_is_alike_to_none_not_even_unlike():
    assert path("eo") is None
    assert kinship("eo", "fr") is None
    assert kinship("fr", "eo") is None


def test_no_tag_is_refused():
    with pytest.raises(TextError, match="klingonish"):
        relations(["en", "klingonish"])


@pytest.mark.parametrize(
    ("closer", "further"),
    [
        (("fr", "es"), ("fr", "ro")),
        (("fr", "ro"), ("fr", "en")),
        (("fr", "en"), ("fr", "fi")),
        (("en", "de"), ("en", "sv")),
        (("en", "sv"), ("en", "ru")),
        (("ru", "uk"), ("ru", "pl")),
        (("ru", "pl"), ("ru", "lt")),
        (("id", "ms"), ("id", "fil")),
        (("zh", "yue"), ("zh", "my")),
        (("zh", "my"), ("zh", "vi")),
        (("hi", "ur"), ("hi", "bn")),
        (("hi", "fa"), ("hi", "ta")),
        (("ar", "he"), ("ar", "ha")),
        (("fi", "et"), ("fi", "hu")),
        (("fi", "hu"), ("fi", "sv")),
    ],
)
def test_closer_relatives_are_more_alike(closer, further):
    assert kinship(*closer) > kinship(*further)


@pytest.mark.parametrize(
    ("a", "b"), [("ja", "ko"), ("ja", "zh"), ("vi", "zh"), ("vi", "id"), ("en", "hu"), ("eu", "es")]
)
def test_different_families_have_nothing_in_common(a, b):
    assert kinship(a, b) == 0


def test_the_share_of_the_path():
    # Indo-European/Italic/Romance/Western of 6 and 6 steps.
    assert kinship("fr", "es") == 8 / 12
    assert kinship("en", "de") == 6 / 10


@LAW
@given(st.lists(st.sampled_from(IN_TABLE), min_size=1, max_size=6, unique=True))
def test_likenesses_are_symmetric_and_1_only_for_the_same_language(languages):
    for name, matrix in relations(languages).items():
        assert matrix.shape == (len(languages),) * 2
        assert (matrix == matrix.T).all()
        assert (np.diag(matrix) == 1).all()
        assert ((matrix >= 0) & (matrix <= 1)).all()
        if name == "genealogy":
            assert all(matrix[i, j] < 1 for i, j in combinations(range(len(languages)), 2))


def test_what_is_not_known_is_nan_for_that_language_alone():
    matrix = relations(["en", "eo", "fr"])["genealogy"]
    assert np.isnan(matrix).tolist() == [[False, True, False], [True] * 3, [False, True, False]]
    assert not np.isnan(relations(["en", "eo", "fr"])["script"]).any()


# Scripts


@pytest.mark.parametrize(
    ("a", "b", "alike"),
    [
        ("en", "vi", 1),
        ("ru", "bg", 1),
        ("en", "ru", 0),
        ("ja", "zh", 1 / 3),
        ("ja", "zh-Hant", 1 / 3),
        ("zh-Hans", "zh-Hant", 1),
        ("ko", "zh", 1 / 2),
        ("ko", "ja", 1 / 4),
        ("hi", "mr", 1),
        ("hi-Latn", "hi", 0),
        ("hi-Latn", "en", 1),
        ("sr-Latn", "hr", 1),
        ("sr", "hr", 0),
    ],
)
def test_scripts_are_compared_as_sets(a, b, alike):
    assert relations([a, b])["script"][0, 1] == pytest.approx(alike)


# Tokens


COUNTS = st.dictionaries(st.integers(0, 12), st.integers(1, 50), min_size=1, max_size=8)


@LAW
@given(COUNTS, COUNTS)
def test_token_overlap_is_the_weighted_jaccard_of_the_shares(a, b):
    p, q = ({k: n / sum(one.values()) for k, n in one.items()} for one in (a, b))
    low = sum(min(p.get(k, 0), q.get(k, 0)) for k in {*p, *q})
    high = sum(max(p.get(k, 0), q.get(k, 0)) for k in {*p, *q})
    matrix = token_overlap({"en": a, "fr": b})
    assert matrix[0, 1] == pytest.approx(low / high)
    assert matrix[0, 1] == matrix[1, 0]
    assert matrix[0, 0] == 1


@LAW
@given(COUNTS, COUNTS, st.integers(2, 100))
def test_the_amount_of_text_does_not_count(a, b, times):
    more = {k: n * times for k, n in a.items()}
    assert token_overlap({"en": more, "fr": b})[0, 1] == pytest.approx(token_overlap({"en": a, "fr": b})[0, 1])


@LAW
@given(COUNTS, COUNTS)
def test_counts_by_id_and_as_an_array_are_the_same(a, b):
    as_array = np.zeros(max(a) + 1, np.int64)
    as_array[list(a)] = list(a.values())
    assert (token_overlap({"en": as_array, "fr": b}) == token_overlap({"en": a, "fr": b})).all()


def test_texts_without_a_token_in_common_have_none():
    assert token_overlap({"en": {1: 5}, "fr": {2: 1}, "zh": [0, 1, 0, 3]}).tolist() == [
        [1, 0, pytest.approx(0.25 / 1.75)],
        [0, 1, 0],
        [pytest.approx(0.25 / 1.75), 0, 1],
    ]


@pytest.mark.parametrize("counts", [{}, [], [0, 0], {3: 0}, {-1: 2}, {1: -2, 2: 9}, [[1, 2]]])
def test_what_is_no_count_of_tokens_is_refused_naming_the_language(counts):
    with pytest.raises(OptionError, match="fr"):
        token_overlap({"en": {1: 1}, "fr": counts})
