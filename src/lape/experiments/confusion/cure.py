"""One thought, a cure for answers in the wrong language: edits and a line in the prompt, chosen on half the questions, reported on the others."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import polars as pl
from torch import nn

from lape.data import samples
from lape.data.language_id import Identifier, alike, base, identifier, lingua_languages
from lape.data.languages import tag
from lape.data.texts import Texts, listed
from lape.edit.edit import Edit, edited
from lape.edit.steer import SHIPPED, steering
from lape.errors import OptionError, TextError
from lape.experiments.confusion.prompts import MONOLINGUAL, Prompt, default_prompts
from lape.experiments.confusion.run import ConfusionOptions, confusion, text_of
from lape.experiments.confusion.table import CURES, LINE, NONE, rates
from lape.measure.answer_loss import ids_of
from lape.measure.bench import named_sets
from lape.measure.bootstrap import Resamples
from lape.measure.divergence import Pair, divergence
from lape.measure.generation import GenerationOptions, write
from lape.measure.intervals import ENDS
from lape.measure.language_confusion import ALL, Judge
from lape.measure.prompts import language_name
from lape.measure.result import Result
from lape.model.find import find
from lape.model.identity import check_made_with, checksum
from lape.options import given, positive
from lape.progress import Progress, each, silent
from lape.recording.record import record
from lape.ship import lora
from lape.ship.changes import changes
from lape.ship.export import export, placed
from lape.store import files
from lape.store.cells import Cells
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Family: TypeAlias = Literal["none", "prompt", "adapter", "both"]
CODE = "code"
"""What `keep` calls answers to programming questions."""
_CODE = (
    "Write a Python function that returns the n-th Fibonacci number.",
    "Write a Python function that checks whether a string is a palindrome.",
    "Show me how to read a CSV file in Python and sum one column.",
    "Write a SQL query that counts orders per customer.",
    "Write a JavaScript function that removes duplicates from an array.",
    "Write a bash one-liner that counts the lines of all .txt files.",
    "Write a Python class for a stack with push and pop.",
    "Explain this error: IndexError: list index out of range.",
)
SCREENED, FIRST = 32, 8
"""Prompts on which an edit is screened, and the first tokens of each answer that are looked at."""
COMPARED = 16
"""Answers of each kind on which the KL divergence is measured."""
_TURNED = ("other_script", "other_language", "slipped")
"""Kinds of failure that are a matter of the language alone."""
_ALIKE = 0.05
"""Shares of wrong first tokens that differ less are not told apart by so few prompts."""
_MOST = 6
"""Edits of a family whose answers are generated, at most."""
_PACED = 16
"""Tokens that are generated to see how fast that is."""


@dataclass(frozen=True)
class CureOptions(GenerationOptions):
    """How a cure is looked for."""

    new_tokens: int = 100
    """At most this many new tokens per answer."""
    batch: int = 40
    """Prompts that run at once."""
    system: str | None = None
    """What a chat model is told first in any case, where a prompt says nothing of its own; {language} as in line."""
    thinking: bool | None = None
    """Whether a model that reasons before it answers should. Default: as its chat template does by itself."""
    line: str = "Always answer in {language}."
    """What the system is told, alone and beside edits; {language} stands for the language's English name."""
    minutes: float = 60.0
    """About how long the search may take once the neurons are known, divided equally over edits alone and beside the line. One of each is tried at least."""
    sets: tuple[str, ...] = ("difference:100", "difference:200", "difference:50", "lape:100")
    """Which neurons are raised: difference:N (the N largest differences of mean activation), or lape:N; the first are tried first."""
    strengths: tuple[float, ...] = (0.25, 0.5, 0.35, 0.15, 0.75, 1.0)
    """How strongly, as a share of the mean activation in the language; the first are tried first."""
    kl: float = 0.1
    """The largest KL divergence from the unedited model on its own right answers, nats a token. What is further away is not used."""
    kept_kl: float = 0.05
    """The same on answers in the languages that are kept."""
    resamples: int = 2000
    """Bootstrap resamples of the questions behind the 95 % intervals."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "resamples")
        if not self.sets or not self.strengths or min(self.strengths) <= 0:
            raise OptionError("sets and strengths must each name one or more, and strengths be above 0.")
        if self.minutes <= 0 or self.kl <= 0 or self.kept_kl <= 0:
            raise OptionError("minutes, kl and kept_kl must be above 0.")


@dataclass(frozen=True)
class Trial:
    """Something that may be the cure."""

    family: Family
    setting: str
    line: bool = False
    sets: str | None = None
    strength: float | None = None


ADAPTER, RUN = "adapter", "run"
"""What is written into the folder: the adapter, if one is to be used, and the statistics, where they were recorded for it."""
UNEDITED, PROMPT = Trial("none", NONE), Trial("prompt", LINE, line=True)


def cure(
    model: PreTrainedModel | nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    texts: Texts,
    *,
    to: str,
    folder: str | Path,
    stats: ActivationStats | None = None,
    tokens: int = 6000,
    keep: Sequence[str] = (),
    new_tokens: int = 100,
    repetition_penalty: float = 1.1,
    batch: int = 40,
    system: str | None = None,
    thinking: bool | None = None,
    line: str = "Always answer in {language}.",
    minutes: float = 60.0,
    sets: tuple[str, ...] = ("difference:100", "difference:200", "difference:50", "lape:100"),
    strengths: tuple[float, ...] = (0.25, 0.5, 0.35, 0.15, 0.75, 1.0),
    kl: float = 0.1,
    kept_kl: float = 0.05,
    resamples: int = 2000,
    words: str | Path | None = None,
    lid: str | Path | None = None,
    progress: Progress = silent,
) -> Result:
    """Look for what makes a chat model answer in a language: a line in the prompt, an adapter, or both; and write the adapter, if one earns it.

    Questions are halved. On one half the unedited model, the line, and edits that raise the language's neurons at the gate (`lape.edit.steer.SHIPPED`),
    alone and beside the line, are compared: each is screened by how much of the first tokens is in other languages, and by its KL divergence from
    the unedited model; the best of those within the bounds answer, and the one of each family with the fewest failures is chosen. On the other half
    these are reported, edits as the adapters that are shipped. An adapter is worth it if it failed least on the first half, and on the second fails less
    than line and unedited model by more than chance: the 95 % interval of the difference, paired over questions, is below 0.

    `prompts`: as of `confusion`; those that want `to` are taken. `texts`: text of `to` and several other languages, by which its neurons are found, and
    to which the adapter's constants are fitted (see `lape.export`). `stats`: of the same model with `to` and other languages; by default they are
    recorded, on `tokens` of each language, and kept in `folder/run`. `folder`: where finished parts are kept, and the adapter is written
    (`folder/adapter`). `keep`: languages whose answers must stay as they are though the adapter is always on, and `code`. Further: see
    `CureOptions` and `confusion`.

    Gives `confusion_cures` (what was tried: `CURES` of `lape.experiments.confusion.table`) and the tables of `confusion` on the second half, a condition
    each. Raises what `confusion` and `export` do, and TextError for too few questions.

    Example:
        >>> from lape.experiments.confusion.cure import cure
        >>> from lape.experiments.confusion.prompts import default_prompts
        >>> asked = default_prompts(["fr"], most=4)
        >>> some = {"en": "en.txt", "fr": "fr.txt"}
        >>> few = {"sets": ("difference:5",), "strengths": (1.0,), "new_tokens": 4, "tokens": 300}
        >>> found = cure(model, tokenizer, asked, some, to="fr", folder="fix", line="fr", **few)
        >>> found["confusion_cures"]["family"].to_list()
        ['none', 'prompt', 'adapter', 'both']
    """
    options = given(CureOptions, locals())
    to = tag(to)
    asked = [_told(one, options.system) for one in prompts if one.language == to]
    first, second = halves(asked)
    kept = [*map(_kept_name, keep)]
    folder = Path(folder)
    made = {"statistics": None if stats is None else stats.digest, "texts": listed(texts), "tokens": tokens}
    state = {"to": to, "keep": kept, "options": asdict(options), **made, "prompts": [asdict(one) for one in asked]}
    files.same_run(folder, {**state, "model": checksum(model)})
    if stats is None:
        stats = _recorded(model, tokenizer, texts, tokens, folder / RUN, progress)
    check_made_with(model, tokenizer, statistics=stats)
    search = _Search(model, tokenizer, stats, texts, to, options, folder, (words, lid), progress)
    return _searched(search, first, second, kept)


def halves(prompts: Sequence[Prompt]) -> tuple[list[Prompt], list[Prompt]]:
    """The prompts of every other question, to choose on, and those of the others, to report on. Raises TextError for fewer than 4 questions."""
    names = dict.fromkeys(one.question for one in prompts)
    if len(names) < 4:
        raise TextError(f"There are {len(names)} questions in the language. Expected at least 4; some dozens say more.")
    chosen = set([*names][::2])
    return [one for one in prompts if one.question in chosen], [one for one in prompts if one.question not in chosen]


def with_line(prompt: Prompt, line: str) -> Prompt:
    """A prompt with a line that the system is told too, after what it is told already."""
    told = told_line(line, prompt.language)
    if prompt.messages and prompt.messages[0]["role"] == "system":
        first = {**prompt.messages[0], "content": f"{prompt.messages[0]['content']}\n\n{told}"}
        return replace(prompt, messages=(first, *prompt.messages[1:]))
    return replace(prompt, system=f"{prompt.system}\n\n{told}" if prompt.system else told)


def _told(prompt: Prompt, system: str | None) -> Prompt:
    """A prompt with what the system is told, where it says nothing of its own."""
    own = prompt.system or (prompt.messages and prompt.messages[0]["role"] == "system")
    return prompt if own or not system else with_line(prompt, system)


def told_line(line: str, language: str) -> str:
    """The line with the language's English name in its place."""
    return line.replace("{language}", language_name(language, "en"))


