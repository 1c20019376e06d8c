"""Options of steering, of generating and of language forcing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from cyclopts import Parameter

from lape.errors import OptionError
from lape.options.base import check_candidates, check_choices, check_grader, converted, positive


@dataclass(frozen=True)
class SteerOptions:
    """How a model is steered to a language by its neurons."""

    how: Literal["off+add", "off+set", "off+scale", "add", "set", "scale", "off"] = "off+add"
    """What is done to the target's neurons, and whether the source's own are switched off."""
    value: Literal["mean", "firing", "difference"] | float = "mean"
    """What is set or added: the target's mean activation, its mean when firing, its mean minus that of the other languages, or a number."""
    strength: float = 1.0
    """The value is multiplied by it; for scale, it is the factor."""
    rise: float = 1.0
    """How many times as strong the last layer is edited as the first; between them it rises evenly."""
    tokens: Literal["both", "prompt", "generated"] = "both"
    """Where the edit acts: positions whose output picks a new token (generated), the rest of the prompt, or both."""
    first: int | None = None
    """Of the generated positions only the first so many, after which the model writes on by itself. Default: all."""
    fade: float = 1.0
    """Each generated position is changed by so much of the change of the one before; 1 is no fading."""
    layers: Annotated[tuple[int, ...] | None, Parameter(negative="", consume_multiple=True)] = None
    """Only these layers. Default: all."""

    def __post_init__(self) -> None:
        check_choices(self)
        positive(self, "first")
        if isinstance(self.value, str) and self.value not in ("mean", "firing", "difference"):
            raise OptionError(f"value is {self.value!r}. Expected mean, firing, difference or a number.")


@dataclass(frozen=True)
class BeginningOptions(SteerOptions):
    """Steering where an answer begins, which fades: an answer goes on in the language it began in, and is more fluent for
    being left alone. The numbers were chosen on the development questions of the sample model.
    """

    how: Literal["off+add", "off+set", "off+scale", "add", "set", "scale", "off"] = "off+set"
    """What is done to the target's neurons, and whether the source's own are switched off."""
    strength: float = 2.0
    """The value is multiplied by it; for scale, it is the factor."""
    rise: float = 1.5
    """How many times as strong the last layer is edited as the first; between them it rises evenly."""
    tokens: Literal["both", "prompt", "generated"] = "generated"
    """Where the edit acts: positions whose output picks a new token (generated), the rest of the prompt, or both."""
    first: int | None = 16
    """Of the generated positions only the first so many, after which the model writes on by itself."""
    fade: float = 0.85
    """Each generated position is changed by so much of the change of the one before; 1 is no fading."""


@dataclass(frozen=True)
class GenerationOptions:
    """How answers are generated: greedy."""

    new_tokens: int = 32
    """At most this many new tokens an answer."""
    repetition_penalty: float = 1.1
    """Divides the odds of tokens that occurred already; 1 is none."""
    batch: int = 40
    """Prompts that run at once."""

    def __post_init__(self) -> None:
        positive(self, "new_tokens", "batch")


Family = Literal[
    "prompt",
    "mask",
    "neurons",
    "diffmean",
    "none",
    "ceiling",
    "target only",
    "source off",
    "random",
    "other",
    "permuted",
]
"""Families of methods that force a language: see `lape.measure.methods`."""


@dataclass(frozen=True)
class ForcingOptions(GenerationOptions):
    """How language forcing is measured."""

    pairs: str = "all"
    """Source and target languages: all, third (a fixed third of them), or a list such as en-fr,zh-id."""
    development_pairs: str = "same"
    """The pairs on which settings are tried: same, or as for `pairs`."""
    families: Annotated[tuple[Family, ...], Parameter(negative="", consume_multiple=True)] = get_args(Family)
    """Which families are run."""
    candidates: int = 0
    """Questions among which an answer's own must be likeliest; 0 is all of the split."""
    development_candidates: int | None = None
    """The same on the development questions, where fewer choose as well and faster. Default: as many."""
    resamples: int = 2000
    """Bootstrap resamples of the questions behind the 95 % intervals."""
    seed: int = 0
    """Seed of the controls and of the bootstrap."""
    identifier: str = "lingua"
    """Who says what language an answer is in: lingua or langid."""
    second: str = "langid"
    """Who is asked too, to report how often the two agree."""
    grader_url: str | None = None
    """An OpenAI-compatible endpoint that grades reported answers 0 to 2, such as http://127.0.0.1:8000/v1; its key: LAPE_GRADER_KEY."""
    grader_model: str | None = None
    """The model that is asked there."""
    cost_tokens: Annotated[int, Parameter(converter=converted)] = 512
    """Tokens of each language on which the cost of an edit is measured."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self)
        positive(self, "resamples", "cost_tokens")
        check_grader(self)
        unknown = [family for family in self.families if family not in get_args(Family)]
        if unknown:
            raise OptionError(f"There is no family {unknown[0]!r}. Expected some of: {', '.join(get_args(Family))}.")
        check_candidates(self, "candidates", "development_candidates")
