"""Options: one frozen dataclass is the API's keyword, the command line's flag, the config file and the provenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from cyclopts import Parameter, Token

from lape.errors import OptionError

T = TypeVar("T")
_UNITS = {"k": 10**3, "M": 10**6, "G": 10**9, "B": 10**9}


def count(text: str) -> int:
    """A number of tokens as people write it: 500, 20k, 1M, 1_000_000."""
    try:
        return round(float(text[:-1]) * _UNITS[text[-1]]) if text[-1:] in _UNITS else int(text.replace(",", ""))
    except ValueError as error:
        raise OptionError(f"{text!r} is not a number of tokens. Expected something like 500, 20k or 1M.") from error


def converted(_type: Any, tokens: Sequence[Token]) -> int:
    """`count`, as the command line calls it."""
    return count(tokens[0].value)


@dataclass(frozen=True)
class ModelOptions:
    """How a model is loaded."""

    dtype: str = "auto"
    """Number format of the weights: auto (as stored), bfloat16, float16 or float32."""
    device: str | None = None
    """Where it runs: cpu, cuda, cuda:1, mps. Default: a GPU if there is one."""
    device_map: str | None = None
    """Spread the model over several devices, for instance auto (needs the extra `accelerate`)."""
    revision: str | None = None
    """Revision of a model on the Hub."""
    sites: Annotated[tuple[str, ...] | None, Parameter(negative="", consume_multiple=True)] = None
    """Name the neurons by hand: activation modules and down projections, * for the layer number."""


@dataclass(frozen=True)
class TextOptions:
    """How texts become rows of tokens."""

    tokens: Annotated[int | None, Parameter(converter=converted)] = None
    """At most this many tokens of each language. Default: all."""
    document: Literal["file", "line"] = "file"
    """What a document is in a .txt file: the whole file, or each line."""
    column: str = "text"
    """The column of a .jsonl, .parquet or Hub data set that holds the text."""
    bos: Literal["auto", "always", "never"] = "auto"
    """Begin rows with BOS: where the tokenizer adds one, always, or never (the published rule). BOS is never counted."""
    row_tokens: int = 512
    """Tokens in a row, BOS included; a longer document is cut."""
    batch_tokens: int = 2048
    """Tokens that run at once."""
    one_per_row: bool = False
    """One document a row even where the model could keep several apart."""

    def __post_init__(self) -> None:
        check_choices(self)
        positive(self, "tokens", "batch_tokens")
        if self.row_tokens < 8:
            raise OptionError(f"row_tokens is {self.row_tokens}. Expected at least 8.")


@dataclass(frozen=True)
class RecordOptions(TextOptions):
    """How activations are recorded."""

    residual: bool = False
    """Record also the sums of the residual stream after every layer."""
    attribution: Annotated[int | None, Parameter(converter=converted)] = None
    """Record also what the loss owes each neuron, by a backward pass over this many tokens of each language."""
    per_text: bool = False
    """Record also the mean activations of single texts, which the method ap reads: documents, or chunks where there are under 64."""
    most_texts: int = 200
    """At most so many texts of each language, evenly spread, have their means kept."""
    histogram: bool = False
    """Record also a histogram of every neuron's activations, which the method probability90 reads."""
    checkpoint_seconds: float = 60.0
    """Save the state of a run this often, so that a killed one can go on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "attribution", "most_texts")


@dataclass(frozen=True)
class LapeOptions:
    """How language neurons are chosen by LAPE (Tang et al. 2024). The defaults are the published thresholds."""

    rate: float = 0.01
    """Share of all neurons that is kept, those of lowest entropy."""
    filter: float = 0.95
    """Percentile of all activation probabilities that a neuron must exceed in some language to be a candidate."""
    bar: float = 0.95
    """Percentile of all activation probabilities that a kept neuron must exceed in a language to belong to it."""
    per_language: int | None = None
    """Instead of a rate: this many neurons of each language, the lowest entropies above its bar."""
    denominator: Literal["tokens", "routed"] = "tokens"
    """Divide by all counted tokens, or by those that reached the neuron's expert."""

    def __post_init__(self) -> None:
        for name in ("rate", "filter", "bar"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise OptionError(
                    f"{name} is {value}. Expected a share between 0 and 1, such as {LapeOptions.__dataclass_fields__[name].default}."
                )
        check_choices(self)
        positive(self, "per_language")


@dataclass(frozen=True)
class LapOptions:
    """How the neurons that fire most often are chosen."""

    per_language: int = 100
    """Neurons of each language."""
    denominator: Literal["tokens", "routed"] = "tokens"
    """Divide by all counted tokens, or by those that reached the neuron's expert."""

    def __post_init__(self) -> None:
        check_choices(self)
        positive(self, "per_language")


@dataclass(frozen=True)
class RandomOptions:
    """How random neurons are drawn."""

    per_language: int = 100
    """Neurons of each language."""
    seed: int = 0
    """Seed of the draw."""

    def __post_init__(self) -> None:
        positive(self, "per_language")


@dataclass(frozen=True)
class AlignmentOptions(LapeOptions):
    """How neurons are chosen by entropy and probability together (Zhang et al. 2025)."""

    weight: float | None = None
    """λ, the weight of the largest probability. Default: the largest that keeps no neuron of every language."""


@dataclass(frozen=True)
class DifferenceOptions:
    """How language neurons are chosen by what they do in a language above the others."""

    per_language: int = 100
    """Neurons of each language: those whose activity lies furthest above the other languages'."""
    of: Literal["activation", "probability"] = "activation"
    """What is compared: the mean activation, or the activation probability."""
    against: Literal["mean", "largest"] = "mean"
    """What is taken off: the mean over the other languages, or the largest of them."""

    def __post_init__(self) -> None:
        check_choices(self)
        positive(self, "per_language")


@dataclass(frozen=True)
class ApOptions:
    """How neurons are chosen by the average precision of their answer to single texts (Kojima et al. 2024)."""

    per_language: int = 100
    """Neurons of each language."""
    side: Literal["both", "top", "bottom"] = "both"
    """Those of largest average precision, of smallest, or half of each; of an odd number one more of the largest."""

    def __post_init__(self) -> None:
        check_choices(self)
        positive(self, "per_language")


@dataclass(frozen=True)
class Probability90Options:
    """How neurons are chosen by how often they exceed a high percentile of their own activation (Mondal et al. 2025)."""

    per_language: int = 100
    """Neurons of each language."""
    percentile: float = 0.9
    """The share of all tokens, each language weighing the same, on which a neuron does not exceed its threshold."""

    def __post_init__(self) -> None:
        if not 0 < self.percentile < 1:
            raise OptionError(f"percentile is {self.percentile}. Expected a share between 0 and 1, such as 0.9.")
        positive(self, "per_language")


@dataclass(frozen=True)
class AttributionOptions:
    """How language neurons are chosen by what the loss owes them."""

    per_language: int = 100
    """Neurons of each language."""
    by: Literal["own", "difference", "share", "product", "entropy"] = "product"
    """The score: the attribution, its difference from the others' mean, its share over languages, attribution · share², or LAPE
    among the neurons whose attribution matters.
    """
    matters: float = 0.05
    """For entropy: this share of all neurons, those of largest attribution, matters."""

    def __post_init__(self) -> None:
        check_choices(self)
        positive(self, "per_language")
        if not 0 < self.matters <= 1:
            raise OptionError(f"matters is {self.matters}. Expected a share between 0 and 1, such as 0.05.")


@dataclass(frozen=True)
class ChoosingOptions:
    """The options of all ways of choosing, as the command line takes them; each way knows some of them."""

    rate: float | None = None
    """lape, lave, alignment, variation: share of all neurons that is kept. Default: 0.01, as published."""
    filter: float | None = None
    """The same: percentile of all values that a neuron must exceed in some language. Default: 0.95, as published."""
    bar: float | None = None
    """The same: percentile that a kept neuron must exceed in a language to belong to it. Default: 0.95, as published."""
    per_language: int | None = None
    """This many neurons of each language; for lape, lave, alignment and variation instead of a rate. Default of the others: 100."""
    denominator: Literal["tokens", "routed"] | None = None
    """lape, lave, lap, alignment: divide by all counted tokens, or by those that reached the neuron's expert."""
    weight: float | None = None
    """alignment: λ, the weight of the largest probability. Default: the largest that keeps no neuron of every language."""
    of: Literal["activation", "probability"] | None = None
    """difference: compare the mean activation (default), or the activation probability."""
    against: Literal["mean", "largest"] | None = None
    """difference: take off the mean over the other languages (default), or the largest of them."""
    by: Literal["own", "difference", "share", "product", "entropy"] | None = None
    """attribution: the score."""
    matters: float | None = None
    """attribution by entropy: this share of all neurons matters. Default: 0.05."""
    side: Literal["both", "top", "bottom"] | None = None
    """ap: those of largest average precision, of smallest, or half of each (default)."""
    percentile: float | None = None
    """probability90: share of all tokens on which a neuron does not exceed its threshold. Default: 0.9."""
    seed: int | None = None
    """random: seed of the draw."""

    def chosen(self) -> dict[str, Any]:
        """Those that were given."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}


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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draws < 0:
            raise OptionError(f"draws is {self.draws}. Expected 0 or more.")
        positive(self, "resamples")


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
"""Families of methods that force a language: see `lape.evaluate.families`."""


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
        if (self.grader_url is None) != (self.grader_model is None):
            raise OptionError("A grader needs both grader_url and grader_model. Give both, or neither.")
        if self.grader_url is not None and not self.grader_url.startswith(("http://", "https://")):
            raise OptionError(
                f"grader_url is {self.grader_url!r}. Expected an address such as http://127.0.0.1:8000/v1."
            )
        unknown = [family for family in self.families if family not in get_args(Family)]
        if unknown:
            raise OptionError(f"There is no family {unknown[0]!r}. Expected some of: {', '.join(get_args(Family))}.")
        for name in ("candidates", "development_candidates"):
            value = getattr(self, name)
            if value is not None and (value < 0 or value == 1):
                raise OptionError(f"{name} is {value}. Expected 2 or more, or 0 for all questions.")


Writing = Literal["romanised", "converted", "shuffled", "noised"]
"""Ways of writing a text differently: see `lape.variants`."""


@dataclass(frozen=True)
class ScriptOptions:
    """How it is asked whether language neurons follow the script or the language."""

    kinds: Annotated[tuple[Writing, ...], Parameter(negative="", consume_multiple=True)] = get_args(Writing)
    """Which writings are tried."""
    tokens: Annotated[int, Parameter(converter=converted)] = 20_000
    """Tokens of each language's text, as natively written, whose lines are recorded in every writing."""
    evaluation_tokens: Annotated[int, Parameter(converter=converted)] = 6_000
    """Tokens of each language's other text, as natively written, whose lines the damage is measured on."""
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


def check_choices(options: Any) -> None:
    """Refuse a word that is none of a field's choices."""
    for name, kind in get_type_hints(type(options)).items():
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        value = getattr(options, name)
        if choices and value not in choices:
            raise OptionError(f"{name} is {value!r}. Expected {', '.join(choices)}.")


def positive(options: Any, *names: str) -> None:
    """Refuse values under 1."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise OptionError(f"{name} is {value}. Expected 1 or more.")


def not_negative(options: Any, *names: str) -> None:
    """Refuse values under 0."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 0:
            raise OptionError(f"{name} is {value}. Expected 0 or more.")


def given(kind: type[T], options: T | None, changes: dict[str, Any]) -> T:
    """Options from an object, from keywords, or from both (keywords win)."""
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise OptionError(f"There is no option {', '.join(unknown)}. Expected some of: {', '.join(known)}.")
    return kind(**changes) if options is None else replace(options, **changes)  # type: ignore[type-var]
