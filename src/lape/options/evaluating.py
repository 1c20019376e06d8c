"""Options of what is measured on an edited model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from cyclopts import Parameter

from lape.errors import OptionError
from lape.options.base import check_candidates, check_choices, check_grader, converted, not_negative, positive, shares
from lape.options.reading import TextOptions
from lape.options.steering import GenerationOptions


@dataclass(frozen=True)
class PerplexityOptions(TextOptions):
    """How the damage of switching a language off is measured."""

    draws: int = 3
    """Draws of each kind of control neurons, on the ablated language itself."""
    resamples: int = 2000
    """Bootstrap resamples behind the 95 % intervals."""
    seed: int = 0
    """Seed of the control draws and the bootstrap."""
    allow_recorded: bool = False
    """Evaluate even text that the neurons were found on."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Run all passes in one graph that torch.compile makes: where there are so many tokens that it pays, on, or off."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self)
        if self.draws < 0:
            raise OptionError(f"draws is {self.draws}. Expected 0 or more.")
        positive(self, "resamples")


@dataclass(frozen=True)
class NecessityOptions(TextOptions):
    """How it is asked whether neurons that fire often matter. Switching one group off costs one pass over a language's text."""

    languages: Annotated[tuple[str, ...] | None, Parameter(negative="", consume_multiple=True)] = None
    """Whose text the damage is measured on. Default: the first language of the text."""
    groups: int = 300
    """Groups of neurons switched off one after the other, spread over layers and deciles of energy."""
    own: int = 60
    """Further groups, of the language's own neurons alone; fewer where its set is smaller."""
    size: int = 1
    """Neurons in a group, all of one layer and decile."""
    points: int = 4
    """Points of the paths along which gradients are averaged."""
    layerwise: bool = False
    """Average also along a path for each layer, at `points` backward passes a layer; it predicts little better than one path for all."""
    draws: int = 8
    """Backward passes with tokens drawn from the model, which measure how the loss bends; 0: not measured."""
    calibration: int = 10
    """Groups whose measured damage is enough to scale an estimate."""
    resamples: int = 2000
    """Bootstrap resamples of the groups behind the 95 % intervals."""
    seed: int = 0
    """Seed of the groups, the halves, the drawn tokens and the bootstrap."""
    allow_recorded: bool = False
    """Evaluate even text that the neurons were found on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "size", "points", "calibration", "resamples")
        not_negative(self, "own", "draws")
        if self.groups < 8:
            raise OptionError(f"groups is {self.groups}. Expected 8 or more: half are fitted on, half are judged.")


@dataclass(frozen=True)
class PatchingOptions(TextOptions):
    """How zeroing neurons is compared with setting them to their mean."""

    mean: Literal["all", "others"] = "all"
    """Over which languages: all that were recorded, or all but the one whose set it is."""
    resamples: int = 2000
    """Bootstrap resamples of the units of text behind the 95 % intervals."""
    seed: int = 0
    """Seed of the bootstrap."""
    allow_recorded: bool = False
    """Evaluate even text that the neurons were found on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "resamples")


@dataclass(frozen=True)
class ExamplesOptions(TextOptions):
    """What is looked up for each neuron."""

    keep: int = 20
    """Contexts kept of each neuron, at most 20."""
    length: int = 32
    """Tokens of a context."""
    effects: int = 10
    """Neurons of each language, those of lowest entropy, that are switched off one by one; 0: none."""
    effect_tokens: Annotated[int, Parameter(converter=converted)] = 1000
    """Tokens of each language on which that is measured, at most."""
    resamples: int = 2000
    """Bootstrap resamples of the units of text behind the 95 % intervals."""
    seed: int = 0
    """Seed of the control neurons and the bootstrap."""
    allow_recorded: bool = False
    """Read even text that the neurons were found in."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "effect_tokens", "resamples")
        not_negative(self, "effects")
        for name, most in (("keep", 20), ("length", 256)):
            if not 1 <= getattr(self, name) <= most:
                raise OptionError(f"{name} is {getattr(self, name)}. Expected 1 to {most}.")


@dataclass(frozen=True)
class NullOptions:
    """How the null of slices of one language is made. How LAPE chooses is taken from the neurons' own options."""

    seed: int = 0
    """Seed of the thinning of counts."""
    share: float = 0.01
    """Which low quantile of the null the real entropies are held against."""

    def __post_init__(self) -> None:
        shares(self, share=0.01)


