"""Language identification of short texts: two identifiers behind one shape. Needs the extra `lid`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeAlias

import langcodes

from lape.data.languages import tag
from lape.errors import OptionError
from lape.extras import need

NEIGHBOURS = ("ms", "pt", "it", "ca", "de", "nl", "fil", "tr", "ru", "ko", "la", "ro", "pl", "sv", "da")
"""Languages that answers are easily taken for; always among the candidates, since a forced choice flatters."""
UNKNOWN = 0.3
"""Under this share of certainty no language is named (as the Language Confusion Benchmark does; Marchisio et al. 2024)."""
CERTAIN = 0.5
"""The same where only the recorded languages are candidates, so few that one of them always has a large share."""

ALIKE = (frozenset({"id", "ms"}),)
"""Languages that identifiers take for one another on short text: Indonesian and Malay. An answer in one of them counts as the other, unless every
identifier that was asked says otherwise.
"""


@dataclass(frozen=True)
class Guess:
    """What a text seems to be written in."""

    language: str | None
    """A language's code without script or region, or None where none is certain enough."""
    certainty: float
    """The candidate's share of the probability, 0 to 1."""


Identifier: TypeAlias = Callable[[Sequence[str]], list[Guess]]
"""Texts -> one guess each. Any function of this shape can take the place of the two here."""


_LABELS = {"nb": "no", "tl": "fil"}
"""Labels of identifiers that stand for what others, or lape's tags, call otherwise."""


def language_of_label(label: str) -> str:
    """The language that an identifier's label stands for: `nb` and `no` are both Norwegian, and `tl` is `fil`."""
    return _LABELS.get(label, label)


@cache
def base(language: str) -> str:
    """A tag's language alone, as identifiers know it: zh-Hant -> zh, arb -> ar, nb -> no."""
    return language_of_label(langcodes.standardize_tag(tag(language), macro=True).split("-")[0])


@cache
def alike(language: str) -> frozenset[str]:
    """A language, with those it is taken for on short text: `ALIKE`.

    Example:
        >>> from lape.data.language_id import alike
        >>> sorted(alike("id")), sorted(alike("zh-Hant"))
        (['id', 'ms'], ['zh'])
    """
    code = base(language)
    return next((some for some in ALIKE if code in some), frozenset({code}))


def candidates(languages: Iterable[str], neighbours: Sequence[str] = NEIGHBOURS) -> tuple[str, ...]:
    """The languages in play and their neighbours."""
    return tuple(dict.fromkeys([*map(base, languages), *map(language_of_label, neighbours)]))


def lingua_languages() -> dict[str, Any]:
    """The languages that lingua knows, by code."""
    from lingua import Language

    return {_code_of(one): one for one in Language.all()}


def _code_of(language: Any) -> str:
    """The code of one of lingua's languages."""
    return language_of_label(language.iso_code_639_1.name.lower())


def lingua(languages: Iterable[str], *, unknown: float = UNKNOWN, neighbours: Sequence[str] = NEIGHBOURS) -> Identifier:
    """The first identifier: lingua, choosing among the languages in play and their neighbours."""
    need("lid", "Telling languages apart", "lingua")
    from lingua import LanguageDetectorBuilder

    by_code = lingua_languages()
    wanted = _known(languages, by_code, "lingua", neighbours)
    detector = LanguageDetectorBuilder.from_languages(*(by_code[code] for code in wanted)).build()

    def identify(texts: Sequence[str]) -> list[Guess]:
        result = []
        for values in detector.compute_language_confidence_values_in_parallel(list(texts)):
            best = values[0]
            result.append(_guess(_code_of(best.language), best.value, unknown))
        return result

    return identify


def langid(languages: Iterable[str], *, unknown: float = UNKNOWN) -> Identifier:
    """The second identifier: py3langid, another model trained on other text, with the same candidates."""
    need("lid", "Telling languages apart", "py3langid")
    import py3langid.langid as module

    inner: Any = module._load_identifier(norm_probs=True)
    labels = {language_of_label(label): label for label in inner.labels}
    wanted = _known(languages, labels, "py3langid")
    inner.set_languages([labels[code] for code in wanted])

    def identify(texts: Sequence[str]) -> list[Guess]:
        told = map(inner.classify, texts)
        return [_guess(language_of_label(str(code)), float(value), unknown) for code, value in told]

    return identify


class Teller:
    """Tells which recorded language a text is in, where lingua is installed and knows the recorded languages."""

    def __init__(self, languages: Sequence[str]) -> None:
        self._tags = {base(language): language for language in reversed(languages)}
        self.missing: str | None = None
        """Why no language can be told, and what to type; None where they can."""
        try:
            self._identify: Identifier = lingua(languages)
        except OptionError as error:
            self.missing = str(error)

    def __call__(self, text: str) -> Guess:
        """The recorded language's tag, another's code, or None where none is certain or can be told."""
        if self.missing or not text.strip():
            return Guess(None, 0.0)
        guess = self._identify([text])[0]
        return replace(guess, language=self._tags.get(guess.language or "", guess.language))

    def sources(self, prompts: Sequence[str], target: str) -> list[str | None]:
        """For each prompt that is to be steered to the target, the recorded language it is in, or None where that is not certain.

        A short question is easily taken for a language that was never recorded: then lingua chooses among the recorded ones but the target.
        """
        told = [self(prompt).language for prompt in prompts]
        others = [language for language in self._tags.values() if base(language) != base(target)]
        unclear = [at for at, language in enumerate(told) if language not in self._tags.values()]
        if self.missing or not others:
            return [None if at in unclear else language for at, language in enumerate(told)]
        among = lingua(others, unknown=CERTAIN, neighbours=())
        for at, guess in zip(unclear, among([prompts[at] for at in unclear]), strict=True):
            told[at] = self._tags.get(guess.language or "")
        return told


IDENTIFIERS: dict[str, Callable[..., Identifier]] = {"lingua": lingua, "langid": langid}


def identifier(name: str, languages: Iterable[str]) -> Identifier:
    """An identifier by name."""
    if name not in IDENTIFIERS:
        raise OptionError(f"There is no identifier {name!r}. Expected {' or '.join(IDENTIFIERS)}.")
    return IDENTIFIERS[name](languages)


def _guess(code: str, certainty: float, unknown: float) -> Guess:
    return Guess(code if certainty >= unknown else None, certainty)


def _known(
    languages: Iterable[str], known: Iterable[str], name: str, neighbours: Sequence[str] = NEIGHBOURS
) -> list[str]:
    known = set(known)
    in_play = [base(language) for language in languages]
    missing = sorted(set(in_play) - known)
    if missing:
        raise OptionError(
            f"{name} cannot identify {', '.join(missing)}. It knows {', '.join(sorted(known))}; give another identifier."
        )
    return [code for code in candidates(in_play, neighbours) if code in known]