def _recorded(
    model: Any, tokenizer: Any, texts: Texts, tokens: int, place: Path, progress: Progress
) -> ActivationStats:
    """Statistics of the texts, which a run that was stopped may have left."""
    if place.exists():
        return ActivationStats.load(place)
    return record(model, tokenizer, texts, tokens=tokens, out=place, progress=progress)


def _kept_name(name: str) -> str:
    """A language whose answers are kept. Raises OptionError for one without bundled questions."""
    known = (*samples.LANGUAGES, *samples.FURTHER)
    if name == CODE or tag(name) in known:
        return name if name == CODE else tag(name)
    raise OptionError(f"There are no bundled questions in {name}. keep takes {', '.join(known)} and {CODE}.")


def _searched(search: _Search, first: Sequence[Prompt], second: Sequence[Prompt], keep: Sequence[str]) -> Result:
    """Choose on the first prompts, report on the second."""
    rows = {one.setting: search.answered(one, first) for one in (UNEDITED, PROMPT)}
    bounds = search.bounds(first, keep)
    plan = search.plan(first, second)
    search.notes += (
        f"Of edits alone and of edits beside the line {plan['screened']} were screened each, of which at most {plan['answered']}, the best within the "
        f"bounds, answered; chosen on {len(first)} prompts, reported on {len(second)} to other questions.",
    )
    for family in ("adapter", "both"):
        rows |= search.family(family, first, bounds, plan)
    table = chosen(pl.DataFrame([*rows.values()], schema=CURES))
    judged = search.reported(table, second)
    table = used(table, judged, search.options.resamples)
    search.ship(table, judged)
    shown, changes = rates(judged, resamples=search.options.resamples)
    tables = {"confusion": shown, "confusion_changes": changes, "confused_answers": judged, "confusion_cures": table}
    return Result(tables, search.notes)


