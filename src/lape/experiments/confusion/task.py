"""What a cure is looked for: languages, questions, text and options, checked before a model is loaded."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lape.data import samples
from lape.data.languages import tag
from lape.data.texts import Documents, Source, Texts
from lape.edit.steer import SHIPPED, steering
from lape.errors import OptionError, TextError
from lape.experiments.confusion.decision import halves
from lape.experiments.confusion.prompts import Prompt
from lape.experiments.confusion.run import judge_of
from lape.experiments.confusion.trial import with_line
from lape.measure.bench import check_specs, named_sets
from lape.measure.generation import GenerationOptions
from lape.options import AboveZero, NotNegative, Positive
from lape.recording.engine import RecordOptions
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

CODE = "code"
"""What `keep` calls answers to programming questions."""
ANSWERED = 4
"""Of so many edits that are screened, one answers all questions."""
MOST_ANSWERED = 6
"""Edits of a family that answer all questions, at most."""


@dataclass(frozen=True)
class CureOptions(GenerationOptions):
    """How a cure is looked for."""

    new_tokens: Positive = 100
    """At most this many new tokens per answer."""
    batch: Positive = 40
    """Prompts that run at once."""
    system: str | None = None
    """What a chat model is told first in any case, where a prompt says nothing of its own; {language} as in line."""
    line: str = "Always answer in {language}."
    """What the system is told, alone and beside edits; {language} stands for the language's English name."""
    candidates: Positive = 28
    """Edits to screen alone, and as many with the line. One in four of them, at most six, answers all questions."""
    sets: tuple[str, ...] = ("difference:100", "difference:200", "difference:50", "lape:100")
    """Which neurons are raised: difference:N (the N largest differences of mean activation), or lape:N; the first are tried first."""
    strengths: tuple[AboveZero, ...] = (0.25, 0.35, 0.5, 0.15, 0.75, 1.0)
    """How strongly, as a share of the mean activation in the language; the first are tried first."""
    heads: NotNegative = 1
    """How many attention heads are tried too, those first that make right answers likelier than wrong ones; 0: none."""
    factors: tuple[float, ...] = (2.0, 1.5)
    """By how much what such a head writes is multiplied, alone and beside neurons; the first are tried first."""
    kl: AboveZero = 0.1
    """The largest KL divergence from the unedited model on its own right answers, nats a token. What is further away is not used."""
    kept_kl: AboveZero = 0.05
    """The same on answers in the languages that are kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sets or not self.strengths:
            raise OptionError("sets and strengths must each name one or more.")
        if not all(1 < one < math.inf for one in self.factors) or (self.heads and not self.factors):
            raise OptionError("factors must be above 1, with one or more where heads are tried.")
        if any(len({*some}) < len(some) for some in (self.sets, self.strengths, self.factors)):
            raise OptionError("sets, strengths or factors name the same twice. Name each once.")


@dataclass(frozen=True, eq=False)
class CureTask:
    """All that a cure is looked for with, but for the model; what each is: `lape.experiments.confusion.cure.cure`.

    Raises TextError for too few questions and for languages that are missing, OptionError for options that make no sense and for packages that are
    missing, FileError for the judge's files.
    """

    prompts: Sequence[Prompt]
    texts: Texts
    to: str
    options: CureOptions
    keep: Sequence[str] = ()
    stats: ActivationStats | None = None
    """None where they are to be recorded."""
    tokens: int = 6000
    document: Literal["file", "line"] = "file"
    column: str = "text"
    words: str | Path | None = None
    lid: str | Path | None = None

    def __post_init__(self) -> None:
        to = tag(self.to)
        asked = [_with_system(prompt, self.options.system) for prompt in self.prompts if prompt.language == to]
        for name, value in {"to": to, "prompts": asked, "keep": [_kept_name(name, to) for name in self.keep]}.items():
            object.__setattr__(self, name, value)
        halves(asked)
        check_specs(self.options.sets)
        RecordOptions(tokens=self.tokens, **self.reading)  # refuses what it cannot read by
        check_languages(to, [*map(tag, self.texts)], "texts")
        if self.stats is not None:
            check_languages(to, self.stats.languages, "statistics")
            neurons_to_raise(self.stats, to, self.options.sets)
        judge_of(asked, self.lid, self.words)

    @property
    def first(self) -> list[Prompt]:
        """What is asked to choose by."""
        return halves(self.prompts)[0]

    @property
    def second(self) -> list[Prompt]:
        """What is asked to test what was chosen."""
        return halves(self.prompts)[1]

    @property
    def answered(self) -> int:
        """How many edits of a family answer all questions, at most."""
        return max(1, min(MOST_ANSWERED, self.options.candidates // ANSWERED))

    @property
    def reading(self) -> dict[str, Any]:
        """How the text is read."""
        return {"document": self.document, "column": self.column}

    def state(self) -> dict[str, Any]:
        """What tells this search from another one in the same folder, but for the model."""
        return {
            "to": self.to,
            "keep": self.keep,
            "options": asdict(self.options),
            "judge": [str(self.words), str(self.lid)],
            "statistics": None if self.stats is None else self.stats.digest,
            "texts": {language: _content(self.texts[language]) for language in self.texts},
            "reading": {**self.reading, "tokens": self.tokens},
            "prompts": [asdict(prompt) for prompt in self.prompts],
        }


def neurons_to_raise(stats: ActivationStats, to: str, specs: Sequence[str]) -> dict[str, LanguageNeurons]:
    """Each set of neurons that is tried, by its name. Raises OptionError or TextError for one that cannot be raised."""
    found = {spec: named_sets(stats, spec) for spec in specs}
    for neurons in found.values():
        steering(neurons, stats, replace(SHIPPED, strength=1.0), to=to)
    return found


def check_languages(to: str, known: Sequence[str], what: str) -> None:
    """Raise TextError where the wanted language is not there, or no other."""
    if to not in known or len(known) < 2:
        raise TextError(f"The {what} are in {', '.join(known)}. Expected {to} and at least one other language.")


def _with_system(prompt: Prompt, system: str | None) -> Prompt:
    """A prompt with what the system is told, where it says nothing of its own."""
    own = prompt.system or (prompt.messages and prompt.messages[0]["role"] == "system")
    return prompt if own or not system else with_line(prompt, system)


def _content(source: Source) -> str:
    """What tells texts apart: of those in memory a hash, of others where they lie."""
    if isinstance(source, Documents):
        return hashlib.sha256("\0".join(source.texts).encode("utf-8", "surrogatepass")).hexdigest()
    return str(source)


def _kept_name(name: str, to: str) -> str:
    """A language whose answers are kept, or code. Raises OptionError for the wanted one, and for one without bundled questions."""
    known = samples.EVERY
    if name != CODE and tag(name) not in known:
        raise OptionError(f"There are no bundled questions in {name}. keep takes {', '.join(known)} and {CODE}.")
    if name != CODE and tag(name) == to:
        raise OptionError(f"keep names {to}, which is what answers should be in: that is bounded by kl. Leave it out.")
    return name if name == CODE else tag(name)
