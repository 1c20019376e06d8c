"""Language tags: BCP-47, checked by a library; FLORES codes are translated."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import langcodes

from lape.errors import TextError

T = TypeVar("T")
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


def tag(code: str) -> str:
    """The standard BCP-47 tag of a code: `fr`, `zh-Hant`, `fr-x-shuffled`; `fra_Latn` becomes `fr`.

    Dialect codes stay what they are (`arb` is not widened to `ar`, where `ary` would land too).
    Raises TextError for anything that is no registered language.

    Example:
        >>> from lape.data.languages import tag
        >>> [tag(code) for code in ("fra_Latn", "zho_Hant", "arb", "FR-x-Shuffled")]
        ['fr', 'zh-Hant', 'arb', 'fr-x-shuffled']
    """
    try:
        standard = langcodes.standardize_tag(_without_usual_script(code.strip()), macro=False)
        valid = langcodes.tag_is_valid(standard)
    except (ValueError, LookupError):
        valid = False
    if not valid:
        raise TextError(
            f"{code!r} is not a language tag. Expected BCP-47 such as fr, zh-Hant, hi-Latn or fr-x-mine, "
            "or a FLORES code such as fra_Latn."
        )
    return standard


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
