"""What is asked: questions parallel over languages, and from which language into which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from lape.data.languages import tag
from lape.errors import OptionError, TextError

Pair: TypeAlias = tuple[str, str]
"""Source and target language."""


def pairs_of(languages: Sequence[str], spec: str) -> list[Pair]:
    """Ordered pairs of languages: all, a third of them in which every language is as often source as target, or those named."""
    languages = [tag(language) for language in languages]
    every = [(s, t) for s in languages for t in languages if s != t]
    if spec == "all":
        return every
    if spec == "third":
        n = len(languages)
        steps = [step for step in range(1, n) if step % 3 == 1]
        return [(languages[k], languages[(k + step) % n]) for step in steps for k in range(n)]
    return [_named(part, every, languages) for part in spec.replace(",", " ").split()]


def _named(part: str, every: Sequence[Pair], languages: Sequence[str]) -> Pair:
    """A pair from its name, source-target; tags may hold dashes themselves."""
    words = part.split("-")
    for at in range(1, len(words)):
        pair = _standard("-".join(words[:at])), _standard("-".join(words[at:]))
        if all(side in languages for side in pair):
            if pair in every:
                return pair
            raise OptionError(f"The pair {part} cannot be asked: source and target are the same. Name two languages.")
    raise OptionError(
        f"{part!r} is not a pair of languages that have questions ({', '.join(languages)}). Expected all, third, or a list such as en-fr,zh-id."
    )


def _standard(code: str) -> str:
    """The standard tag, or the code itself where it is none."""
    try:
        return tag(code)
    except TextError:
        return code


def checked_questions(questions: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Questions by standard tag. Raises TextError where languages differ in how many, or there are too few."""
    result = {tag(language): list(asked) for language, asked in questions.items()}
    counts = {language: len(asked) for language, asked in result.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{language} {count}" for language, count in counts.items())
        raise TextError(
            f"Question i must ask the same in every language, but their numbers differ: {listed}. Give as many lines to each."
        )
    if not result or next(iter(counts.values())) < 2:
        raise TextError("There are fewer than 2 questions. Give a file of questions, one per line, for each language.")
    return result
