"""Texts and questions written for this project, parallel in seven languages, split by number so that no translation crosses.

48 documents of 8 sentences: 28 to record, 20 to evaluate. 64 questions: 24 for development, 40 for reporting.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Literal

from lape.data.texts import Documents
from lape.errors import OptionError

LANGUAGES = ("en", "zh", "fr", "es", "vi", "id", "ja")
RECORDED, EVALUATED = 28, 20
DEVELOPMENT = 24
PARTS: tuple[Literal["record"], Literal["evaluate"]] = ("record", "evaluate")


def texts(part: Literal["record", "evaluate", "all"], documents: int | None = None) -> dict[str, Documents]:
    """Language -> documents of a part, at most `documents` of them. Document i says the same in every language.

    `part`: record (28 documents), evaluate (20 others) or all. Raises OptionError for another.

    Example:
        >>> from lape.data import samples
        >>> evaluated = samples.texts("evaluate", documents=5)
        >>> list(evaluated), len(evaluated["ja"].texts)
        (['en', 'zh', 'fr', 'es', 'vi', 'id', 'ja'], 5)
    """
    some = _part(part, {"record": slice(None, RECORDED), "evaluate": slice(RECORDED, None), "all": slice(None)})
    return {
        language: Documents(_read("texts", language).strip().split("\n\n")[some][:documents]) for language in LANGUAGES
    }


def questions(part: Literal["development", "reporting", "all"]) -> dict[str, list[str]]:
    """Language -> questions of a part. Question i asks the same in every language.

    `part`: development (24 questions), reporting (40 others) or all. Raises OptionError for another.

    Example:
        >>> from lape.data import samples
        >>> development = samples.questions("development")
        >>> development["en"][1], development["fr"][1]
        ('Why does the sky look blue during the day and red at sunset?', 'Pourquoi le ciel paraît-il bleu le jour et rouge au coucher du soleil ?')
    """
    some = _part(
        part, {"development": slice(None, DEVELOPMENT), "reporting": slice(DEVELOPMENT, None), "all": slice(None)}
    )
    return {language: _read("questions", language).split("\n")[:-1][some] for language in LANGUAGES}


def _part(name: str, parts: Mapping[str, slice]) -> slice:
    if name not in parts:
        raise OptionError(f"part is {name!r}. Expected {', '.join(parts)}.")
    return parts[name]


def _read(kind: str, language: str) -> str:
    return files("lape.data.samples").joinpath("bundled", kind, f"{language}.txt").read_text(encoding="utf-8")
