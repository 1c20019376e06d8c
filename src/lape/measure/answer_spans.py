"""Stretches of an answer that are in another language than the one asked for: sentences, clauses, and runs in another script."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

from lape.data.language_id import Guess, Identifier, alike
from lape.data.languages import script

MIXED = 0.1
"""An answer with this share of its letters in foreign spans is mixed; or with one whole sentence."""
SIGNS = 5
"""The shortest run in a script without spaces: longer than most names and quoted words."""
WORDS = 3
"""The shortest run in a script with spaces; two of its words must begin without a capital, since others may be names."""
SENTENCE_WORDS, SENTENCE_LETTERS, SENTENCE_SIGNS = 5, 20, 8
"""The shortest piece in the target's own script that identifiers are asked about: words and letters, or signs."""
DENSE_SIGN = 2.5
"""Letters that a sign stands for where one writes a syllable or a word (10 letters make an answer, or 4 signs)."""

Place: TypeAlias = tuple[int, int]
_OWN = {
    "Latn": {"LATIN"},
    "Cyrl": {"CYRILLIC"},
    "Grek": {"GREEK"},
    "Arab": {"ARABIC"},
    "Hebr": {"HEBREW"},
    "Deva": {"DEVANAGARI"},
    "Thai": {"THAI"},
    "Hans": {"CJK", "BOPOMOFO"},
    "Hant": {"CJK", "BOPOMOFO"},
    "Jpan": {"CJK", "HIRAGANA", "KATAKANA"},
    "Kore": {"HANGUL"},
}
"""ISO 15924 -> how Unicode names the letters of a script. In others no letter is foreign by its script."""
_KANA = {"HIRAGANA", "KATAKANA"}
_UNSPACED = {"CJK", "BOPOMOFO", "THAI", *_KANA}
_DENSE = {"CJK", "BOPOMOFO", "HANGUL", *_KANA}
_LANGUAGE = {"HIRAGANA": "ja", "KATAKANA": "ja", "HANGUL": "ko", "CJK": "zh"}
"""The language of a run, where a script has but one."""
_SENTENCE = re.compile(r"(?:[^.!?。！？…\n]|\.(?=\w))+[.!?。！？…]*")
_CLAUSE = re.compile(r"[^,;:，、；：()（）«»“”\"]+")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


@dataclass(frozen=True)
class Span:
    """A stretch of an answer in another language than the one asked for."""

    start: int
    end: int
    """Where it begins and ends in the answer, in characters."""
    language: str | None
    """The language it seems to be in; None where only its script tells that it is another's."""
    whole: bool
    """Whether it is a whole sentence."""


def spans(answers: Sequence[str], target: str, first: Identifier, second: Identifier) -> list[list[Span]]:
    """The foreign spans of each answer, in order, none within another.

    By script, exactly: a run of letters of another script than the target's (kana in Chinese, too) of at least 5 signs, in Korean letters also 2 words, or
    3 words, of which 2 begin without a capital. Within the script: a sentence, or where that is not foreign a clause of it, of at least 5 words and 20
    letters (8 signs) that both identifiers call the same other language; languages that are taken for one another on short text (Malay and
    Indonesian) are the same. So names, quoted words and digits do not count. Han signs tell no Chinese from another Chinese.

    Example:
        >>> from lape.data.language_id import Guess
        >>> from lape.measure.answer_spans import spans
        >>> answer = "Il fait beau. 今天天气很好，我们去公园吧。"
        >>> nobody = lambda texts: [Guess(None, 0.0) for _ in texts]
        >>> [(answer[one.start : one.end], one.language, one.whole) for one in spans([answer], "fr", nobody, nobody)[0]]
        [('今天天气很好，我们去公园吧', 'zh', True)]
    """
    own = _OWN.get(script(target) or "")
    found: list[list[Span]] = [_by_script(answer, own) for answer in answers]
    sentences = [_outside(_pieces(_SENTENCE, answer), some) for answer, some in zip(answers, found, strict=True)]
    left = _by_language(answers, sentences, target, (first, second), found, whole=True)
    clauses = [
        [place for start, end in some for place in _pieces(_CLAUSE, answer, start, end) if place != (start, end)]
        for answer, some in zip(answers, left, strict=True)
    ]
    _by_language(answers, clauses, target, (first, second), found, whole=False)
    return [sorted(some, key=lambda one: one.start) for some in found]


def foreign(answer: str, found: Sequence[Span]) -> float:
    """The share of an answer's letters that lie in its foreign spans, 0 to 1; a sign of a script with one for each syllable or word counts as 2.5."""
    weights = [_weight(sign) for sign in answer]
    inside = sum(sum(weights[one.start : one.end]) for one in found)
    return inside / sum(weights) if any(weights) else 0.0


def mixed(answer: str, found: Sequence[Span]) -> bool:
    """Whether an answer is in more than one language: a whole sentence of it, or a tenth of its letters, is in another."""
    return any(one.whole for one in found) or foreign(answer, found) >= MIXED


