"""One thought, language forcing: questions in one language, answers wanted in another, by every family of methods."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import polars as pl
from torch import nn

from lape.data.corpus import TextOptions
from lape.data.languages import tag
from lape.data.texts import Texts
from lape.errors import TextError
from lape.experiments.forcing.cost import COSTS, costs, lines_in
from lape.experiments.forcing.identification import identification
from lape.experiments.forcing.table import best, differences, records, transfer
from lape.measure.answers import Interview, JudgedOptions, Questions, Split
from lape.measure.bench import Bench
from lape.measure.methods import CEILING, FOLLOWING, NONE, TUNED, Family, Setting, following, tried
from lape.measure.questions import Pair, check_apart, checked_native, checked_questions, few_native, pairs_of
from lape.measure.result import Result
from lape.model.body import blocks
from lape.model.find import find
from lape.model.identity import check_made_with
from lape.options import Candidates, Positive, Tokens
from lape.progress import Progress, shown
from lape.store.cells import Cells
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class ForcingOptions(JudgedOptions):
    """How language forcing is measured."""

    pairs: str = "all"
    """Source and target languages: all, third (a fixed third of them), or a list such as en-fr,zh-id."""
    development_pairs: str = "same"
    """The pairs on which settings are tried: same, or as for `pairs`."""
    families: tuple[Family, ...] = get_args(Family)
    """Which families of methods and controls are run."""
    candidates: Candidates = 0
    """An answer is on topic if its own question makes it likelier than the others of this many do; 0: all of the split."""
    development_candidates: Candidates | None = None
    """`candidates` on the development questions, where fewer choose as well and faster. Default: as many."""
    resamples: Positive = 2000
    """Bootstrap resamples of the questions and pairs behind the 95 % intervals."""
    cost_tokens: Tokens = 512
    """Tokens of each language on which the cost of an edit is measured."""


def forcing(
    model: PreTrainedModel | nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    stats: ActivationStats,
    development: Mapping[str, Sequence[str]],
    reporting: Mapping[str, Sequence[str]],
    options: ForcingOptions,
    *,
    native: Mapping[str, Sequence[str]] | None = None,
    texts: Texts | None = None,
    evaluation: Texts | None = None,
    neurons: LanguageNeurons | None = None,
    folder: Path | None = None,
    progress: Progress = shown,
) -> Result:
    """Language forcing: put the questions of each source language under every family of methods that might force each target language.

    Settings are tried on the `development` questions, as many for each family; the best of each for each target is run on the `reporting`
    questions: language -> questions, question i asking the same in every language. As many settings are equal terms only where none was looked at
    before on questions like these. `native`: language -> questions, none of them reported, whose unedited answers in their own language bound what
    is fluent (100 or more are wanted, 19 needed); default: the development questions. `texts`:
    language -> text for the vocabulary mask. `evaluation`: language -> other text, on which costs and the identifiers are
    measured. `neurons`: the sets that `lape` settings use; default: found in `stats`. `folder`: where finished cells are kept,
    so that a killed run goes on. Further: see `ForcingOptions`.

    Gives the tables `forcing` (a row per setting, split and pair, and for target and pair averages: `lape.experiments.forcing.table.RECORDS`),
    `forcing_differences` (neurons minus each other family, with intervals: `lape.experiments.forcing.table.DIFFERENCES`), `forcing_transfer` (pairs on
    which settings were chosen, and the others, apart: `lape.experiments.forcing.table.TRANSFER`), `costs` (what the edits cost
    on text, nats per token: `lape.experiments.forcing.cost.COSTS`; empty without text to measure it on), `forced_answers` (a row an answer:
    `lape.measure.answers.ANSWERS`) and `identification` (how far the identifiers can be trusted:
    `lape.experiments.forcing.identification.IDENTIFICATION`; empty without such text); notes say which families were left out. Ours; the task is that
    of Tang et al. 2024. Raises TextError for questions that do not fit together, MismatchError for statistics or neurons of another model.

    Example:
        >>> from lape.data import samples
        >>> from lape.experiments.forcing.run import ForcingOptions, forcing
        >>> development, reporting = ({k: v[:20] for k, v in samples.questions(part).items()} for part in ("development", "reporting"))
        >>> how = {"pairs": "en-fr", "families": ("none", "neurons", "ceiling"), "new_tokens": 2, "candidates": 2, "resamples": 20}
        >>> result = forcing(model, tokenizer, stats, development, reporting, ForcingOptions(**how))
        >>> list(result)
        ['forcing', 'forcing_differences', 'forcing_transfer', 'costs', 'forced_answers', 'identification']
    """
    check_made_with(model, tokenizer, statistics=stats)
    if neurons is not None:
        check_made_with(model, neurons=neurons)
    bench = Bench(model, tokenizer, stats, texts, options, neurons=neurons, seed=options.seed)
    native = development if native is None else native
    return _Run(bench, development, reporting, native, options, evaluation, folder, progress).all()


class _Run:
    """One measurement: cells of (split, setting, pair), each judged when it is generated."""

    def __init__(
        self,
        bench: Bench,
        development: Questions,
        reporting: Questions,
        native: Questions,
        options: ForcingOptions,
        evaluation: Texts | None,
        folder: Path | None,
        progress: Progress,
    ) -> None:
        self.bench, self.options, self.progress, self.whole = bench, options, progress, Cells(folder)
        self.questions: dict[Split, dict[str, list[str]]] = {
            "development": checked_questions(development),
            "report": checked_questions(reporting),
        }
        if set(self.questions["report"]) != set(self.questions["development"]):
            raise TextError(
                "Development and reporting questions are in different languages. Give both in the same ones."
            )
        languages = [language for language in self.questions["report"] if language in bench.stats.languages]
        if len(languages) < 2:
            raise TextError(
                f"There are questions and statistics together for {', '.join(languages) or 'no language'}. At least two languages are needed."
            )
        check_apart("development", self.questions["development"], self.questions["report"], languages)
        before = checked_native(native, self.questions["report"], languages)
        self.pairs = pairs_of(languages, options.pairs)
        same = options.development_pairs == "same"
        self.tuning = self.pairs if same else pairs_of(languages, options.development_pairs)
        self.evaluation = {tag(name): source for name, source in (evaluation or {}).items()}
        self._layers = len(blocks(bench.model, find(bench.model)))
        self.notes = few_native(before)
        fewer = options.development_candidates
        self.families = [family for family in options.families if self._possible(family)]
        if "neurons" not in self.families and (alone := [one for one in self.families if one in FOLLOWING]):
            self.notes.append(
                f"{', '.join(alone)}: left out, since they follow the setting chosen for neurons. Name neurons too."
            )
        self.interview = Interview(
            bench,
            self.questions,
            before,
            languages,
            options,
            {"report": options.candidates, "development": options.candidates if fewer is None else fewer},
            folder=folder,
            texts={language: str(source) for language, source in bench.texts.items()},
            evaluation={language: str(source) for language, source in self.evaluation.items()},
            settings=[repr(setting) for family in TUNED for setting in tried(family, self._layers)],
        )
        self._answers: dict[tuple[str, Setting, Pair], pl.DataFrame] = {}

    def _possible(self, family: str) -> bool:
        """Whether a family has what it needs; if not, a note says what that is."""
        targets = [target for _, target in (*self.pairs, *self.tuning)]
        if family == "diffmean" and not self.bench.has_residual(targets):
            self.notes.append(
                "diffmean was left out: the statistics hold no residual stream. Record it: lape record --residual."
            )
            return False
        if family == "mask" and (missing := self.bench.without_text(targets)):
            self.notes.append(
                f"mask was left out: there is no text in {', '.join(missing)}. Give some: texts={{'{missing[0]}': PATH}}."
            )
            return False
        return True

    def all(self) -> Result:
        """Try, choose, report."""
        settings = [CEILING, *([NONE] if "none" in self.families else [])]
        tuned = {family: self._tried(family) for family in TUNED if family in self.families}
        self._fill(
            "development", [(setting, pair) for setting in settings for pair in self._asked(setting, self.tuning)]
        )
        for tries in tuned.values():
            self._fill("development", [(setting, pair) for setting in tries for pair in self.tuning])
        chosen = {family: self._chosen(tries) for family, tries in tuned.items() if tries}
        last = [(setting, pair) for setting in settings for pair in self._asked(setting, self.pairs)]
        last += [(by_target[pair[1]], pair) for by_target in chosen.values() for pair in self.pairs]
        last += self._following(chosen["neurons"]) if "neurons" in chosen else []
        self._fill("report", last)
        answers = pl.concat(self._answers.values())
        names = {(setting.family, setting.name, pair[1]) for setting, pair in last}
        how = {"resamples": self.options.resamples, "seed": self.options.seed}
        tables = {
            "forcing": records(answers, names, **how, tuned=self.tuning),
            "forcing_differences": differences(answers, **how),
            "forcing_transfer": transfer(answers, self.tuning, **how),
            "costs": self._costs(last),
        }
        tables |= {"forced_answers": answers, "identification": self._identification(answers)}
        return Result(tables, tuple(self.notes))

    def _tried(self, family: str) -> list[Setting]:
        """The settings of a family that every pair has the neurons for; of others a note says why not."""
        usable = []
        for setting in tried(family, self._layers):
            missing = self.bench.missing(setting, [*self.tuning, *self.pairs])
            if missing is None:
                usable.append(setting)
            else:
                self.notes.append(f"{family}, {setting.name}, was not tried: {missing}")
        return usable

    def _chosen(self, settings: Sequence[Setting]) -> dict[str, Setting]:
        """For each target the best setting on the development questions."""
        frame = self._frame("development")
        return {target: best(frame, settings, target) for target in dict.fromkeys(target for _, target in self.pairs)}

    def _following(self, chosen: Mapping[str, Setting]) -> list[tuple[Setting, Pair]]:
        """The parts and controls of the settings chosen for neurons, family by family."""
        result: list[tuple[Setting, Pair]] = []
        per_pair = [(setting, pair) for pair in self.pairs for setting in following(chosen[pair[1]])]
        for family in dict.fromkeys(setting.family for setting, _ in per_pair if setting.family in self.families):
            own = [(setting, pair) for setting, pair in per_pair if setting.family == family]
            missing = next((why for setting, pair in own if (why := self.bench.missing(setting, [pair]))), None)
            if missing is None:
                result += own
            else:
                self.notes.append(f"{family} was left out: {missing}")
        return result

    def _costs(self, last: Sequence[tuple[Setting, Pair]]) -> pl.DataFrame:
        edits = [(setting, pair) for setting, pair in last if setting.family in ("neurons", "random", "diffmean")]
        if not self.evaluation:
            return pl.DataFrame(schema=COSTS)
        options = TextOptions(tokens=self.options.cost_tokens, bos=self.bench.stats.bos)
        more = {"resamples": self.options.resamples, "seed": self.options.seed}
        make = partial(costs, self.bench, edits, self.evaluation, options, **more, progress=self.progress)
        return self.whole.table("costs", make)

    def _identification(self, answers: pl.DataFrame) -> pl.DataFrame:
        """The identifiers on lines of the evaluation text, cut to the median length of the ceiling's answers."""
        lines = {language: lines_in(source) for language, source in self.evaluation.items()}
        ceiling = answers.filter(pl.col("family") == "ceiling").group_by("target")
        lengths = ceiling.agg(pl.col("answer").str.len_chars().median().cast(pl.Int64)).iter_rows()
        characters = {target: max(length, 1) for target, length in lengths}
        known = {language: found for language, found in lines.items() if language in characters}
        both = {self.options.identifier: self.interview.first, self.options.second: self.interview.second}
        return identification(both, known, characters)

    def _fill(self, split: Split, todo: Sequence[tuple[Setting, Pair]]) -> None:
        """Run settings on pairs; the ceiling first, since examples are taken from its answers."""
        for done, (setting, pair) in enumerate(todo):
            self.progress(f"{split} questions: {setting.family}", done, len(todo))
            name = f"{split}.{setting.family}.{setting.name}.{'-'.join(pair)}"
            examples = self._examples(setting, split, pair)
            self._answers[split, setting, pair] = self.interview.cell(name, split, setting, pair, examples=examples)
        if todo:
            self.progress(f"{split} questions: {todo[-1][0].family}", len(todo), len(todo))

    def _asked(self, setting: Setting, pairs: Sequence[Pair]) -> list[Pair]:
        targets = dict.fromkeys(target for _, target in (*pairs, *self.pairs))
        return [(target, target) for target in targets] if setting.ceiling else list(pairs)

    def _frame(self, split: Split) -> pl.DataFrame:
        return pl.concat([frame for (of, _, _), frame in self._answers.items() if of == split])

    def _ceiling(self, target: str) -> pl.DataFrame:
        """The answers to the development questions asked in the target language."""
        return self._answers["development", CEILING, (target, target)]

    def _examples(self, setting: Setting, split: Split, pair: Pair) -> list[list[tuple[str, str]]]:
        """For each question, other development questions with what the model answers to them in the target language."""
        if not setting.asking.shots:
            return []
        source, target = pair
        ceiling = self._ceiling(target).filter("in_language")
        known = dict(zip(ceiling["question"], ceiling["answer"], strict=True))
        asked = self.questions["development"][source]
        result = []
        for number in range(len(self.questions[split][source])):
            others = [k for k in known if split != "development" or k != number]
            random.Random(self.options.seed * 10_007 + number).shuffle(others)
            result.append([(asked[k], _first_line(known[k])) for k in others[: setting.asking.shots]])
        return result


def _first_line(answer: str) -> str:
    return next((line.strip() for line in answer.split("\n") if line.strip()), "")
