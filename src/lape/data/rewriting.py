"""The same sentences written differently: in another script, in another order, or with noise. Needs the extra `variants`."""

from __future__ import annotations

import importlib
import random
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from types import ModuleType
from typing import Any, Literal, get_args

import langcodes
import numpy as np
from numpy.typing import NDArray

from lape.data.language_id import base
from lape.data.languages import script, tag
from lape.errors import OptionError
from lape.extras import lacking, need

Writing = Literal["romanised", "converted", "shuffled", "noised"]
"""Ways of writing a text differently."""
CHINESE = ("zh", "cmn")
UNSPACED = ("Hans", "Hant", "Hani", "Jpan", "Thai", "Laoo", "Khmr", "Mymr", "Tibt")
"""Scripts written without spaces between words."""
_HAN = re.compile("[〇㐀-䶿一-鿿豈-\ufaff\U00020000-\U000323af]+")
_QUOTES = str.maketrans("《》〈〉「」『』", "“”‘’“”‘’")
_CONVERSIONS = {"zh-Hans": "t2s", "zh-Hant": "s2t"}


def variant_tag(language: str, kind: str) -> str:
    """The tag of a language's variant: `hi-Latn`, `zh-Hant` (and back, `zh-Hans`), `fr-x-shuffled`, `zh-x-noised`.

    What is written in Latin letters already and loses its diacritics is `fr-x-ascii`. Raises OptionError for a kind that there
    is not, or where nothing can be converted.
    """
    if kind not in get_args(Writing):
        raise OptionError(f"There is no kind of rewriting {kind!r}. Expected {', '.join(get_args(Writing))}.")
    if kind == "converted":
        return _with_script(language, "Hans" if _converted_from(language) == "Hant" else "Hant")
    if kind == "romanised" and script(language) != "Latn":
        return _with_script(language, "Latn")
    return private_tag(language, "ascii" if kind == "romanised" else kind)


def private_tag(language: str, name: str) -> str:
    """A language's tag with a private part: `fr-x-mine`; one more where it has one."""
    standard = tag(language)
    return tag(f"{standard}-{name}" if "-x-" in standard else f"{standard}-x-{name}")


def _with_script(language: str, other: str) -> str:
    changed = langcodes.Language.get(tag(language)).update(langcodes.Language.make(script=other))
    return tag(changed.to_tag())


def _converted_from(language: str) -> str:
    written = script(language)
    if base(language) not in CHINESE or written not in ("Hans", "Hant"):
        raise OptionError(f"{language} cannot be converted to another script. Expected zh, zh-Hans or zh-Hant.")
    return written


def romanised(lines: Iterable[str], language: str) -> tuple[list[str], str]:
    """Lines in Latin letters, and what did it.

    Chinese: pypinyin, without tones, each syllable a word. Japanese: cutlet, Hepburn, foreign words as they sound and not in
    English spelling. Everything else: anyascii, letter by letter, so that Latin text loses its diacritics; letters of scripts
    without capitals become small ones. Punctuation that Latin text uses too stays, other punctuation becomes the Latin one.
    Raises OptionError naming the extra where a library is missing, TextError for a language that is none.

    Example:
        >>> from lape.data.rewriting import romanised
        >>> romanised(["北京欢迎你。"], "zh")
        (['bei jing huan ying ni.'], 'pypinyin')
        >>> romanised(["Привет, мир!"], "ru")
        (['Privet, mir!'], 'anyascii')
    """
    latin = script(language) == "Latn"
    if base(language) in CHINESE and not latin:
        return [_pinyin(line) for line in lines], "pypinyin"
    if base(language) == "ja" and not latin:
        return [_hepburn(line) for line in lines], "cutlet"
    return [_latin(line) for line in lines], "anyascii"