class _Search:
    """A model, what may mend it, and what is kept of it in a folder."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        stats: ActivationStats,
        texts: Texts,
        to: str,
        options: CureOptions,
        folder: Path,
        judge: tuple[Any, Any],
        progress: Progress,
    ) -> None:
        self.model, self.tokenizer, self.stats, self.texts, self.to = model, tokenizer, stats, texts, to
        self.options, self.folder, self.progress = options, folder, progress
        self.words, self.lid = judge
        self.cells = Cells(folder / files.CELLS)
        self.notes: tuple[str, ...] = ()
        self._sets: dict[str, LanguageNeurons] = {}
        self._judged: dict[tuple[str, str], pl.DataFrame] = {}
        found = find(model)
        for one in self.grid("adapter"):  # refuses before anything is asked
            lora.check(changes(model, found, self.edits(one), biases=False))

    # What is tried

    def grid(self, family: Family) -> Iterator[Trial]:
        """Every edit of a family, those that are tried first first."""
        line = family == "both"
        for sets in self.options.sets:
            for strength in self.options.strengths:
                name = f"{sets} × {strength:g}"
                yield Trial(family, f"{LINE} + {name}" if line else name, line, sets, strength)

    def edits(self, trial: Trial) -> list[Edit]:
        """What a trial does to neurons."""
        if trial.sets is None or trial.strength is None:
            return []
        if trial.sets not in self._sets:
            self._sets[trial.sets] = named_sets(self.stats, trial.sets)
        return steering(self._sets[trial.sets], self.stats, replace(SHIPPED, strength=trial.strength), to=self.to)

    def under(self, trial: Trial) -> AbstractContextManager[object]:
        return edited(self.model, self.edits(trial))

    def asked(self, trial: Trial, prompts: Sequence[Prompt]) -> list[Prompt]:
        return [with_line(one, self.options.line) for one in prompts] if trial.line else [*prompts]

    # Answers

    def judged(
        self, half: str, trial: Trial, prompts: Sequence[Prompt], *, adapter: Path | None = None
    ) -> pl.DataFrame:
        """The judged answers under a trial, or with its adapter."""
        if (half, trial.setting) not in self._judged:
            self._judged[half, trial.setting] = self._asked(half, trial, prompts, adapter)
        return self._judged[half, trial.setting]

    def _asked(self, half: str, trial: Trial, prompts: Sequence[Prompt], adapter: Path | None) -> pl.DataFrame:
        usual = {key: getattr(self.options, key) for key in vars(GenerationOptions())}
        more: dict[str, Any] = {"words": self.words, "lid": self.lid, "resamples": 1, "thinking": self.options.thinking}
        with self.under(trial) if adapter is None else nullcontext():
            found = confusion(
                self.model,
                self.tokenizer,
                self.asked(trial, prompts),
                **usual,
                **more,
                condition=trial.setting,
                adapter=adapter,
                folder=self.folder / files.CELLS / f"{half} {trial.setting}",
                progress=self._told(trial.setting),
            )
        return found["confused_answers"]

    def _told(self, condition: str) -> Progress:
        def report(task: str, done: int, total: int | None) -> None:
            self.progress(f"{task}: {condition}", done, total)

        return report

    def answered(self, trial: Trial, prompts: Sequence[Prompt], **known: Any) -> dict[str, Any]:
        """The row of a trial that answered the prompts it is chosen on."""
        judged = self.judged("first", trial, prompts)
        failing = float(judged["kind"].is_not_null().mean())  # type: ignore[arg-type]
        return {**asdict(trial), "within": True, **known, "answers": len(judged), "failing": failing}

    # Bounds

    def bounds(self, prompts: Sequence[Prompt], keep: Sequence[str]) -> dict[str, list[tuple[Prompt, str]]]:
        """Answers of the unedited model that an edit should leave as they are: those in the language, and those in the languages that are kept."""
        mine = self._right(UNEDITED, prompts) or self._right(PROMPT, prompts)
        if not mine:
            self.notes += (
                f"The model gives no right answer in {self.to}, even where it is told to: there is nothing to measure the KL divergence on.",
            )
        found = {self.to: _spread(mine, COMPARED)}
        for name in keep:
            found[name] = self._kept(name)
        return found

    def _right(self, trial: Trial, prompts: Sequence[Prompt]) -> list[tuple[Prompt, str]]:
        judged = self.judged("first", trial, prompts)
        rows = zip(prompts, judged.iter_rows(named=True), strict=True)
        return [(prompt, row["answer"]) for prompt, row in rows if row["kind"] is None]

    def _kept(self, name: str) -> list[tuple[Prompt, str]]:
        """Questions in a language, or for code, with the unedited model's answers."""
        own = [] if name == CODE else [one for one in default_prompts([name], COMPARED) if one.task == MONOLINGUAL]
        asked = own or [Prompt(one, "en") for one in _CODE]

        def make() -> dict[str, Any]:
            return {"answers": self._written(UNEDITED, asked, 48, f"answering in {name}")}

        return list(zip(asked, self.cells.record(f"kept {name}", make)["answers"], strict=True))

    def _written(self, trial: Trial, prompts: Sequence[Prompt], new_tokens: int, task: str) -> list[str]:
        how = GenerationOptions(new_tokens, self.options.repetition_penalty, self.options.batch)
        self.progress(task, 0, None)
        with self.under(trial):
            return [one.text for one in write(self.model, self.tokenizer, self._texts(trial, prompts), how)]

    def _texts(self, trial: Trial, prompts: Sequence[Prompt]) -> list[str]:
        how = ConfusionOptions(thinking=self.options.thinking)
        return [text_of(self.tokenizer, one, how) for one in self.asked(trial, prompts)]

    def divergence(self, trial: Trial, answers: Sequence[tuple[Prompt, str]]) -> float | None:
        """The KL divergence of a trial from the unedited model on answers; None where there are none."""
        if not answers:
            return None
        prompts, said = zip(*answers, strict=True)

        def pairs(trial: Trial) -> list[Pair]:
            texts = self._texts(trial, prompts)
            return [ids_of(self.tokenizer, text, answer) for text, answer in zip(texts, said, strict=True)]

        told = (
            trial if prompts[0].language == self.to else UNEDITED
        )  # no one asks for the language where another is wanted
        return divergence(self.model, pairs(UNEDITED), partial(self.under, trial), told=pairs(told))

    # The search

    def plan(self, first: Sequence[Prompt], second: Sequence[Prompt]) -> dict[str, int]:
        """How many edits of each family are screened, and how many answer: by how fast this machine is, and the minutes that there are."""

        def make() -> dict[str, Any]:
            some = _spread(first, self.options.batch)
            started = time.perf_counter()
            self._written(UNEDITED, some, _PACED, "measuring how fast answers come")
            token = (time.perf_counter() - started) / (_PACED * len(some))
            answer, screen = token * len(first) * self.options.new_tokens, token * SCREENED * FIRST * 4
            rest = 60 * self.options.minutes - 2 * answer - 4 * token * len(second) * self.options.new_tokens
            each_family = max(0.0, rest / 2)
            screened = min(max(1, int(each_family / 2 / screen)), len([*self.grid("adapter")]))
            return {"screened": screened, "answered": min(max(1, int(each_family / 2 / answer)), _MOST, screened)}

        return self.cells.record("plan", make)

    def family(
        self,
        family: Literal["adapter", "both"],
        first: Sequence[Prompt],
        bounds: Mapping[str, list[tuple[Prompt, str]]],
        plan: Mapping[str, int],
    ) -> dict[str, dict[str, Any]]:
        """Rows of a family by setting: all that were screened, and of the best the failures of their answers."""
        tried = [*self.grid(family)][: plan["screened"]]
        task = "screening edits alone" if family == "adapter" else "screening edits beside the line"
        some = self._worst(PROMPT if family == "both" else UNEDITED, first)
        rows = {one.setting: (one, self._screened(one, some, bounds)) for one in each(tried, task, self.progress)}
        within = [one for one in rows.values() if one[1]["within"]]
        best = sorted(within, key=lambda one: round(one[1]["wrong_mass"] / _ALIKE))  # of those alike the first
        found = {name: {**asdict(trial), **known} for name, (trial, known) in rows.items()}
        for trial, known in best[: plan["answered"]]:
            found[trial.setting] = self.answered(trial, first, **known)
        return found

    def _worst(self, trial: Trial, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Prompts to screen on: those whose answers are in another language, then those that fail otherwise, then others, evenly spread."""
        judged = self.judged("first", trial, prompts)
        kinds = judged["kind"].to_list()
        turned = [k for k, kind in enumerate(kinds) if kind in _TURNED]
        failed = [k for k, kind in enumerate(kinds) if kind is not None and kind not in _TURNED]
        right = [k for k, kind in enumerate(kinds) if kind is None]
        chosen = [*turned, *failed][:SCREENED]
        return [prompts[k] for k in (*chosen, *_spread(right, SCREENED - len(chosen)))]

    def _screened(
        self, trial: Trial, prompts: Sequence[Prompt], bounds: Mapping[str, list[tuple[Prompt, str]]]
    ) -> dict[str, Any]:
        def make() -> dict[str, Any]:
            begun = self._written(trial, prompts, FIRST, f"screening {trial.setting}")
            kl = {name: self.divergence(trial, answers) for name, answers in bounds.items()}
            return {"wrong_mass": wrong_mass(self._identify, begun, self.to), "kl": kl}

        found = self.cells.record(f"screened {trial.setting}", make)
        kl = dict(found["kl"])
        mine = kl.pop(self.to)
        worst = max(kl, key=lambda name: kl[name] or 0.0) if kl else None
        kept = kl[worst] if worst else None
        within = (mine is None or mine <= self.options.kl) and (kept is None or kept <= self.options.kept_kl)
        return {
            "wrong_mass": found["wrong_mass"],
            "kl": mine,
            "kept_kl": kept,
            "kept_worst": worst,
            "within": within,
        }

    @cached_property
    def _identify(self) -> Identifier:
        known = lingua_languages()
        if base(self.to) not in known:
            return Judge(self.lid, self.words).identify
        return identifier("lingua", [one for one in (self.to, *self.stats.languages) if base(one) in known])

    # What is reported and shipped

    def reported(self, table: pl.DataFrame, second: Sequence[Prompt]) -> pl.DataFrame:
        """Judged answers to the other half: of the unedited model, the line, and the best of each family, as an adapter."""
        parts = []
        for row in table.filter("chosen").iter_rows(named=True):
            trial = _trial(row)
            adapter = None if trial.sets is None else self._adapter(trial)
            parts.append(self.judged("second", trial, second, adapter=adapter))
        return pl.concat(parts)

    def _adapter(self, trial: Trial) -> Path:
        """The folder of a trial's adapter, made where it is not there."""
        folder = self.folder / files.CELLS / f"adapter {trial.sets} × {trial.strength:g}"
        if not folder.exists():
            about = [f"writes {self.to} ({trial.sets}, strength {trial.strength:g})"]
            how: dict[str, Any] = {"format": "lora", "tokenizer": self.tokenizer, "texts": self.texts, "about": about}
            export(self.model, self.edits(trial), folder, **how, progress=self.progress)
        return folder

    def ship(self, table: pl.DataFrame, judged: pl.DataFrame) -> None:
        """Put the adapter that is used in its place, with what was measured on its card."""
        for row in table.filter(pl.col("used") & pl.col("sets").is_not_null()).iter_rows(named=True):
            trial = _trial(row)
            shown = rates(judged, resamples=self.options.resamples)[0].filter(source=ALL, language=self.to)
            told = {"line": told_line(self.options.line, self.to)} if trial.line else {}
            placed(self._adapter(trial), self.folder / ADAPTER, answers=shown.to_dicts(), **told)


def wrong_mass(identify: Identifier, texts: Sequence[str], language: str) -> float:
    """Mean share of probability that texts are in another language, by an identifier; half where it cannot tell.

    Example:
        >>> from lape.data.language_id import lingua
        >>> from lape.experiments.confusion.cure import wrong_mass
        >>> identify = lingua(["fr", "en"])
        >>> wrong_mass(identify, ["Le ciel est bleu parce que la lumière"], "fr") < 0.2 < wrong_mass(identify, ["The sky is blue because"], "fr")
        True
    """
    found = []
    for guess in identify(texts):
        right = guess.language in alike(language)
        found.append(0.5 if guess.language is None else 1 - guess.certainty if right else guess.certainty)
    return sum(found) / len(found)


def chosen(table: pl.DataFrame) -> pl.DataFrame:
    """What was tried, with the best of each family marked: the fewest failures, then the smallest KL divergence."""
    best = set()
    for (_family,), some in table.filter(pl.col("failing").is_not_null()).group_by("family", maintain_order=True):
        best.add(some.sort("failing", "kl", nulls_last=False, maintain_order=True)["setting"][0])
    return table.with_columns(pl.col("setting").is_in([*best]).alias("chosen"))


def used(table: pl.DataFrame, judged: pl.DataFrame, resamples: int = 2000) -> pl.DataFrame:
    """What was tried, with what is to be used marked: the family with the fewest failures where it was chosen, if on the other half too it fails less than
    what needs no adapter, by more than chance; else the better of the line and nothing.
    """
    first = table.filter("chosen")
    shares = judged.group_by("condition", maintain_order=True).agg(pl.col("kind").is_not_null().mean().alias("failing"))
    second = dict(shares.iter_rows())
    plain = first.filter(pl.col("sets").is_null()).sort("failing", maintain_order=True)["setting"].to_list()
    edits = first.filter(pl.col("sets").is_not_null())["setting"].to_list()
    against = min(plain, key=lambda one: second[one])
    gains = {one: gain(judged, one, against, resamples) for one in edits}
    best = first.sort("failing", maintain_order=True)["setting"][0]
    high = gains[best]["gain_high"] if best in gains else None
    name = best if high is not None and high < 0 else plain[0]
    of = pl.col("setting")
    columns = [
        of.replace_strict(second, default=None, return_dtype=pl.Float64).alias("reported_failing"),
        *(
            of.replace_strict(
                {one: row[key] for one, row in gains.items()}, default=None, return_dtype=pl.Float64
            ).alias(key)
            for key in (f"gain{end}" for end in ENDS)
        ),
    ]
    return table.with_columns(*columns, (of == name).alias("used")).select(*CURES)


def gain(judged: pl.DataFrame, ours: str, theirs: str, resamples: int) -> dict[str, float | None]:
    """The share of answers that fail in one condition less that in another, paired over questions, with its interval."""
    each = (
        judged.filter(pl.col("condition").is_in([ours, theirs]))
        .group_by("question", maintain_order=True)
        .agg(
            *(
                (pl.col("kind").is_not_null() & (pl.col("condition") == one)).sum().alias(name)
                for name, one in (("a", ours), ("b", theirs))
            ),
            (pl.col("condition") == ours).sum().alias("size"),
        )
    )
    a, b, size = (each[name].to_numpy().astype(float) for name in ("a", "b", "size"))
    drawn = Resamples(len(each), resamples, 0)
    return drawn.named("gain", drawn.ratio(a - b, size))


def _trial(row: Mapping[str, Any]) -> Trial:
    return Trial(**{name: row[name] for name in ("family", "setting", "line", "sets", "strength")})


def _spread(things: Sequence[Any], most: int) -> list[Any]:
    """At most so many, evenly spread."""
    return [things[int(k * len(things) / most)] for k in range(most)] if len(things) > most else [*things]
