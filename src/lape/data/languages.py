"""Language tags: BCP-47, checked by a library; FLORES codes, names and regional tags are resolved."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import TypeVar

import langcodes
from langcodes.data_dicts import LANGUAGE_ALPHA3, LIKELY_SUBTAGS

from lape.errors import TextError
from lape.extras import lacking

T = TypeVar("T")
_NAMED = {*LANGUAGE_ALPHA3, "fil", "cmn", "yue"}
"""Languages that may be named by their names: those with a two-letter code and three more. Thousands of others share names with ordinary words."""
_LONGEST = 60
"""Characters of the longest name that is looked up."""
_FLORES = re.compile(r"([a-z]{3})_([A-Z][a-z]{3})")


def _without_usual_script(code: str) -> str:
    """A FLORES code always names a script; one that the language is usually written in goes without saying (not for Chinese,
    which has two).
    """
    flores = _FLORES.fullmatch(code)
    if not flores or flores[1] in ("zho", "cmn", "yue"):
        return code
    usual = langcodes.Language.get(flores[1]).maximize().script
    return flores[1] if flores[2] == usual or code == "kor_Hang" else code


@lru_cache(maxsize=4096)
def tag(code: str) -> str:
    """The tag by which lape knows a language: `fr`, `zh-Hant`, `fr-x-shuffled`.

    `code` is a BCP-47 tag, a FLORES code (`fra_Latn` becomes `fr`) or, where the package language_data is installed, a language's name in any
    language (`Vietnamese` and `Tiếng Việt` become `vi`). A region is dropped, but for the script that is usual there: `pt-BR` becomes `pt`, and `zh-TW`
    becomes `zh-Hant`. To keep two regional varieties apart, give them private tags: `pt-x-brazil`. Dialect codes stay as they are: `arb` is not
    widened to `ar`, where `ary` would land too. Raises TextError, with near languages where there are some, for anything that is no registered language.

    Example:
        >>> from lape.data.languages import tag
        >>> [tag(code) for code in ("fra_Latn", "zho_Hant", "zh-TW", "pt-BR", "arb", "FR-x-Shuffled")]
        ['fr', 'zh-Hant', 'zh-Hant', 'pt', 'arb', 'fr-x-shuffled']
    """
    given = code.strip()
    standard = _standardize(_without_usual_script(given)) or _find_by_name(given)
    if standard is None:
        near = suggest_tags(given)
        meant = f" Did you mean {' or '.join(near)}?" if near else ""
        names = lacking("lid", "Reading the name of a language", "language_data")
        raise TextError(
            f"{code!r:.60} is not a language tag.{meant} Expected BCP-47 such as fr, zh-Hant, hi-Latn or fr-x-mine, a FLORES code such as fra_Latn, "
            f"or a name such as French.{f' {names}' if names else ''}"
        )
    return _drop_region(standard)


def _standardize(code: str) -> str | None:
    """The standard form of a BCP-47 tag; None for what is none."""
    try:
        standard = langcodes.standardize_tag(code, macro=False)
        return standard if langcodes.tag_is_valid(standard) else None
    except (ValueError, LookupError):
        return None


def _find_by_name(name: str) -> str | None:
    """The standard tag of a language by its name in any language, if it is one of `_NAMED`. Fewer than four ASCII letters are no name."""
    if (name.isascii() and len(name) < 4) or len(name) > _LONGEST or not name.isprintable():
        return None
    try:
        found = langcodes.find(name)
    except (LookupError, ImportError):
        return None
    return _standardize(found.to_tag()) if found.language in _NAMED else None


def _drop_region(standard: str) -> str:
    """A standard tag without its region. Its script is named where it is not the language's usual one, or was named."""
    whole = langcodes.Language.get(standard)
    if whole.territory is None:
        return standard
    usual, there = (one.maximize().script for one in (langcodes.Language.get(str(whole.language)), whole))
    return whole.update_dict(
        {"territory": None, "script": whole.script or (there if there != usual else None)}
    ).to_tag()


def suggest_tags(code: str) -> list[str]:
    """At most two tags that somebody may have meant: the language of a country, for its code (`jp`), and languages with a similar name.

    Example:
        >>> from lape.data.languages import suggest_tags
        >>> suggest_tags("jp"), suggest_tags("Frensh")
        (['ja'], ['fr'])
    """
    if len(code) == 2:
        likely = LIKELY_SUBTAGS.get(f"und-{code.upper()}")
        return [likely.partition("-")[0]] if likely else []
    if lacking("lid", "", "language_data"):
        return []
    languages = [langcodes.Language.get(short) for short in sorted(_NAMED)]
    names = {name.casefold(): str(one.language) for one in languages for name in (one.display_name(), one.autonym())}
    return [*dict.fromkeys(names[name] for name in get_close_matches(code.casefold(), names, 2, 0.8))]


def check_tags(languages: Sequence[str]) -> Sequence[str]:
    """The languages of a file, if they are standard tags, each once, and at least one. Raises TextError for others."""
    if not languages or len(set(languages)) < len(languages) or any(tag(one) != one for one in languages):
        raise TextError(f"Its languages are {', '.join(languages) or 'none'}. Expected standard tags, each once.")
    return languages


def tagged(given: Mapping[str, T], twice: str) -> Iterator[tuple[str, T]]:
    """Standard tag and value of each. Raises TextError for a tag that is none, and for one that comes twice: `twice` says so, of {tag}."""
    seen = set()
    for code, value in given.items():
        standard = tag(code)
        if standard in seen:
            raise TextError(twice.format(tag=standard))
        seen.add(standard)
        yield standard, value


def paths_by_tag(option: str, words: Iterable[str], example: str) -> Iterator[tuple[str, str]]:
    """Language and path of each TAG=PATH that an option was given. Raises TextError for a word that names no path."""
    for word in words:
        language, equals, path = word.partition("=")
        if not equals or not path:
            raise TextError(f"{option} {word} has no path. Expected TAG=PATH, for example {example}.")
        yield language.strip(), path


def script(language: str) -> str | None:
    """The script that a language is written in, as the tag says or as is usual, in four letters of ISO 15924: `Latn`, `Jpan`, `Hans`.

    Raises TextError for anything that is no registered language.

    Example:
        >>> from lape.data.languages import script
        >>> [script(language) for language in ("hi", "hi-Latn", "zh", "zh-TW")]
        ['Deva', 'Latn', 'Hans', 'Hant']
    """
    return langcodes.Language.get(tag(language)).maximize().script
