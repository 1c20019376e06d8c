"""A text in another language than it was given as is noticed where it is read, whoever reads it; texts that are right are not."""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import pytest

from lape.data import samples
from lape.data.corpus import TextOptions, prepare
from lape.data.text_language import Sample, warn_of_other_language
from lape.data.texts import Documents
from lape.errors import LapeWarning
from support.tiny import tiny_tokenizer

pytest.importorskip("py3langid", reason="needs the extra lid")

TEXTS = {
    language: [line for one in text.texts for line in one.split("\n") if len(line) > 20]
    for language, text in samples.texts("all").items()
}
SHARED = Path(__file__).parents[3] / "shared" / "data"
"""NTREX and FLORES in 11 languages, where they lie beside the repository."""
WRITTEN = sorted(SHARED.glob("ntrex/*.txt")) + sorted(SHARED.glob("flores/*.txt"))
HINDI = "भारत में कई भाषाएँ बोली जाती हैं, और हर राज्य की अपनी संस्कृति, अपना भोजन और अपने त्योहार होते हैं।"


def said_of(language: str, documents: Sequence[str]) -> list[str]:
    """The warnings of a text."""
    sample = Sample()
    for pieces in sample.watch(iter([one]) for one in documents):
        list(pieces)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        warn_of_other_language(language, sample, "text.txt")
    return [str(one.message) for one in found]


@pytest.mark.parametrize("language", TEXTS)
def test_bundled_texts_are_in_their_languages(language: str) -> None:
    assert said_of(language, TEXTS[language]) == []
    assert said_of(language, ["\n".join(TEXTS[language])]) == []


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_translated_texts_are_in_their_languages_and_no_others(path: Path) -> None:
    content = path.read_text(encoding="utf-8")
    started = time.perf_counter()
    assert said_of(path.stem, [content]) == []
    assert time.perf_counter() - started < 2
    others = sorted({one.stem for one in WRITTEN} - {path.stem})
    for language in others:
        (said,) = said_of(language, [content])
        assert said.startswith(f"The text for {language} (text.txt) looks like {path.stem}: ")
        assert f"({path.stem}=PATH)" in said


@pytest.mark.parametrize(("language", "other"), permutations(TEXTS, 2))
def test_every_swapped_text_is_warned_of(language: str, other: str) -> None:
    (said,) = said_of(language, TEXTS[other])
    assert f"The text for {language} (text.txt) looks like {other}" in said


@pytest.mark.parametrize(("share", "warned"), [(0.02, False), (0.1, True), (0.3, True)])
def test_another_language_within_a_text_is_warned_of_from_a_twentieth(share: float, warned: bool) -> None:
    lines = [*TEXTS["fr"][: round(200 * (1 - share))], *TEXTS["en"][: round(200 * share)]]
    exact = sum(map(len, TEXTS["en"][: round(200 * share)])) / sum(map(len, lines))
    random.Random(0).shuffle(lines)
    found = said_of("fr", lines)
    assert bool(found) is warned
    if found:
        assert "of the text for fr (text.txt) looks like en" in found[0]
        assert abs(int(found[0].split("%")[0].split()[-1]) / 100 - exact) < 0.04


SILENT = {
    "a short text": ("fr", TEXTS["en"][:5]),
    "nothing": ("fr", [""]),
    "signs": ("fr", ["." * 5000, "🙂" * 900]),
    "halves of characters": ("fr", ["\ud83d" * 99] * 99),
    "toy words": ("fr", [" ".join(f"fr{(7 * k + j) % 40:02}" for j in range(9)) for k in range(300)]),
    "code": ("fr", [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parents[2].glob("src/lape/store/*.py"))]),
    "a private tag": ("fr-x-mine", TEXTS["en"]),
    "another script": ("hi-Latn", TEXTS["en"]),
    "an unknown language": ("tlh", TEXTS["en"]),
    "one that is taken for it": ("ms", TEXTS["id"]),
    "marks on letters": ("hi", [f"{HINDI} {HINDI}"] * 60),
}  # fmt: skip


@pytest.mark.parametrize("what", SILENT)
def test_nothing_is_said_where_nothing_can_be_told(what: str) -> None:
    assert said_of(*SILENT[what]) == []


def test_marks_on_letters_are_no_signs() -> None:
    (said,) = said_of("fr", [f"{HINDI} {HINDI}"] * 60)
    assert "looks like hi" in said


def test_whoever_reads_a_text_looks_at_its_language(tmp_path: Path) -> None:
    (tmp_path / "swapped.txt").write_text("\n".join(TEXTS["en"]), encoding="utf-8")
    with pytest.warns(LapeWarning, match=r"The text for fr \(.*swapped\.txt\) looks like en: 9\d%"):
        prepare("fr", str(tmp_path / "swapped.txt"), tiny_tokenizer(), TextOptions(document="line"))
    with pytest.warns(LapeWarning, match=r"The text for fr \(the documents given\) looks like en"):
        prepare("fr", Documents(TEXTS["en"]), tiny_tokenizer(), TextOptions())


def test_without_the_package_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lape.data.text_language.lacking", lambda *_: "needs it")
    assert said_of("fr", TEXTS["en"]) == []
