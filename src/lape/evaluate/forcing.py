"""Language forcing: questions in one language, answers wanted in another, by every family of methods on equal terms."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import polars as pl

from lape import files
from lape.analyse.forced import best, differences, records
from lape.errors import OptionError, TextError
from lape.evaluate.bench import Bench
from lape.evaluate.cost import COSTS, costs, lines_in
from lape.evaluate.families import CEILING, NONE, TUNED, Setting, following, tried
from lape.evaluate.identification import identification
from lape.evaluate.judge import Band, english_word, in_language, lines_of, on_topic, repetition, written
from lape.identifiers import Identifier, base, identifier
from lape.languages import tag
from lape.neurons import LanguageNeurons
from lape.options import ForcingOptions, TextOptions, given
from lape.progress import Progress, silent
from lape.sites import blocks, find
from lape.stats import ActivationStats
from lape.texts import Texts

Split: TypeAlias = Literal["development", "report"]
Pair: TypeAlias = tuple[str, str]

ANSWERS = {
    **dict.fromkeys(("split", "family", "setting", "source", "target"), pl.String),
    "question": pl.Int64,
    "answer": pl.String,
    **dict.fromkeys(("language", "language_second"), pl.String),
    **dict.fromkeys(
        ("in_language", "in_language_second", "fluent", "on_topic", "good", "lpr", "wpr", "empty"), pl.Boolean
    ),
    **dict.fromkeys(("distinct4", "nll"), pl.Float64),
}
"""Columns of the table of answers: what `docs/forcing.md` defines. `on_topic` is judged for answers in the language, `wpr` for
answers whose every line is, in a language of another script than Latin; elsewhere both are null.
"""
DEFINITIONS = {
    "in_language": "share of answers that the first identifier calls the target language, among the languages in play and 15 neighbours, "
    "with at least 10 letters (4 in Chinese and Japanese), and kana in Japanese",
    "fluent": "share of the answers in the language whose loss under the unedited model and whose share of repeated character 4-grams both lie "
    "in the central 95 % of the ceiling's answers to the development questions, cut to the same number of tokens",
    "on_topic": "share of the answers in the language for which the true question, put in the target language, makes the answer likeliest "
    "under the unedited model among `candidates` questions",
    "good": "share of all answers that are in the language, fluent and on topic",
    "over_ceiling": "the share over that of the ceiling (asked in the target language, unedited) on the same questions, averaged by target",
    "low, high": "95 % percentile bootstrap over questions, resampled jointly over pairs and families",
    "lpr": "share of answers whose every line of at least 5 words (signs in Chinese and Japanese) is called the target language, after Marchisio et al. 2024",
    "wpr": "of those, in scripts other than Latin, the share without a lower-case Latin word of more than 3 letters",
    "distinct4": "mean share of distinct character 4-grams",
    "nll": "mean loss of an answer that stands alone, nats a token, unedited model",
    "agreement": "share of answers that both identifiers name alike",
    "cost": "change of loss on text while the edit acts on every token, nats a token",
}
"""What the columns mean; ours."""
_OTHER_SCRIPT = ("zh", "ja", "ko", "ru", "ar", "hi", "th", "uk", "bg", "el", "he", "fa")


@dataclass(frozen=True)
class Forced:
    """What came out."""

    answers: pl.DataFrame
    """One row an answer: `ANSWERS`."""
    table: pl.DataFrame
    """One row per setting, split and pair, and for target and pair averages: `lape.analyse.forced.RECORDS`."""
    differences: pl.DataFrame
    """Neurons minus each other family, with intervals: `lape.analyse.forced.differences`."""
    costs: pl.DataFrame
    """What the edits cost on text: `lape.evaluate.cost.COSTS`; empty without text to measure it on."""
    identification: pl.DataFrame
    """How far the identifiers can be trusted: `lape.evaluate.identification.IDENTIFICATION`; empty without such text."""
    notes: tuple[str, ...] = ()
    """Which families were left out, and why."""


def forcing(
    model: Any,
    tokenizer: Any,
    stats: ActivationStats,
    development: Mapping[str, Sequence[str]],
    reporting: Mapping[str, Sequence[str]],
    options: ForcingOptions | None = None,
    *,
    texts: Texts | None = None,
    evaluation: Texts | None = None,
    neurons: LanguageNeurons | None = None,
    folder: Path | None = None,
    progress: Progress = silent,
    **changes: Any,
) -> Forced:
    """Put the questions of each source language under every family of methods that might force each target language.

    Settings are tried on the development questions, as many for each family; the best of each is run on the reporting
    questions. `development`, `reporting`: language -> questions, question i asking the same in every language. `texts`:
    language -> text for the vocabulary mask. `evaluation`: language -> other text, on which costs and the identifiers are
    measured. `neurons`: the sets that `lape` settings use; default: found in `stats`. `folder`: where finished cells are kept,
    so that a killed run goes on.
    """
    options = given(ForcingOptions, options, changes)
    bench = Bench(model, tokenizer, stats, texts, options, neurons=neurons, seed=options.seed)
    return _Run(bench, development, reporting, options, evaluation, folder, progress).all()


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
    named = []
    for part in spec.replace(",", " ").split():
        source, dash, target = part.partition("-")
        if not dash:
            raise OptionError(f"{part!r} is no pair of languages. Expected all, third, or a list such as en-fr,zh-id.")
        named.append((tag(source), tag(target)))
    for source, target in named:
        if (source, target) not in every:
            wrong = (
                "source and target are the same"
                if source == target
                else f"there are questions in {', '.join(languages)} only"
            )
            raise OptionError(f"The pair {source}-{target} cannot be asked: {wrong}.")
    return named


class _Run:
    """One measurement: cells of (split, setting, pair), each judged when it is generated."""

    def __init__(
        self,
        bench: Bench,
        development: Mapping[str, Sequence[str]],
        reporting: Mapping[str, Sequence[str]],
        options: ForcingOptions,
        evaluation: Texts | None,
        folder: Path | None,
        progress: Progress,
    ) -> None:
        self.bench, self.options, self.folder, self.progress = bench, options, folder, progress
        self.questions = {"development": _checked(development), "report": _checked(reporting)}
        if set(self.questions["report"]) != set(self.questions["development"]):
            raise TextError(
                "Development and reporting questions are in different languages. Give both in the same ones."
            )
        languages = [language for language in self.questions["report"] if language in bench.stats.languages]
        if len(languages) < 2:
            raise TextError(
                f"There are questions and statistics together for {', '.join(languages) or 'no language'}. At least two languages are needed."
            )
        self.pairs = pairs_of(languages, options.pairs)
        same = options.development_pairs == "same"
        self.tuning = self.pairs if same else pairs_of(languages, options.development_pairs)
        self.first: Identifier = identifier(options.identifier, languages)
        self.second: Identifier = identifier(options.second, languages)
        self.evaluation = {tag(name): source for name, source in (evaluation or {}).items()}
        self.notes: list[str] = []
        self.families = [family for family in options.families if self._possible(family)]
        self._bands: dict[str, Band] = {}
        self._cells: dict[tuple[str, Setting, Pair], pl.DataFrame] = {}
        self._layers = len(blocks(bench.model, find(bench.model)))

    def _possible(self, family: str) -> bool:
        """Whether a family has what it needs; if not, a note says what that is."""
        targets = [target for _, target in (*self.pairs, *self.tuning)]
        if family == "diffmean" and not self.bench.has_residual(targets):
            self.notes.append("diffmean was left out: the statistics hold no residual stream. Record with --residual.")
            return False
        if family == "mask" and (missing := self.bench.without_text(targets)):
            self.notes.append(
                f"mask was left out: there is no text in {', '.join(missing)}. Type: --text {missing[0]}=PATH."
            )
            return False
        return True

    def all(self) -> Forced:
        """Try, choose, report."""
        self._settings("development", [CEILING, *([NONE] if "none" in self.families else [])], self.tuning)
        chosen = {}
        for family in (family for family in TUNED if family in self.families):
            settings = tried(family, self._layers)
            self._settings("development", settings, self.tuning)
            chosen[family] = best(self._frame("development"), settings)
        last = [setting for setting in (NONE, CEILING) if setting.family in self.families or setting.ceiling]
        if "neurons" in chosen:
            last += [setting for setting in following(chosen["neurons"]) if setting.family in self.families]
        last += chosen.values()
        self._settings("report", last, self.pairs)
        answers = pl.concat(self._cells.values())
        names = {(setting.family, setting.name) for setting in last}
        table = records(answers, names, self.options.resamples, self.options.seed)
        compared = differences(answers, self.options.resamples, self.options.seed)
        return Forced(answers, table, compared, self._costs(last), self._identification(answers), tuple(self.notes))

    def _costs(self, settings: Sequence[Setting]) -> pl.DataFrame:
        edits = [one for one in settings if one.family in ("neurons", "random", "diffmean")]
        if not self.evaluation:
            return pl.DataFrame(schema=COSTS)
        path = self.folder / "costs.parquet" if self.folder else None
        if path is not None and path.is_file():
            return pl.read_parquet(path)
        frame = costs(
            self.bench,
            edits,
            self.pairs,
            self.evaluation,
            TextOptions(tokens=self.options.cost_tokens),
            resamples=self.options.resamples,
            seed=self.options.seed,
            progress=self.progress,
        )
        if path is not None:
            files.write(path, frame.write_parquet)
        return frame

    def _identification(self, answers: pl.DataFrame) -> pl.DataFrame:
        """The identifiers on lines of the evaluation text, cut to the median length of the ceiling's answers."""
        lines = {language: lines_in(source) for language, source in self.evaluation.items()}
        ceiling = answers.filter(pl.col("family") == "ceiling").group_by("target")
        lengths = ceiling.agg(pl.col("answer").str.len_chars().median().cast(pl.Int64)).iter_rows()
        characters = {target: max(length, 1) for target, length in lengths}
        known = {language: found for language, found in lines.items() if language in characters}
        both = {self.options.identifier: self.first, self.options.second: self.second}
        return identification(both, known, characters)

    def _settings(self, split: Split, settings: Sequence[Setting], pairs: Sequence[Pair]) -> None:
        """Run settings over pairs; the ceiling first, since fluency is judged by it."""
        todo = [(setting, pair) for setting in settings for pair in self._asked(setting, pairs)]
        for done, (setting, pair) in enumerate(todo):
            self.progress(f"{split} questions", done, len(todo))
            self._cells[split, setting, pair] = self._cell(split, setting, pair)
        self.progress(f"{split} questions", len(todo), len(todo))

    def _asked(self, setting: Setting, pairs: Sequence[Pair]) -> list[Pair]:
        targets = dict.fromkeys(target for _, target in (*pairs, *self.pairs))
        return [(target, target) for target in targets] if setting.ceiling else list(pairs)

    def _frame(self, split: Split) -> pl.DataFrame:
        return pl.concat([frame for (of, _, _), frame in self._cells.items() if of == split])

    def _cell(self, split: Split, setting: Setting, pair: Pair) -> pl.DataFrame:
        """The judged answers of a cell, from the run's folder where they are there already."""
        path = None
        if self.folder is not None:
            name = f"{split}.{setting.family}.{setting.name}.{'-'.join(pair)}"
            path = self.folder / "cells" / ("".join(c if c.isalnum() or c in ".-%" else "_" for c in name) + ".parquet")
            if path.is_file():
                return pl.read_parquet(path)
        answers = self.bench.answers(
            setting, self.questions[split], *pair, examples=self._examples(setting, split, pair)
        )
        frame = self._judged(split, setting, pair, answers)
        if path is not None:
            files.write(path, frame.write_parquet)
        return frame

    def _examples(self, setting: Setting, split: Split, pair: Pair) -> list[list[tuple[str, str]]]:
        """For each question, other development questions with what the model answers to them in the target language."""
        if not setting.asking.shots:
            return []
        source, target = pair
        ceiling = self._cells["development", CEILING, (target, target)].filter("in_language")
        known = dict(zip(ceiling["question"], ceiling["answer"], strict=True))
        asked = self.questions["development"][source]
        result = []
        for number in range(len(self.questions[split][source])):
            others = [k for k in known if split != "development" or k != number]
            random.Random(self.options.seed * 10_007 + number).shuffle(others)
            result.append([(asked[k], _first_line(known[k])) for k in others[: setting.asking.shots]])
        return result

    def _judged(self, split: Split, setting: Setting, pair: Pair, answers: list[str]) -> pl.DataFrame:
        source, target = pair
        bench = self.bench
        first, second = self.first(answers), self.second(answers)
        inside = [in_language(text, guess, target) for text, guess in zip(answers, first, strict=True)]
        alone = written(bench.model, bench.tokenizer, bench.head, answers)
        if setting.ceiling and split == "development":
            self._bands[target] = Band(alone)
        band = self._band(target)
        fluent = [band.fluent(one) for one in alone]
        topic = self._topic(split, target, [(k, text) for k, text in enumerate(answers) if inside[k]])
        lines = lines_of(answers, target, self.first)
        clean = [all(guess.language == base(target) for guess in guesses) for guesses in lines]
        count = len(answers)
        return pl.DataFrame(
            {
                "split": [split] * count,
                "family": [setting.family] * count,
                "setting": [setting.name] * count,
                "source": [source] * count,
                "target": [target] * count,
                "question": range(count),
                "answer": answers,
                "language": [guess.language for guess in first],
                "language_second": [guess.language for guess in second],
                "in_language": inside,
                "in_language_second": [in_language(t, g, target) for t, g in zip(answers, second, strict=True)],
                "fluent": fluent,
                "on_topic": [topic.get(k) for k in range(count)],
                "good": [inside[k] and fluent[k] and bool(topic.get(k)) for k in range(count)],
                "lpr": clean,
                "wpr": [_pure(target, text) if ok else None for text, ok in zip(answers, clean, strict=True)],
                "empty": [not text.strip() for text in answers],
                "distinct4": [1 - repetition(text) for text in answers],
                "nll": [float(one.nll.mean()) if len(one.nll) else None for one in alone],
            },
            schema=ANSWERS,
        )

    def _band(self, target: str) -> Band:
        """What is fluent in a language; from the ceiling's cell where that was read from a file."""
        if target not in self._bands:
            cell = self._cells["development", CEILING, (target, target)]
            bench = self.bench
            self._bands[target] = Band(written(bench.model, bench.tokenizer, bench.head, cell["answer"].to_list()))
        return self._bands[target]

    def _topic(self, split: Split, target: str, answers: list[tuple[int, str]]) -> dict[int, bool]:
        questions = self.questions[split][target]
        bench = self.bench
        candidates = self.options.candidates or len(questions)
        verdicts = on_topic(bench.model, bench.tokenizer, bench.head, answers, questions, target, candidates)
        return {number: verdict for (number, _), verdict in zip(answers, verdicts, strict=True)}


def _pure(target: str, answer: str) -> bool | None:
    """Whether no English word stands in an answer; None in a Latin script, where it could be a word of the language."""
    return not english_word(answer) if base(target) in _OTHER_SCRIPT else None


def _first_line(answer: str) -> str:
    return next((line.strip() for line in answer.split("\n") if line.strip()), "")


def _checked(questions: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Questions by standard tag. Raises TextError where languages differ in how many, or there are too few."""
    result = {tag(language): list(asked) for language, asked in questions.items()}
    counts = {language: len(asked) for language, asked in result.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{language} {count}" for language, count in counts.items())
        raise TextError(
            f"Question i must ask the same in every language, but their numbers differ: {listed}. Give as many lines to each."
        )
    if not result or next(iter(counts.values())) < 2:
        raise TextError("There are fewer than 2 questions. Give a file of questions, one a line, for each language.")
    return result
