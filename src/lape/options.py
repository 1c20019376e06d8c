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


def _convert(_type: Any, tokens: Sequence[Token]) -> int:
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
    sites: Annotated[tuple[str, str] | None, Parameter(negative="")] = None
    """Name the neurons by hand: activation modules and down projections, * for the layer number."""


@dataclass(frozen=True)
class TextOptions:
    """How texts become rows of tokens."""

    tokens: Annotated[int | None, Parameter(converter=_convert)] = None
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
    checkpoint_seconds: float = 60.0
    """Save the state of a run this often, so that a killed one can go on."""


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


def given(kind: type[T], options: T | None, changes: dict[str, Any]) -> T:
    """Options from an object, from keywords, or from both (keywords win)."""
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise OptionError(f"There is no option {', '.join(unknown)}. Expected some of: {', '.join(known)}.")
    return kind(**changes) if options is None else replace(options, **changes)  # type: ignore[type-var]
