"""What is asked: questions parallel over languages, and from which language into which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from lape.data.languages import tag
from lape.errors import OptionError, TextError
from lape.measure.answer_fluency import FEWEST, GUARANTEED, WANTED
from lape.options import separated
from lape.signs import many

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
    return [_named(part, every, languages) for part in separated(spec)]


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


def check_apart(
    kind: str, others: Mapping[str, Sequence[str]], reported: Mapping[str, Sequence[str]], languages: Sequence[str]
) -> None:
    """Raises TextError where questions of another kind are reported too: what is learnt from them would flatter the report."""
    for language in languages:
        if shared := set(others[language]) & set(reported[language]):
            raise TextError(
                f"The questions that are reported and those for {kind} have {many(len(shared), 'question')} in {language} in common, such as "
                f"{min(shared)!r}. What those are for must be learnt from others: leave them out of one of the two."
            )


def checked_native(
    native: Mapping[str, Sequence[str]], reported: Mapping[str, Sequence[str]], languages: Sequence[str]
) -> dict[str, list[str]]:
    """Questions whose native answers say what is fluent in each language, by standard tag, none of them among those on which answers are reported.

    Raises TextError where a language has none or one is reported too, OptionError for fewer than a bound needs.
    """
    found = checked_questions(native)
    if missing := [language for language in languages if language not in found]:
        raise TextError(
            f"There are no native questions in {', '.join(missing)}, whose answers say what is fluent. Give some, other than those reported: "
            f"native={{{missing[0]!r}: […]}}."
        )
    count = len(found[languages[0]])
    if count < FEWEST:
        raise OptionError(
            f"There are only {count} native questions in each language, whose answers say what is fluent. Expected at least {FEWEST}, better "
            f"{WANTED}: native={{{languages[0]!r}: […], …}}."
        )
    check_apart("native answers", found, reported, languages)
    return {language: found[language] for language in languages}


def besides(native: Mapping[str, Sequence[str]], reported: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Parallel questions but for those that are reported in some language: whoever knows the answers to a translation knows too much.

    Example:
        >>> from lape.measure.questions import besides
        >>> besides({"en": ["Who?", "When?"], "fr": ["Qui ?", "Quand ?"]}, {"fr": ["Qui ?"]})
        {'en': ['When?'], 'fr': ['Quand ?']}
    """
    taken = {question for asked in reported.values() for question in asked}
    kept = [all(one not in taken for one in asked) for asked in zip(*native.values(), strict=True)]
    return {
        language: [one for one, keep in zip(asked, kept, strict=True) if keep] for language, asked in native.items()
    }


def few_native(native: Mapping[str, Sequence[str]]) -> list[str]:
    """A note where there are fewer native questions than wanted; else nothing."""
    count = len(next(iter(native.values())))
    if count >= WANTED:
        return []
    sure = f"; by fewer than {GUARANTEED} it is sure only that a native answer is fluent with a probability of {1 - 2 / (count + 1):.2f}"
    return [
        f"What counts as fluent is bounded by {count} native answers of each language{sure if count < GUARANTEED else ''}. "
        f"Better give {WANTED} native questions or more."
    ]
