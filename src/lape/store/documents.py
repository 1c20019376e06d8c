"""JSON of ours, read in one place: what it holds is compared with what it should before anything is made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NoReturn, TypeAlias, get_args

from lape.errors import FileError

Schema: TypeAlias = "type | UnionType | list[Any] | Mapping[Any, Any] | tuple[Any, ...]"
"""A type or `str | None` (whole numbers pass for numbers, true and false for neither); `[S]`: a list of S; a tuple: any of these; a
mapping: an object whose keys, as far as they are there (or must be, of a `Whole`), have these values, those not named what `...` says, if anything.
"""
DEEPEST = 64
"""Lists and objects within each other; ours have a tenth of it."""
AGAIN = "Make it again, or copy it again from its source."
_SAID = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
    NoneType: "null",
}


class Whole(dict[Any, Any]):
    """A mapping of a schema of which some keys must be there: those named, or all."""

    def __init__(self, schema: Mapping[Any, Any], *needed: str) -> None:
        super().__init__(schema)
        self.needed = needed or tuple(schema)


def damaged(path: Path, why: object) -> FileError:
    """What is said of a file that cannot be as we wrote it."""
    return FileError(f"{path} is damaged: {why}. {AGAIN}")


def parse(text: str | bytes) -> Any:
    """What JSON says. Raises ValueError for what is none, for NaN and infinities, and for what lies too deep."""
    try:
        found = json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    level = [found]
    for _ in range(DEEPEST):
        nested = [
            list(one.values()) if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list))
        ]
        level = [inner for one in nested for inner in one]
    if level:
        raise ValueError(_TOO_DEEP)
    return found


_TOO_DEEP = f"more than {DEEPEST} lists and objects are nested in each other"


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number in JSON")


def read_json(path: Path, schema: Schema = dict) -> Any:
    """What a JSON file holds. Raises FileError for a damaged one: no JSON, or other types than the schema's."""
    try:
        found = parse(path.read_bytes())
    except (OSError, ValueError) as error:
        raise damaged(path, f"it is not JSON ({error})") from error
    wrong = misfit(found, schema, "what it holds")
    if wrong:
        raise damaged(path, wrong)
    return found


def misfit(value: Any, schema: Schema, name: str) -> str | None:
    """What is wrong with the first part of a value that does not fit, in words; `name`: what the value is called in them."""
    if isinstance(schema, tuple):
        wrong = [misfit(value, one, name) for one in schema]
        return wrong[-1] if all(wrong) else None
    if isinstance(schema, list):
        if not isinstance(value, list):
            return _unlike(value, name, "a list")
        return _first(misfit(one, schema[0], f"{name}[{k}]") for k, one in enumerate(value))
    if isinstance(schema, Mapping):
        if not isinstance(value, dict):
            return _unlike(value, name, "an object")
        needed = schema.needed if isinstance(schema, Whole) else ()
        lacking = [key for key in needed if key not in value]
        if lacking:
            return f"{name:.200} has no {', '.join(lacking)}"
        rest = schema.get(..., object)
        return _first(misfit(one, schema.get(key, rest), f"{name}.{key}") for key, one in value.items())
    kinds = get_args(schema) or (schema,)
    kind = type(value)
    if object in kinds or kind in kinds or (kind is int and float in kinds):
        return None
    return _unlike(value, name, " or ".join(_SAID[one] for one in kinds))


def _first(wrong: Any) -> str | None:
    return next((one for one in wrong if one), None)


def _unlike(value: Any, name: str, expected: str) -> str:
    found = _SAID.get(type(value), type(value).__name__)
    return f"{name:.200} is {found}; expected {expected}"