def converted(lines: Iterable[str], to: str) -> tuple[list[str], str]:
    """Chinese lines in the other script, and what did it: `to` is zh-Hans or zh-Hant. By OpenCC, which knows words, not only
    characters. Raises OptionError for another target, or naming the extra where OpenCC is missing.

    Example:
        >>> from lape.data.rewriting import converted
        >>> converted(["头发"], "zh-Hant")
        (['頭髮'], 'OpenCC s2t')
    """
    rule = _CONVERSIONS.get(tag(to))
    if rule is None:
        raise OptionError(f"Text cannot be converted to {to}. Expected {' or '.join(_CONVERSIONS)}.")
    converter = library("opencc").OpenCC(rule)
    return [str(converter.convert(line)) for line in lines], f"OpenCC {rule}"


def shuffled(lines: Iterable[str], language: str, seed: int) -> tuple[list[str], str]:
    """Each line's words in random order, and what a word is.

    Words are what stands between white space; in Japanese fugashi finds them; in other scripts without spaces between words
    (Chinese, Thai) single characters are shuffled, with the marks on them. A line's order depends on the seed and the line alone.
    Raises OptionError naming the extra where fugashi is missing, TextError for a language that is none.

    Example:
        >>> from lape.data.rewriting import shuffled
        >>> lines, unit = shuffled(["the same words in another order"], "en", 0)
        >>> sorted(lines[0].split()), unit
        (['another', 'in', 'order', 'same', 'the', 'words'], 'words')
    """
    written = script(language)
    if written == "Jpan":
        return [_reordered(_japanese_words(line), seed, line) for line in lines], "words by fugashi"
    if written in UNSPACED:
        return [_reordered(_characters(line), seed, line) for line in lines], "characters"
    return [_reordered(line.split(), seed, line, " ") for line in lines], "words"


def noised(lines: Sequence[str], rate: float, seed: int) -> list[str]:
    """Lines with a share `rate` (0 to 1) of their letters replaced by others, drawn as often as the text has them.

    All else stays: script, word lengths, punctuation. With one seed, what is replaced at a lower rate is replaced by the same
    letters at a higher one. A text of a single letter stays what it is. Raises OptionError for a rate that is no share.

    Example:
        >>> from lape.data.rewriting import noised
        >>> line = "about three letters in ten are others"
        >>> noisy = noised([line], 0.3, seed=0)[0]
        >>> sum(a != b for a, b in zip(line, noisy)), [len(word) for word in noisy.split()]
        (9, [5, 5, 7, 2, 3, 3, 6])
    """
    if not 0 <= rate <= 1:
        raise OptionError(f"The rate of noise is {rate}. Expected a share from 0 to 1.")
    text = "".join(lines)
    places = np.array([k for k, character in enumerate(text) if character.isalpha()], dtype=np.int64)
    letters = np.array([ord(text[k]) for k in places], dtype=np.int64)
    generator = np.random.default_rng(seed)
    order, others = generator.permutation(len(letters)), _others(letters, generator)
    characters = list(text)
    for k in order[: round(rate * len(letters))]:
        characters[places[k]] = chr(others[k])
    ends = np.cumsum([len(line) for line in lines])
    return ["".join(characters[end - len(line) : end]) for line, end in zip(lines, ends, strict=True)]


def equal_noise(
    lines: Sequence[str],
    nats: Callable[[Sequence[str]], float],
    wanted: float,
    *,
    seed: int,
    steps: int = 8,
) -> tuple[list[str], float, bool]:
    """The noise at which a text costs as much as another: the lines, the rate, and whether it reaches what is wanted.

    `nats`: lines -> mean nats per sentence; `wanted`: the mean nats per sentence to reach. Found by halving the range of rates
    `steps` times, so to 1 / 2^steps. Where even rate 1 costs less, or rate 0 more, that rate comes back, and False.

    Example:
        >>> import torch
        >>> from lape.data.rewriting import equal_noise
        >>> def nats(lines):
        ...     rows = [tokenizer(line, return_tensors="pt").input_ids for line in lines]
        ...     with torch.no_grad():
        ...         return sum(float(model(ids, labels=ids).loss) * (ids.shape[1] - 1) for ids in rows) / len(rows)
        >>> lines = texts["en"].texts[:6]
        >>> noisy, rate, reached = equal_noise(lines, nats, 1.1 * nats(lines), seed=0)
        >>> reached, abs(nats(noisy) / nats(lines) - 1.1) < 0.02
        (True, True)
    """
    if nats(lines) > wanted:
        return list(lines), 0.0, False
    most = noised(lines, 1.0, seed)
    if nats(most) < wanted:
        return most, 1.0, False
    low, high = 0.0, 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if nats(noised(lines, middle, seed)) < wanted else (low, middle)
    rate = (low + high) / 2
    return noised(lines, rate, seed), rate, True


