"""A corpus that holds another language is noticed."""

from __future__ import annotations

import pytest

from lape.data import contamination, samples
from lape.data.texts import Documents

pytest.importorskip("lingua", reason="needs the extra lid")

TEXTS = samples.texts("all")


def test_clean_texts_give_no_warning() -> None:
    assert contamination.warnings(dict(TEXTS)) == []


def test_english_inside_french_is_noticed_with_its_share() -> None:
    mixed = Documents([*TEXTS["fr"].texts[:40], *TEXTS["en"].texts[:10]])
    (warning,) = contamination.warnings({"fr": mixed, "zh": TEXTS["zh"]})
    assert "fr" in warning
    assert "en" in warning
    share = int(warning.split("%")[0].rsplit(maxsplit=1)[-1])
    assert 12 <= share <= 26


def test_a_language_the_identifier_does_not_know_is_passed_over() -> None:
    assert contamination.warnings({"fr-x-made": TEXTS["fr"], "tlh": TEXTS["en"]}) == []
