"""What options share. A function takes them as keywords; the dataclass of the same fields beside it checks them, and is what files keep."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Annotated, Any, Literal, Protocol, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

from lape.errors import OptionError

T = TypeVar("T")
COUNT = "tokens"
"""Marks a whole number that people write as 500, 20k or 1M, for whoever reads options from text: see `count`."""
Tokens: TypeAlias = Annotated[int, COUNT]


class _Grading(Protocol):
    """Options that name a grader."""

    @property
    def grader_url(self) -> str | None: ...
    @property
    def grader_model(self) -> str | None: ...


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


def check_choices(options: object) -> None:
    """Refuse a value that is not among a field's choices."""
    for name, kind in get_type_hints(type(options)).items():
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        value = getattr(options, name)
        if choices and value not in choices:
            raise OptionError(f"{name} is {value!r}. Expected {', '.join(choices)}.")


def positive(options: object, *names: str) -> None:
    """Refuse values under 1."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise OptionError(f"{name} is {value}. Expected 1 or more.")


def not_negative(options: object, *names: str) -> None:
    """Refuse values under 0."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 0:
            raise OptionError(f"{name} is {value}. Expected 0 or more.")


def shares(options: object, **examples: float) -> None:
    """Refuse values that are no share between 0 and 1; each name with a value that would be one."""
    for name, example in examples.items():
        value = getattr(options, name)
        if value is not None and not 0 < value < 1:
            raise OptionError(f"{name} is {value}. Expected a share between 0 and 1, such as {example}.")


def given(kind: type[T], values: Mapping[str, object]) -> T:
    """Options out of a function's parameters of the same names: `given(LapeOptions, locals())`, the first line of its body."""
    return kind(**{field.name: values[field.name] for field in fields(kind)})  # type: ignore[arg-type]


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


def check_grader(options: _Grading) -> None:
    """Check that the grader has both a URL and a model, and that the URL is http(s)."""
    url, model = options.grader_url, options.grader_model
    if (url is None) != (model is None):
        raise OptionError("A grader needs both grader_url and grader_model. Give both, or neither.")
    if url is not None and not url.startswith(("http://", "https://")):
        raise OptionError(f"grader_url is {url!r}. Expected an address such as http://127.0.0.1:8000/v1.")


def check_candidates(options: object, *names: str) -> None:
    """Refuse a number of questions among which nothing can be told apart."""
    for name in names:
        value = getattr(options, name)
        if value is not None and (value < 0 or value == 1):
            raise OptionError(f"{name} is {value}. Expected 2 or more, or 0 for all questions.")


def descriptions(kind: type) -> dict[str, str]:
    """Field -> the docstring below it, those of its bases too."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        for field, below in zip(body.body, body.body[1:], strict=False):  # type: ignore[attr-defined]
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                found[field.target.id] = " ".join(str(ast.literal_eval(below.value)).split())
    return found
