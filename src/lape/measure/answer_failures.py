"""How an answer fails that was wanted in a language: by the Language Confusion Benchmark's rule, and in the ways that the rule passes over."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, TypeAlias, get_args

from lape.data.language_id import Guess, Identifier, alike, base, lingua, lingua_languages
from lape.extras import need
from lape.measure.answer_fluency import repetition
from lape.measure.answer_spans import Span, mixed, spans
from lape.measure.language_confusion import WORD, Judge, Verdict, letter_classes, switched
from lape.signs import visible

Kind: TypeAlias = Literal["empty", "other_script", "other_language", "slipped", "repeats", "line", "word"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MEANT: dict[Kind, str] = {
    "empty": "nothing is written",
    "other_script": "more words of other scripts than of the language's own",
    "other_language": "in another language as a whole, by both identifiers",
    "slipped": "in the language, but for a whole sentence or a tenth of its letters",
    "repeats": "more than half of its character 4-grams occurred before in it, or in 2,000 characters of it",
    "line": "a line is in another language, or in none, by the benchmark's rule alone",
    "word": "an English word, by the benchmark's rule alone, or words of another script with most of the letters",
}
"""What fails, in the order in which it is asked; an answer fails in the first way that holds."""
REPEATED = 0.5
"""An answer repeats itself where this share of its character 4-grams occurred before in it."""
LONG = 40
"""Letters under which nothing is said of repetition."""
_PIECE = 2000
"""Characters in which repetition is looked for: in longer ones 4-grams of any text occur again."""
MOST = 20_000
"""Characters of an answer that are judged: its beginning."""
_NO_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`|https?://\S+|(?<![^\s@])[^\s@]++@\S{1,255}\.\w+", re.DOTALL)
_UNSPACED = {r"\p{sc=Hani}\p{sc=Hira}\p{sc=Kana}\p{sc=Bopo}": 2, r"\p{sc=Thai}\p{sc=Laoo}\p{sc=Khmr}\p{sc=Mymr}": 4}
"""Scripts without spaces between words -> how many letters are taken for a word."""
_THOUGHT, _THOUGHT_ENDS = "<think>", "</think>"


@dataclass(frozen=True)
class Failing:
    """What is said of an answer that was wanted in a language."""

    kind: Kind | None
    """How it fails; None where it does not."""
    verdict: Verdict
    """The benchmark's."""
    language: str | None
    """The language that it seems to be in as a whole; None where none is certain."""
    span: str | None = None
    """The longest stretch in another language, where there is one; signs that nobody sees made visible."""
    span_language: str | None = None


def without_thought(answer: str) -> tuple[str | None, str]:
    r"""What a reasoning model thought, where it writes that before its answer in `<think>` and `</think>`, and the answer alone.

    Example:
        >>> from lape.measure.answer_failures import without_thought
        >>> without_thought("<think>用户想知道…</think>\nBonjour."), without_thought("Bonjour.")
        (('用户想知道…', 'Bonjour.'), (None, 'Bonjour.'))
    """
    before, end, after = answer.partition(_THOUGHT_ENDS)
    thought = before.lstrip().removeprefix(_THOUGHT).strip()
    if end:
        return thought, after.strip()
    if before.lstrip().startswith(_THOUGHT):  # it was cut while it thought
        return thought, ""
    return None, answer


def prose(answer: str) -> str:
    r"""An answer without code and addresses, which are in no language.

    Example:
        >>> from lape.measure.answer_failures import prose
        >>> prose("Voici :\n```python\nprint(1)\n```\nVoir https://example.org.")
        'Voici :\n \nVoir  '
    """
    return _NO_PROSE.sub(" ", answer)


