"""A search for a cure: what is tried, within which bounds, on which of the questions, and what is written of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import polars as pl

from lape.data.language_id import Identifier, alike, base, identifier, lingua_languages
from lape.edit.edit import Edit, Scale, by_unit, edited
from lape.edit.steer import SHIPPED, steering
from lape.errors import LapeError, OptionError, certain
from lape.experiments.confusion.prompts import MONOLINGUAL, Prompt, default_prompts, evenly
from lape.experiments.confusion.run import ConfusionOptions, confusion, text_of, told_line
from lape.experiments.confusion.table import EDITS, LINE, NONE
from lape.experiments.confusion.task import CODE, CureTask, neurons_to_raise
from lape.experiments.confusion.trial import PROMPT, UNEDITED, Family, Trial, grid, with_line
from lape.measure.answer_loss import ids_of
from lape.measure.divergence import TOKENS, divergence
from lape.measure.generation import GenerationOptions, write
from lape.measure.heads import rank_heads
from lape.measure.language_confusion import ALL, Judge
from lape.measure.prompts import may_think
from lape.model.heads import heads
from lape.progress import Progress, each
from lape.ship import lora
from lape.ship.changes import changes
from lape.ship.export import export, placed
from lape.signs import many
from lape.store import files
from lape.store.cells import Cells
from lape.values.heads import head_of
from lape.values.neurons import NeuronSet
from lape.values.stats import ActivationStats

ADAPTER = "adapter"
"""Where the adapter is written within the folder, if one is to be used."""
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
TURNED = ("other_script", "other_language", "slipped")
"""Kinds of failure that are a matter of the language alone."""
PLAN = "plan"
"""The cell that says how many edits are screened."""
_ALIKE = 0.05
"""Shares of wrong first tokens that differ less are not told apart by so few prompts."""


@dataclass(frozen=True)
class _Bound:
    """Answers that an edit should leave as they are."""

    name: str
    """The language of the answers, or code."""
    asked: Sequence[Prompt]
    """What was asked, with the line where it was told."""
    answers: Sequence[str]
    most: float
    """The largest KL divergence on them, nats a token."""


class Search:
    """A model, what may mend it, and what is kept of it in a folder."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        task: CureTask,
        stats: ActivationStats,
        folder: Path,
        progress: Progress,
    ) -> None:
        self.model, self.tokenizer, self.task, self.stats = model, tokenizer, task, stats
        self.to, self.options, self.folder, self.progress = task.to, task.options, folder, progress
        self.words, self.lid = task.words, task.lid
        self.cells = Cells(folder / files.CELLS)
        self.notes: list[str] = []
        self.thinking = False if may_think(tokenizer) else None
        """Off where the template has a switch: the first tokens of an answer are looked at."""
        self._sets = neurons_to_raise(stats, task.to, task.options.sets)
        self._heads: list[str] = []
        self._judged: dict[tuple[str, str], pl.DataFrame] = {}
        self._bounds: dict[Family, _Bound | None] = {}
        self._kept: list[_Bound] = []

    # What is tried

    def tried(self, family: Literal["adapter", "both"]) -> list[Trial]:
        """The edits of a family that are screened."""
        every = grid(family, self.options.sets, self.options.strengths, self._heads, self.options.factors)
        return [*islice(every, self.options.candidates)]

    def edits(self, trial: Trial) -> list[Edit]:
        """What a trial does to neurons and heads."""
        found: list[Edit] = []
        if trial.sets is not None and trial.strength is not None:
            how = replace(SHIPPED, strength=trial.strength)
            found += steering(self._sets[trial.sets], self.stats, how, to=self.to)
        if trial.head is not None and trial.factor is not None:
            found.append(Scale(heads(self.model, [head_of(trial.head)]), trial.factor))
        return found

    def under(self, trial: Trial) -> AbstractContextManager[object]:
        """While inside, the model is edited so."""
        return edited(self.model, self.edits(trial))

    def asked(self, trial: Trial, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Prompts as they are asked under a trial."""
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
        options = ConfusionOptions(**usual, resamples=1, thinking=self.thinking)
        more: dict[str, Any] = {"words": self.words, "lid": self.lid}

        def told(task: str, done: int, total: int | None) -> None:
            self.progress(f"{task}: {trial.setting}", done, total)

        with self.under(trial) if adapter is None else nullcontext():
            found = confusion(
                self.model,
                self.tokenizer,
                self.asked(trial, prompts),
                options=options,
                **more,
                condition=trial.setting,
                adapter=adapter,
                folder=self.cells.place(f"{half} {trial.setting}"),
                progress=told,
            )
        return found["confused_answers"]

    def answered(self, trial: Trial, prompts: Sequence[Prompt], **known: Any) -> dict[str, Any]:
        """The row of a trial that answered the prompts it is chosen on."""
        judged = self.judged("first", trial, prompts)
        failing = float(judged["kind"].is_not_null().mean())  # type: ignore[arg-type]
        return {**asdict(trial), "within": True, **known, "answers": len(judged), "failing": failing}

    def refuse_reasoning(self, prompts: Sequence[Prompt]) -> None:
        """Raises OptionError for a model that reasons before it answers, whatever it is told: what it begins with is no answer."""
        thought = self.judged("first", UNEDITED, prompts)["reasoning"].is_not_null()
        if thought.mean() > 0.5:  # type: ignore[operator]
            raise OptionError(
                f"{int(thought.sum())} of {len(thought)} answers begin with reasoning, and lape fix looks at how answers begin. Expected a model that answers "
                "at once, or a template that can switch reasoning off."
            )

    # Bounds

    def learn_bounds(self, prompts: Sequence[Prompt], keep: Sequence[str]) -> None:
        """The unedited model's answers that edits should leave as they are: right ones, without the line and with it, and those of what is kept."""
        right = {one.family: self._right(one, prompts) for one in (UNEDITED, PROMPT)}
        self._bounds["both"] = right["prompt"]
        self._bounds["adapter"] = right["none"] or right["prompt"]
        fewest = min(len(one.answers) if one else 0 for one in self._bounds.values())
        if fewest < COMPARED:
            self.notes.append(
                f"The model gives {fewest} right answers in {self.to} to measure the KL divergence on, of {COMPARED} that are wanted"
                f"{': there is no bound on how far an edit may go' if not fewest else ''}."
            )
        self._kept = [self._kept_answers(name) for name in keep]

    def learn_heads(self, prompts: Sequence[Prompt]) -> None:
        """The attention heads that make right answers likelier than wrong ones, where the line turns wrong answers into right ones."""
        if not self.options.heads:
            return
        without, told = (self.judged("first", one, prompts) for one in (UNEDITED, PROMPT))
        rows = zip(self._texts(prompts), without.iter_rows(named=True), told.iter_rows(named=True), strict=True)
        turned = [
            (text, right["answer"], wrong["answer"])
            for text, wrong, right in rows
            if wrong["kind"] in TURNED and right["kind"] is None
        ]
        if not turned:
            self.notes.append("The line turns no wrong answer into a right one, so no attention head was looked for.")
            return
        taken = evenly(turned, COMPARED)

        def make() -> dict[str, Any]:
            self.progress("looking for an attention head", 0, None)
            pairs = [[ids_of(self.tokenizer, text, answers[k]) for text, *answers in taken] for k in (0, 1)]
            try:
                ranked = rank_heads(self.model, *pairs, first=FIRST).filter(pl.col("nats") > 0)
                best = ranked.head(self.options.heads).to_dicts()
                for one in best:
                    self._check_ships(heads(self.model, [(one["layer"], one["head"])]))
            except (LapeError, RuntimeError) as error:  # also where memory, or a kernel, is not made for gradients
                return {"heads": [], "why": str(error).splitlines()[0] if str(error) else type(error).__name__}
            return {"heads": best, "next": ranked["nats"].to_list()[len(best) : len(best) + 1]}

        found = self.cells.kept_record("heads")
        if found is None:
            found = make()
            if "why" not in found:  # the next run may have the memory that this one lacked
                self.cells.keep_record("heads", found)
        if not found["heads"]:
            why = found.get("why", "none makes right answers likelier.")
            self.notes.append(f"No attention head is tried: {why}")
            return
        self._heads = [f"{one['layer']}.{one['head']}" for one in found["heads"]]
        named = ", ".join(
            f"{name} ({one['nats']:.1f} nats)" for name, one in zip(self._heads, found["heads"], strict=True)
        )
        rest = "".join(f"; the next has {nats:.1f}" for nats in found["next"])
        self.notes.append(
            f"Attention heads (layer.head) that make right answers likeliest beside wrong ones, by {many(len(taken), 'prompt')} that the line mends: "
            f"{named}{rest}."
        )

    def _check_ships(self, chosen: NeuronSet) -> None:
        """Refuses heads that no adapter reaches, before anything is asked of them."""
        parts = by_unit(self.model, [Scale(chosen, self.options.factors[0])])
        lora.updates(self.model, changes(self.model, parts, biases=False), {})

    def _right(self, trial: Trial, prompts: Sequence[Prompt]) -> _Bound | None:
        judged = self.judged("first", trial, prompts)
        rows = zip(self.asked(trial, prompts), judged.iter_rows(named=True), strict=True)
        pairs = evenly([(prompt, row["answer"]) for prompt, row in rows if row["kind"] is None], COMPARED)
        if not pairs:
            return None
        asked, answers = zip(*pairs, strict=True)
        return _Bound(self.to, asked, answers, self.options.kl)

    def _kept_answers(self, name: str) -> _Bound:
        """Questions in a language, or for code, with the unedited model's answers. No one tells it the line there."""
        asked = _kept_prompts(name)

        def make() -> dict[str, Any]:
            return {"answers": self._begun(UNEDITED, asked, TOKENS, f"answering in {name}")}

        return _Bound(name, asked, self.cells.record(f"kept {name}", make)["answers"], self.options.kept_kl)

    def _begun(self, trial: Trial, prompts: Sequence[Prompt], new_tokens: int, task: str) -> list[str]:
        """The beginnings of answers, prompts as they are."""
        how = GenerationOptions(new_tokens, self.options.repetition_penalty, self.options.batch)
        self.progress(task, 0, None)
        with self.under(trial):
            return [one.text for one in write(self.model, self.tokenizer, self._texts(prompts), how)]

    def _texts(self, prompts: Sequence[Prompt]) -> list[str]:
        how = ConfusionOptions(thinking=self.thinking)
        return [text_of(self.tokenizer, one, how) for one in prompts]

    def _far(self, trial: Trial, bound: _Bound) -> float | None:
        """How far a trial is from the unedited model on answers; None where that is infinite."""
        texts = zip(self._texts(bound.asked), bound.answers, strict=True)
        pairs = [ids_of(self.tokenizer, text, answer) for text, answer in texts]
        found = divergence(self.model, pairs, partial(self.under, trial))
        return found if math.isfinite(found) else None

    # The search

    def family(self, family: Literal["adapter", "both"], first: Sequence[Prompt]) -> dict[str, dict[str, Any]]:
        """Rows of a family by setting: all that were screened, and of the best the failures of their answers."""
        tried = self.tried(family)
        task = "screening edits alone" if family == "adapter" else "screening edits beside the line"
        some = self._worst(PROMPT if family == "both" else UNEDITED, first)
        rows = {one.setting: (one, self._screened(one, some)) for one in each(tried, task, self.progress)}
        within = [one for one in rows.values() if one[1]["within"]]
        best = sorted(within, key=lambda one: round(one[1]["wrong_mass"] / _ALIKE))  # of those alike the first
        found = {name: {**asdict(trial), **known} for name, (trial, known) in rows.items()}
        for trial, known in best[: self.task.answered]:
            found[trial.setting] = self.answered(trial, first, **known)
        return found

    def _worst(self, trial: Trial, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Prompts to screen on: those whose answers are in another language, then those that fail otherwise, then others, evenly spread."""
        kinds = self.judged("first", trial, prompts)["kind"].to_list()
        turned = [k for k, kind in enumerate(kinds) if kind in TURNED]
        failed = [k for k, kind in enumerate(kinds) if kind is not None and kind not in TURNED]
        right = [k for k, kind in enumerate(kinds) if kind is None]
        taken = [*turned, *failed][:SCREENED]
        return [prompts[k] for k in (*taken, *evenly(right, SCREENED - len(taken)))]

    def _screened(self, trial: Trial, prompts: Sequence[Prompt]) -> dict[str, Any]:
        bound = self._bounds[trial.family]

        def make() -> dict[str, Any]:
            begun = self._begun(trial, self.asked(trial, prompts), FIRST, f"screening {trial.setting}")
            kept = {one.name: self._far(trial, one) for one in self._kept}
            mine = None if bound is None else self._far(trial, bound)
            return {"wrong_mass": wrong_mass(self._identify, begun, self.to), "kl": mine, "kept": kept}

        found = self.cells.record(f"screened {trial.setting}", make)
        mine, kept = found["kl"], found["kept"]
        worst = max(kept, key=lambda name: math.inf if kept[name] is None else kept[name]) if kept else None
        bounded = [(mine, self.options.kl)] if bound is not None else []
        bounded += [(one, self.options.kept_kl) for one in kept.values()]
        return {
            "wrong_mass": found["wrong_mass"],
            "kl": mine,
            "kl_answers": 0 if bound is None else len(bound.answers),
            "kept_kl": kept[worst] if worst else None,
            "kept_worst": worst,
            "within": all(far is not None and far <= most for far, most in bounded),
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
            trial = Trial.read(row)
            adapter = self._adapter(trial) if self.edits(trial) else None
            parts.append(self.judged("second", trial, second, adapter=adapter))
        return pl.concat(parts)

    def _adapter(self, trial: Trial) -> Path:
        """The folder of a trial's adapter, made where it is not there."""
        folder = certain(self.cells.place(f"adapter {trial.edit}"))  # a search has a folder
        if not folder.exists():
            about = [f"writes {self.to} ({trial.edit})"]
            how: dict[str, Any] = {
                "format": "lora",
                "tokenizer": self.tokenizer,
                "texts": self.task.texts,
                "about": about,
            }
            how |= {**self.task.reading, "bos": self.stats.bos}
            export(self.model, self.edits(trial), folder, **how, progress=self.progress)
        return folder

    def ship(self, table: pl.DataFrame, rated: pl.DataFrame) -> None:
        """Put the adapter that is used in its place, with what was measured on its card: of it, of the line, and of the unedited model."""
        for row in table.filter(pl.col("used") & EDITS).iter_rows(named=True):
            trial = Trial.read(row)
            named = {
                NONE: "unedited",
                LINE: "the line alone",
                trial.setting: "this adapter and the line" if trial.line else "this adapter",
            }
            shown = rated.filter(pl.col("condition").is_in([*named]), source=ALL, language=self.to)
            answers = shown.with_columns(pl.col("condition").replace(named)).to_dicts()
            line = told_line(self.options.line, self.to)
            placed(self._adapter(trial), self.folder / ADAPTER, answers=answers, line=line)


def wrong_mass(identify: Identifier, texts: Sequence[str], language: str) -> float:
    """Mean share of probability that texts are in another language, by an identifier; half where it cannot tell.

    Example:
        >>> from lape.data.language_id import lingua
        >>> from lape.experiments.confusion.search import wrong_mass
        >>> identify = lingua(["fr", "en"])
        >>> wrong_mass(identify, ["Le ciel est bleu parce que la lumière"], "fr") < 0.2 < wrong_mass(identify, ["The sky is blue because"], "fr")
        True
    """
    found = []
    for guess in identify(texts):
        right = guess.language in alike(language)
        found.append(0.5 if guess.language is None else 1 - guess.certainty if right else guess.certainty)
    return sum(found) / len(found)


def _kept_prompts(name: str) -> list[Prompt]:
    if name == CODE:
        return [Prompt(one, "en") for one in _CODE]
    return [one for one in default_prompts([name], COMPARED) if one.task == MONOLINGUAL]
