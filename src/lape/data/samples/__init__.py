"""Texts and questions written for this project, parallel in all languages, split by number so that no translation crosses.

In the paper's seven languages 48 documents of 8 sentences: 28 to record, 20 to evaluate; and 104 questions: 24 for development, 40 for reporting,
40 others to choose settings by. In five further languages the 28 documents to record, and the first 64 questions.
And 40 requests in English for an answer in any language.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Literal, NamedTuple

from lape.data.texts import Documents
from lape.errors import OptionError

LANGUAGES = ("en", "zh", "fr", "es", "vi", "id", "ja")
"""The paper's seven: every part is in each of them."""
FURTHER = ("ko", "ar", "ru", "de", "zh-Hant")
"""Languages of the documents to record and of the first 64 questions."""
EVERY = (*LANGUAGES, *FURTHER)
RECORDED, EVALUATED, SENTENCES = 28, 20, 8
DEVELOPMENT = 24
PARTS: tuple[Literal["record"], Literal["evaluate"]] = ("record", "evaluate")


class _Part(NamedTuple):
    kinds: tuple[str, ...]
    """Folders of `bundled`, one after the other."""
    some: slice
    languages: tuple[str, ...]


_DOCUMENTS = {
    "record": _Part(("texts",), slice(RECORDED), EVERY),
    "evaluate": _Part(("texts",), slice(RECORDED, None), LANGUAGES),
    "all": _Part(("texts",), slice(None), LANGUAGES),
}
_QUESTIONS = {
    "development": _Part(("questions",), slice(DEVELOPMENT), EVERY),
    "reporting": _Part(("questions",), slice(DEVELOPMENT, None), EVERY),
    "all": _Part(("questions",), slice(None), EVERY),
    "choosing": _Part(("choosing",), slice(None), LANGUAGES),
    "native": _Part(("questions", "choosing"), slice(None), LANGUAGES),
}


def texts(
    part: Literal["record", "evaluate", "all"],
    documents: int | None = None,
    *,
    sentences: int | None = None,
    languages: Sequence[str] = LANGUAGES,
) -> dict[str, Documents]:
    """Language -> documents of a part, at most `documents` of them. Document i says the same in every language, sentence by sentence.

    `part`: record (28 documents), evaluate (20 others) or all. `sentences`: the first so many of each document's 8. `languages`: which, in this
    order; ko, ar, ru, de, zh-Hant have the 28 to record alone. Raises OptionError for another part, fewer sentences than 1 or more than 8, and
    a language that the part is not in.

    Example:
        >>> from lape.data import samples
        >>> evaluated = samples.texts("evaluate", documents=5)
        >>> list(evaluated), len(evaluated["ja"].texts)
        (['en', 'zh', 'fr', 'es', 'vi', 'id', 'ja'], 5)
        >>> recorded = samples.texts("record", languages=samples.EVERY)
        >>> len(recorded), len(recorded["ko"].texts)
        (12, 28)
    """
    found = _bundled(_DOCUMENTS, part, languages, between="\n\n")
    if sentences is not None and not 1 <= sentences <= SENTENCES:
        raise OptionError(f"sentences is {sentences}. Expected 1 to {SENTENCES}, which is how many each document has.")
    return {
        language: Documents(["\n".join(text.split("\n")[:sentences]) for text in every[:documents]])
        for language, every in found.items()
    }


def questions(
    part: Literal["development", "reporting", "all", "choosing", "native"], *, languages: Sequence[str] = LANGUAGES
) -> dict[str, list[str]]:
    """Language -> questions of a part. Question i asks the same in every language.

    `part`: development (24 questions), reporting (40 others) or all (these 64); choosing (40 more, to choose settings by, so that they are not
    chosen on what is reported); or native (64 + 40, all of them: what a model answers in the question's own language, from which bounds are made).
    `languages`: which, in this order; ko, ar, ru, de, zh-Hant have the 64 alone. Raises OptionError for another part, and for a language that the part
    is not in.

    Example:
        >>> from lape.data import samples
        >>> development = samples.questions("development")
        >>> development["en"][1], development["fr"][1]
        ('Why does the sky look blue during the day and red at sunset?', 'Pourquoi le ciel paraît-il bleu le jour et rouge au coucher du soleil ?')
        >>> samples.questions("all", languages=["de", "ko"])["de"][1]
        'Warum sieht der Himmel tagsüber blau und bei Sonnenuntergang rot aus?'
        >>> len(samples.questions("native")["vi"])
        104
    """
    return _bundled(_QUESTIONS, part, languages, between="\n")


def requests(language: str) -> list[str]:
    """40 requests in English for an answer in a language, such as a letter, a list or an explanation; the wish stands at the beginning, within, or at the end.

    Example:
        >>> from lape.data import samples
        >>> samples.requests("French")[1:3]
        ['Explain in French how a refrigerator keeps food cold.', 'Answer in French. Give five reasons to learn a musical instrument as an adult.']
    """
    found = files("lape.data.samples").joinpath("bundled", "requests.txt").read_text(encoding="utf-8")
    return [line.replace("{language}", language) for line in found.splitlines()]


def _bundled(parts: Mapping[str, _Part], name: str, languages: Sequence[str], between: str) -> dict[str, list[str]]:
    if name not in parts:
        raise OptionError(f"part is {name!r}. Expected {', '.join(parts)}.")
    part = parts[name]
    missing = [language for language in languages if language not in part.languages]
    if missing:
        elsewhere = [one for one in parts if set(missing) <= set(parts[one].languages)]
        others = f", or a part that is in {', '.join(missing)}: {', '.join(elsewhere)}" if elsewhere else ""
        raise OptionError(
            f"languages has {', '.join(missing)}, and the part {name} is in {', '.join(part.languages)}. Expected some of these{others}."
        )
    return {
        language: [one for kind in part.kinds for one in _read(kind, language).split(between)][part.some]
        for language in languages
    }


def _read(kind: str, language: str) -> str:
    """A file without the newline at its end."""
    found = files("lape.data.samples").joinpath("bundled", kind, f"{language}.txt").read_text(encoding="utf-8")
    return found.removesuffix("\n")