class Failures:
    """Judges answers, those of a language together.

    The identifiers are the benchmark's (fastText) and, where that sees another language, lingua, which must name the same one. Code and addresses
    are passed over in all but the benchmark's own rule. Of a longer answer the first `MOST` characters are judged. Raises what
    `lape.measure.language_confusion.Judge` does.

    Example:
        >>> from lape.measure.answer_failures import Failures
        >>> judge = Failures(["fr", "ko"])
        >>> said = ["Le ciel est bleu.", "", "The sky is blue because light is scattered."]
        >>> [one.kind for one in judge(said, "fr")]
        [None, 'empty', 'other_language']
        >>> judge(["天空是蓝色的，因为光被散射了。"], "ko")[0].kind
        'other_script'
        >>> judge.language_of(["用户想知道天空为什么是蓝色的。", None])
        ['zh', None]
    """

    def __init__(
        self, languages: Iterable[str], *, judge: Judge | None = None, second: Identifier | None = None
    ) -> None:
        """`languages`: all that answers are wanted in; one that lingua does not know is told by the benchmark's identifier alone. `judge`: the benchmark's
        rule with its identifier and words. `second`: in lingua's place.
        """
        need("lid", "Language confusion", "lingua")
        self.judge = judge or Judge()
        languages = [*languages]
        for language in languages:
            self.judge.check(language)
        self._second = second or _Second(languages)

    def __call__(self, answers: Sequence[str], language: str) -> list[Failing]:
        """What is said of each answer that was wanted in a language."""
        answers = [one[:MOST] for one in answers]
        plain = [prose(one) for one in answers]
        told = self._told(plain, language)
        found = [self._first(*one, language) for one in zip(answers, plain, told, strict=True)]
        open_ = [k for k, one in enumerate(found) if one.kind not in ("empty", "other_script", "other_language")]
        slips = spans([plain[k] for k in open_], language, self.judge.identify, self._second)
        for k, some in zip(open_, slips, strict=True):
            found[k] = self._with_spans(found[k], plain[k], some)
        return found

    def language_of(self, texts: Sequence[str | None]) -> list[str | None]:
        """The language that each text seems to be in; None where there is none, or none is certain."""
        return [one.language for one in self.judge.identify([(text or "")[:MOST] for text in texts])]

    def _told(self, texts: Sequence[str], language: str) -> list[str | None]:
        """The language of each text as a whole: the wanted one, or another where both identifiers say so."""
        mine = self.judge.identify(texts)
        other = [k for k, one in enumerate(mine) if one.language and one.language not in alike(language)]
        told = [base(language) if one.language in alike(language) else None for one in mine]
        for k, guess in zip(other, self._second([texts[k] for k in other]) if other else [], strict=True):
            if guess.language is None or guess.language in alike(language):
                told[k] = guess.language and base(language)
            elif guess.language in alike(mine[k].language or ""):
                told[k] = guess.language
        return told

    def _first(self, answer: str, plain: str, told: str | None, language: str) -> Failing:
        """What can be said of an answer without its spans."""
        verdict = self.judge(answer, language)
        if not any(sign.isalnum() for sign in answer):
            return Failing("empty", verdict, None)
        if in_other_script(plain, language):
            return Failing("other_script", verdict, told if told != base(language) else None)
        if told is not None and told != base(language):
            return Failing("other_language", verdict, told)
        return Failing(_rest(answer, plain, verdict, language), verdict, told)

    def _with_spans(self, found: Failing, plain: str, some: Sequence[Span]) -> Failing:
        """With the longest stretch in another language; where only its script tells it apart, the benchmark's identifier says which that is."""
        if not some:
            return found
        longest = max(some, key=lambda one: one.end - one.start)
        kind: Kind | None = "slipped" if mixed(plain, some) else found.kind
        text = plain[longest.start : longest.end]
        language = longest.language or self.judge.identify([text])[0].language
        return replace(found, kind=kind, span=visible(text), span_language=language)


def _rest(answer: str, plain: str, verdict: Verdict, language: str) -> Kind | None:
    if any(map(_repeats, (answer[at : at + _PIECE] for at in range(0, len(answer), _PIECE)))):
        return "repeats"
    if verdict.passed is False:
        return "line"
    english = verdict.without_english(language) is False
    return "word" if english or (switched(plain, language) and foreign_words(plain, language)) else None


def _repeats(piece: str) -> bool:
    return sum(sign.isalpha() for sign in piece) >= LONG and repetition(piece) > REPEATED


def in_other_script(answer: str, language: str) -> bool:
    """Whether an answer has more words of other scripts than of the language's own.

    A word is a run of letters of one side, whatever stands around it: `practical입니다` is a Latin word and a Korean one. Single letters of other scripts
    are none, since they may be formulas. Where there are no spaces between words, two signs of Han, kana or Bopomofo are a word, and four
    letters of Thai, Lao, Khmer and Burmese. So a text in its own script that uses words of another is not in that script, however long these are.

    Example:
        >>> from lape.measure.answer_failures import in_other_script
        >>> in_other_script("카드가 더 practical입니다.", "ko"), in_other_script("The card is more practical.", "ko")
        (False, True)
    """
    own, others = (
        sum(weight * len(pattern.findall(answer)) for pattern, weight in patterns) for patterns in _patterns(language)
    )
    return others > own


def foreign_words(answer: str, language: str) -> list[str]:
    """The words of other scripts, with spaces between them, that are no names: at least four letters, the first of them no capital."""
    words, _ = _patterns(language)[1][0]
    return [word for word in words.findall(answer) if len(word) > WORD and not word[0].isupper()]


@cache
def _patterns(language: str) -> tuple[list[tuple[Any, float]], list[tuple[Any, float]]]:
    """What to count of the language's own scripts, and of others, each with the words that one of it is; first the words with spaces between them."""
    import regex

    unspaced = "".join(_UNSPACED)
    own, others = (
        [
            (regex.compile(rf"(?:[{letters}--[{unspaced}]]\p{{M}}*+){{{least},}}+", regex.V1), 1.0),
            *((regex.compile(rf"[{letters}&&[{some}]]", regex.V1), 1 / signs) for some, signs in _UNSPACED.items()),
        ]
        for letters, least in zip(letter_classes(language), (1, 2), strict=True)
    )
    return own, others


class _Second:
    """lingua among the languages in play, made when it is first asked: most answers are in their language."""

    def __init__(self, languages: Iterable[str]) -> None:
        self._languages = [*dict.fromkeys([*languages, "en", "zh"])]
        self._identify: Identifier | None = None

    def __call__(self, texts: Sequence[str]) -> list[Guess]:
        if self._identify is None:
            known = lingua_languages()
            self._identify = lingua([one for one in self._languages if base(one) in known])
        return self._identify(texts)