def _weight(sign: str) -> float:
    if not sign.isalpha():
        return 0.0
    return DENSE_SIGN if script_of(sign) in _DENSE else 1.0


@cache
def script_of(sign: str) -> str:
    """The script of a letter, as its Unicode name begins; empty for what is no letter, or of no script."""
    if not sign.isalpha():
        return ""
    words = unicodedata.name(unicodedata.normalize("NFKC", sign)[0], "").replace("-", " ").split()
    return {"IDEOGRAPHIC": "CJK", "MODIFIER": "", "MATHEMATICAL": ""}.get(words[0], words[0]) if words else ""


def _pieces(pattern: re.Pattern[str], text: str, start: int = 0, end: int | None = None) -> Iterator[Place]:
    """The pieces of a text that hold letters, from the first of them to the last."""
    for found in pattern.finditer(text, start, len(text) if end is None else end):
        letters = [at for at in range(*found.span()) if text[at].isalpha()]
        if letters:
            yield letters[0], letters[-1] + 1


def _by_script(answer: str, own: set[str] | None) -> list[Span]:
    if own is None:
        return []
    return [span for start, end in _pieces(_SENTENCE, answer) for span in _runs(answer, start, end, own)]


def _runs(answer: str, start: int, end: int, own: set[str]) -> list[Span]:
    """The foreign runs of a sentence."""
    letters = [(at, script_of(answer[at])) for at in range(start, end) if script_of(answer[at])]
    runs: list[list[tuple[int, str]]] = []
    before = True  # whether the last letter was the target's
    for at, of in letters:
        if of in own:
            before = True
            continue
        if before:
            runs.append([])
        runs[-1].append((at, of))
        before = False
    kana = sum(of in _KANA for _, of in letters)
    if "CJK" in own and not own & _KANA and kana >= WORDS and sum(run[0][1] in _KANA for run in runs) > 1:
        return [Span(start, end, "ja", whole=True)]  # particles among Han signs
    found = []
    for run in runs:
        first, last = run[0][0], run[-1][0] + 1
        scripts = {of for _, of in run}
        if _long(answer[first:last], len(run), scripts):
            japanese = bool(scripts & _KANA)
            language = "ja" if japanese else _LANGUAGE.get(run[0][1]) if len(scripts) == 1 else None
            found.append(Span(first, last, language, whole=len(run) == len(letters)))
    return found


def _long(text: str, letters: int, scripts: set[str]) -> bool:
    """Whether a run is longer than a name or a quoted word."""
    words = [word for word in _WORD.findall(text) if len(word) > 1]  # single letters may be formulas
    if scripts & _UNSPACED:
        return letters >= SIGNS
    if scripts == {"HANGUL"}:
        return letters >= SIGNS and len(words) >= 2
    return len(words) >= WORDS and _lower(words) >= 2


def _lower(words: Sequence[str]) -> int:
    return sum(not word[0].isupper() for word in words)


def _outside(places: Iterator[Place], found: Sequence[Span]) -> list[Place]:
    """The pieces that are not foreign as a whole already."""
    known = {(one.start, one.end) for one in found if one.whole}
    return [place for place in places if place not in known]


def _by_language(
    answers: Sequence[str],
    places: Sequence[Sequence[Place]],
    target: str,
    identifiers: tuple[Identifier, Identifier],
    found: list[list[Span]],
    *,
    whole: bool,
) -> list[list[Place]]:
    """Adds to `found` the pieces that both identifiers call the same other language; gives back the others."""
    asked = [(k, place) for k, some in enumerate(places) for place in some if _worth_asking(answers[k][slice(*place)])]
    texts = [answers[k][slice(*place)] for k, place in asked]
    first, second = identifiers
    mine = first(texts) if texts else []
    doubted = [at for at, guess in enumerate(mine) if guess.language and guess.language not in alike(target)]
    theirs = dict(zip(doubted, second([texts[at] for at in doubted]), strict=True)) if doubted else {}
    told = {asked[at]: _other(mine[at], theirs[at], target) for at in doubted}
    left: list[list[Place]] = [[] for _ in answers]
    for k, some in enumerate(places):
        for place in some:
            language = told.get((k, place))
            if language is None:
                left[k].append(place)
                continue
            inner = [one for one in found[k] if place[0] <= one.start and one.end <= place[1]]
            found[k] = [one for one in found[k] if one not in inner]
            found[k].append(Span(*place, language, whole=whole))
    return left


def _worth_asking(text: str) -> bool:
    signs = 0 if text.isascii() else sum(script_of(sign) in _UNSPACED for sign in text)
    if signs >= SENTENCE_SIGNS:
        return True
    words = _WORD.findall(text)
    letters = sum(sign.isalpha() for sign in text)
    return len(words) >= SENTENCE_WORDS and letters >= SENTENCE_LETTERS and _lower(words) >= WORDS


def _other(first: Guess, second: Guess, target: str) -> str | None:
    """The language other than the target that both name."""
    if first.language is None or second.language is None or second.language not in alike(first.language):
        return None
    return None if first.language in alike(target) else first.language
