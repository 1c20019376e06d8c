"""Options: a dataclass defines each once. Its type says what is allowed, the docstring below it is the help, and a function takes it as a keyword."""

from __future__ import annotations

import ast
import inspect
import math
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache, wraps
from types import UnionType
from typing import (
    Annotated,
    Any,
    Concatenate,
    Literal,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

from lape.errors import OptionError

T = TypeVar("T")
O = TypeVar("O", covariant=True)  # noqa: E741
P = ParamSpec("P")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
R = TypeVar("R")


@dataclass(frozen=True)
class Limit:
    """What values an option may have, as a mark on its type: `Annotated[int, Limit(lambda value: value > 1, "2 or more")]`."""

    holds: Callable[[Any], bool]
    expected: str
    """How a message goes on after "Expected"."""


def at_least(least: float) -> Limit:
    """Numbers from `least`."""
    return Limit(lambda value: value >= least, f"{least} or more")


def within(least: int, most: int) -> Limit:
    """Numbers from `least` to `most`."""
    return Limit(lambda value: least <= value <= most, f"{least} to {most}")


def _share(example: float) -> Limit:
    return Limit(lambda value: 0 < value < 1, f"a share between 0 and 1, such as {example}")


COUNT = "tokens"
"""Marks a whole number that people write as 500, 20k or 1M: see `parse_count`."""
Positive: TypeAlias = Annotated[int, at_least(1)]
NotNegative: TypeAlias = Annotated[int, at_least(0)]
Tokens: TypeAlias = Annotated[int, COUNT, at_least(1)]
Share: TypeAlias = Annotated[float, _share(0.95)]
Rate: TypeAlias = Annotated[float, _share(0.01)]
UpToOne: TypeAlias = Annotated[float, Limit(lambda value: 0 < value <= 1, "a number above 0 and up to 1, such as 0.85")]
AboveZero: TypeAlias = Annotated[float, Limit(lambda value: 0 < value < math.inf, "a number above 0")]
NotBelowZero: TypeAlias = Annotated[float, Limit(lambda value: 0 <= value < math.inf, "0 or more, such as 0.7")]
Finite: TypeAlias = Annotated[float, Limit(math.isfinite, "a finite number such as 1.0")]
Candidates: TypeAlias = Annotated[
    int, Limit(lambda value: value == 0 or value > 1, "2 or more, or 0 for all questions")
]
"""A number of questions: one alone tells nothing apart."""


class Options:
    """Base of every dataclass of options: the types of its fields are checked when it is made.

    Raises OptionError for a value that a field's type does not allow: a `Limit`, or the words of a `Literal`.

    Example:
        >>> from dataclasses import dataclass
        >>> from lape.options import Options, Positive
        >>> @dataclass(frozen=True)
        ... class Mine(Options):
        ...     draws: Positive = 3
        >>> Mine(draws=0)
        Traceback (most recent call last):
        lape.errors.OptionError: draws is 0. Expected 1 or more.
    """

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for name, hint in hints_of(kind).items():
            _check(name, getattr(self, name), hint)


@cache
def hints_of(kind: Any) -> dict[str, Any]:
    """Field -> its type, with limits."""
    return get_type_hints(kind, include_extras=True)


def _check(name: str, value: object, hint: Any) -> None:
    if get_origin(hint) in (Union, UnionType):
        if value is None:
            return
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        words = [kind for kind in kinds if get_origin(kind) is Literal]
        if len(kinds) > 1 and words and len(words) < len(kinds):  # a word or a number
            if isinstance(value, str) and value not in (known := get_args(words[0])):
                raise OptionError(f"{name} is {value!r}. Expected {', '.join(known)} or a number.")
            kinds = [] if isinstance(value, str) else [kind for kind in kinds if kind not in words]
        hint = kinds[0] if len(kinds) == 1 else None
    if get_origin(hint) is Annotated:
        for mark in hint.__metadata__:
            if isinstance(mark, Limit) and not mark.holds(value):
                raise OptionError(f"{name} is {value}. Expected {mark.expected}.")
    elif get_origin(hint) is Literal and value not in (known := get_args(hint)):
        raise OptionError(f"{name} is {value!r}. Expected {', '.join(map(str, known))}.")
    elif get_origin(hint) is tuple and isinstance(value, tuple):
        for part in value:
            _check(name, part, get_args(hint)[0])


@dataclass(frozen=True)
class GraderOptions(Options):
    """Options that name a language model that grades answers."""

    grader_url: str | None = None
    """Also have the answers graded by a language model at this address of the OpenAI kind, e.g. http://127.0.0.1:8000/v1."""
    grader_model: str | None = None
    """The grader's name there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.grader_url is None) != (self.grader_model is None):
            raise OptionError("A grader needs both grader_url and grader_model. Give both, or neither.")
        if self.grader_url is not None and not self.grader_url.startswith(("http://", "https://")):
            raise OptionError(
                f"grader_url is {self.grader_url!r}. Expected an address such as http://127.0.0.1:8000/v1."
            )


_UNITS = {"k": 10**3, "M": 10**6, "G": 10**9, "B": 10**9}


def count(text: str) -> int:
    """A number of tokens as people write it: 500, 20k, 1M, 1_000_000."""
    try:
        return round(float(text[:-1]) * _UNITS[text[-1]]) if text[-1:] in _UNITS else int(text.replace(",", ""))
    except ValueError as error:
        raise OptionError(f"{text!r} is not a number of tokens. Expected something like 500, 20k or 1M.") from error


def separated(text: str | None) -> list[str]:
    """Names with commas or spaces between, as people write several in one option; none where nothing is given.

    Example:
        >>> from lape.options import separated
        >>> separated("fr, zh-Hant,id")
        ['fr', 'zh-Hant', 'id']
    """
    return (text or "").replace(",", " ").split()


class _Takes(Protocol[P, O]):
    """A decorator for a function whose last positional parameter is `options`: it is called with the options as keywords."""

    @overload
    def __call__(self, function: Callable[[A, O], R], /) -> Callable[Concatenate[A, P], R]: ...
    @overload
    def __call__(self, function: Callable[[A, B, O], R], /) -> Callable[Concatenate[A, B, P], R]: ...
    @overload
    def __call__(self, function: Callable[[A, B, C, O], R], /) -> Callable[Concatenate[A, B, C, P], R]: ...
    @overload
    def __call__(self, function: Callable[[A, B, C, D, O], R], /) -> Callable[Concatenate[A, B, C, D, P], R]: ...


def keywords_of(kind: Callable[P, O]) -> _Takes[P, O]:
    """A decorator: the fields of `kind` become keywords of a function that takes such an object as `options`.

    Example:
        >>> from lape.detect.lape import LapeOptions
        >>> from lape.options import keywords_of
        >>> @keywords_of(LapeOptions)
        ... def kept(neurons: int, options: LapeOptions) -> int:
        ...     return round(neurons * options.rate)
        >>> kept(1000, rate=0.02)
        20
    """
    own = inspect.signature(kind).parameters

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*places: Any, **keywords: Any) -> Any:
            options = kind(**{name: keywords.pop(name) for name in own if name in keywords})  # type: ignore[call-arg]
            return function(*places, options=options, **keywords)

        parameters = []
        for name, parameter in inspect.signature(function).parameters.items():
            parameters += (
                [one.replace(kind=one.KEYWORD_ONLY) for one in own.values()] if name == "options" else [parameter]
            )
        call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            sorted(parameters, key=lambda one: one.kind),
            return_annotation=inspect.signature(function).return_annotation,
        )
        return call

    return cast("_Takes[P, O]", decorate)


def select_options(kind: Callable[..., T], options: object) -> T:
    """The options of a dataclass, taken from an object that has them among others."""
    return kind(
        **{name: getattr(options, name) for name in inspect.signature(kind).parameters if hasattr(options, name)}
    )


def by_name(kind: type[T], values: Mapping[str, object]) -> T:
    """Options by name, the rest as usual. Raises OptionError for a name that none has."""
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise OptionError(f"There is no option {', '.join(unknown)}. Expected some of: {', '.join(known)}.")
    return kind(**values)


def flags(kind: type, values: Mapping[str, Any]) -> list[str]:
    """What to type for the options of a dataclass among `values`, such as a file keeps, that differ from their defaults."""
    words: list[str] = []
    for field in fields(kind):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        value = values.get(field.name)
        several = [*value] if isinstance(value, (list, tuple)) else [value]
        if value is None or several == ([*default] if isinstance(default, (list, tuple)) else [default]):
            continue
        name = field.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            words += [f"--{name}", *map(str, several)]
    return words


def descriptions(kind: type) -> dict[str, str]:
    """Field -> the docstring below it, those of its bases too."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        for field, below in zip(body.body, body.body[1:], strict=False):  # type: ignore[attr-defined]
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                found[field.target.id] = " ".join(str(ast.literal_eval(below.value)).split())
    return found