def library(name: str) -> ModuleType:
    """A library of the extra. Raises OptionError naming the extra where it is missing."""
    need("variants", "Writing this text differently", name)
    return importlib.import_module(name)


def libraries_missing() -> str | None:
    """What is to be installed before every writing can be made, or None."""
    names = ("pypinyin", "anyascii", "opencc", "cutlet", "fugashi", "unidic_lite")
    return lacking("variants", "rewriting text", *names)


def _latin(line: str) -> str:
    return "".join(map(_letter, unicodedata.normalize("NFC", line)))


@cache
def _letter(character: str) -> str:
    common = character < "\u0300" or "\u2000" <= character < "\u2e00"
    if common and unicodedata.category(character)[0] in "NPSZ":
        return character
    ascii_: str = library("anyascii").anyascii(character)
    return ascii_.lower() if character.lower() == character.upper() else ascii_


def _pinyin(line: str) -> str:
    pinyin = library("pypinyin").lazy_pinyin
    pieces: list[str] = []
    at = 0
    for run in _HAN.finditer(line):
        pieces += [*_between(line[at : run.start()]), *pinyin(run[0], v_to_u=True)]
        at = run.end()
    return _spaced([*pieces, *_between(line[at:])])


def _between(text: str) -> list[str]:
    """What stands between Chinese characters: full-width punctuation piece by piece, the rest as it is."""
    return [_latin(piece) for piece in re.findall("[\u2e00-\uffff“”]|[^\u2e00-\uffff“”]+", text.translate(_QUOTES))]


def _spaced(pieces: list[str]) -> str:
    """Pieces with a space wherever a word or an opening bracket follows, but not after an opening one or inside a name."""
    out = ""
    for piece in filter(None, pieces):
        apart = unicodedata.category(piece[0]) in ("Ps", "Pi", "Sc") or piece[0].isalnum()
        closed = bool(out) and not out[-1].isspace() and out[-1] != "·"
        opened = closed and unicodedata.category(out[-1]) in ("Ps", "Pi")
        out += " " + piece if apart and closed and not opened else piece
    return out


@cache
def _cutlet() -> Any:
    library("unidic_lite")  # fugashi's own message, without a dictionary, is a page long
    return library("cutlet").Cutlet("hepburn", use_foreign_spelling=False, ensure_ascii=False)


def _hepburn(line: str) -> str:
    return _latin(_cutlet().romaji(line)) if line.strip() else line


@cache
def _tagger() -> Any:
    library("unidic_lite")
    return library("fugashi").Tagger()


def _japanese_words(line: str) -> list[str]:
    return [f"{word.white_space}{word.surface}" for word in _tagger()(line)]


def _characters(line: str) -> list[str]:
    """Characters with the marks that stand on them."""
    result: list[str] = []
    for character in line:
        if result and unicodedata.category(character)[0] == "M":
            result[-1] += character
        else:
            result.append(character)
    return result


def _reordered(words: list[str], seed: int, line: str, between: str = "") -> str:
    random.Random(f"{seed} {line}").shuffle(words)
    return between.join(words)


def _others(letters: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """For each letter another one, drawn from all letters that are not the same: the sorted letters less its own run."""
    kinds, which, counts = np.unique(letters, return_inverse=True, return_counts=True)
    if len(kinds) < 2:
        return letters
    ordered, starts = np.sort(letters), np.cumsum(counts) - counts
    drawn = generator.integers(0, len(letters) - counts[which])
    return ordered[drawn + np.where(drawn >= starts[which], counts[which], 0)]