@dataclass(frozen=True)
class SimilarityOptions(TextOptions):
    """How the similarity of sentences across languages is measured. Each aligned line is a document; `tokens` has no place here."""

    sentences: int | None = 400
    """Use the first so many aligned lines. Default: 400, whose vectors take 1.5 GB for a 7B model and 7 languages."""
    resamples: int = 2000
    """Bootstrap resamples of the blocks of 8 lines behind the 95 % intervals."""
    seed: int = 0
    """Seed of the bootstrap."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "sentences", "resamples")


Writing = Literal["romanised", "converted", "shuffled", "noised"]
"""Ways of writing a text differently: see `lape.data.rewriting`."""


@dataclass(frozen=True)
class ScriptOptions:
    """How it is asked whether language neurons follow the script or the language."""

    kinds: Annotated[tuple[Writing, ...], Parameter(negative="", consume_multiple=True)] = get_args(Writing)
    """Which writings are tried."""
    tokens: Annotated[int, Parameter(converter=converted)] = 20_000
    """Tokens of each language's text, as natively written, whose lines are recorded in every writing."""
    evaluation_tokens: Annotated[int, Parameter(converter=converted)] = 6_000
    """Tokens of each language's other text, as natively written, whose lines the damage is measured on."""
    apart: bool = False
    """Each evaluated line is read by itself, and is a unit of the bootstrap: for lines that do not come from one text."""
    steps: int = 8
    """How often the range of noise is halved to find the one that costs as much as romanised text."""
    resamples: int = 2000
    """Bootstrap resamples behind the 95 % intervals."""
    seed: int = 0
    """Seed of the word orders, the noise and the bootstrap."""

    def __post_init__(self) -> None:
        positive(self, "tokens", "evaluation_tokens", "steps", "resamples")
        unknown = [kind for kind in self.kinds if kind not in get_args(Writing)]
        if unknown:
            raise OptionError(f"There is no writing {unknown[0]!r}. Expected some of: {', '.join(get_args(Writing))}.")


@dataclass(frozen=True)
class AnsweringOptions(GenerationOptions):
    """How questions about a passage are put, and how the answers are compared."""

    repetition_penalty: float = 1.0
    """Divides the odds of tokens that occurred already; 1 is none: an answer is a copy of words of the passage."""
    batch: int = 8
    """Prompts that run at once."""
    questions: int | None = None
    """At most this many questions of each file, evenly spread over it. Default: all."""
    shots: int = 1
    """Answered questions shown first, each about a passage of another article."""
    draws: int = 1
    """Draws of matched control neurons."""
    resamples: int = 2000
    """Bootstrap resamples of the questions behind the 95 % intervals."""
    seed: int = 0
    """Seed of the shots, the control draws and the bootstrap."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "questions", "resamples")
        not_negative(self, "shots", "draws")


@dataclass(frozen=True)
class SilencedOptions(GenerationOptions):
    """How answers are measured that a model gives while a language's neurons are off."""

    wish: bool = False
    """Ask for an answer in the question's language, in its own words, as the published script does. Default: the bare question."""
    draws: int = 1
    """Draws of matched control neurons, on the language's own questions."""
    candidates: int = 8
    """Questions among which an answer's own must be likeliest; 0 is all. Each is a pass over a question and the answer, for every
    answer in the language and fluent: on a CPU, 8 take two to four times as long as writing it took."""
    seed: int = 0
    """Seed of the control draws."""
    identifier: str = "lingua"
    """Who says what language an answer is in: lingua or langid."""
    grader_url: str | None = None
    """An OpenAI-compatible endpoint that also grades the answers 1 to 10, such as http://127.0.0.1:8000/v1; its key: LAPE_GRADER_KEY."""
    grader_model: str | None = None
    """The model that is asked there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative(self, "draws")
        check_candidates(self, "candidates")
        check_grader(self)


@dataclass(frozen=True)
class HarnessOptions:
    """How tasks of lm-eval are run."""

    languages: Annotated[tuple[str, ...] | None, Parameter(negative="")] = None
    """Whose neurons are switched off. Default: those of every language that has some."""
    limit: int | None = None
    """At most this many documents of each task. Default: all."""
    shots: int | None = None
    """Examples shown before each document. Default: as the task says."""
    batch: int = 8
    """Requests that run at once."""
    draws: int = 1
    """Draws of matched control neurons."""
    resamples: int = 2000
    """Bootstrap resamples of the documents behind the 95 % intervals."""
    seed: int = 0
    """Seed of the examples, the control draws and the bootstrap."""

    def __post_init__(self) -> None:
        positive(self, "limit", "batch", "resamples")
        not_negative(self, "shots", "draws")
