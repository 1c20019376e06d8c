"""Flags: the types that verbs share, and the rules that make a field of a plain dataclass of options a flag."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from cyclopts import App, Parameter
from cyclopts.argument import update_argument_collection

from lape.errors import FileError
from lape.options import COUNT, count, descriptions

FLAGS = Parameter(name="*", consume_multiple=True, negative_iterable=())
"""Every field is a flag; a tuple takes all words up to the next flag; a bool can be taken back (--no-residual)."""
SWITCHES = Parameter(name="*", consume_multiple=True, negative_iterable=(), negative_bool=())
"""The same, but no bool can be taken back."""
Switch: TypeAlias = Annotated[bool, Parameter(negative="")]
"""A bool that cannot be taken back."""
Several: TypeAlias = Annotated[list[str], Parameter(negative="", show_default=False)]
"""What may be given several times, such as --text TAG=PATH."""
Out: TypeAlias = Annotated[Path, Parameter(name="--out")]
"""Where the result goes."""
With: TypeAlias = Annotated[Path, Parameter(name="--with")]
"""What is shown with it."""


def readable(_app: Any, _commands: Any, arguments: Any) -> None:
    """What is done to arguments before their words become values: a hook of cyclopts' `config`, after the file's values are in.

    Numbers of tokens are read as people write them (20k, 1M). The annotations of a dataclass's `__init__` are resolved, since cyclopts
    looks for the names in those of inherited fields where the subclass is defined.
    """
    for argument in arguments:
        if _is_count(argument.field_info.hint):
            argument.tokens = [token.evolve(value=str(count(token.value))) for token in argument.tokens]
        if dataclasses.is_dataclass(argument.hint):
            vars(argument.hint)["__init__"].__annotations__ = get_type_hints(argument.hint, include_extras=True)


@dataclass(frozen=True)
class FromFile:
    """Gives options that are not named in the command from a file of options by name: a hook of cyclopts' `config`.

    One file serves several verbs: a key stands for all verbs that have such an option, a table is for the verb of its name. What no verb
    has is refused.
    """

    verbs: App
    path: Path
    values: Mapping[str, Any]

    def __call__(self, _app: Any, commands: tuple[str, ...], arguments: Any) -> None:
        """Raises FileError, or an error of cyclopts', for a key that is no option."""
        if not commands:
            return
        tables = {name: value for name, value in self.values.items() if isinstance(value, dict)}
        shared = {name: value for name, value in self.values.items() if name not in tables}
        others = [one for one in self.verbs if not one.startswith("-") and one != commands[0]]
        for name in tables:
            if name not in (*others, commands[0]):
                raise FileError(f"{self.path}: there is no verb {name}. Expected tables of {', '.join(others)}.")
        given = {_named(name, arguments): value for name, value in shared.items() if _takes(arguments, name, value)}
        for name in shared:
            if _takes(arguments, name, shared[name]):
                continue
            if not any(_takes(_arguments(self.verbs[verb]), name, shared[name]) for verb in others):
                given[name] = shared[name]  # no verb takes it: it is refused by name
        own = {**given, **{_named(name, arguments): value for name, value in tables.get(commands[0], {}).items()}}
        update_argument_collection(own, str(self.path), arguments, root_keys=(), allow_unknown=False)


RUNS = ("run", "neurons", "stats", "out")
"""What the run's folder is called by verbs, so that one key of a file, run, stands for all: `lape record` writes it, others read it."""


def argument_of(arguments: Any, name: str) -> Any:
    """The option of that name, or None."""
    flag = f"--{name.replace('_', '-')}"
    return next((one for one in arguments if flag in one.names), None)


def _named(name: str, arguments: Any) -> str:
    """What a verb calls a key of a file."""
    if name != "run":
        return name
    return next((one for one in RUNS if argument_of(arguments, one)), name)


def _takes(arguments: Any, name: str, value: Any) -> bool:
    """Whether there is an option of that name, and, where it is one of several words, such a word is given."""
    argument = argument_of(arguments, _named(name, arguments))
    words = _choices(argument.field_info.hint) if argument else ()
    return argument is not None and (not words or value in words)


def _choices(hint: Any) -> tuple[Any, ...]:
    """The words that an option takes; none where it takes other values too."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    inner = [one for one in get_args(hint) if one is not type(None)] if get_origin(hint) in (Union, UnionType) else []
    return _choices(inner[0]) if len(inner) == 1 else ()


def _arguments(app: Any) -> list[Any]:
    """All that a verb can be given; of a verb with commands of its own, all that these can."""
    if app.default_command is not None:
        return list(app.assemble_argument_collection())
    return [one for name in app if not name.startswith("-") for one in _arguments(app[name])]


def _is_count(hint: Any) -> bool:
    return COUNT in getattr(hint, "__metadata__", ()) or any(map(_is_count, get_args(hint)))


def any_of(name: str, kinds: Mapping[str, type]) -> type:
    """One dataclass of flags with the fields of several dataclasses of options, by name. Each is None where it is not given.

    Its help says for which of them a flag is, and what it means there; `given_flags` gives those that were given.
    """
    every: dict[str, Any] = {}
    for kind in kinds.values():
        hints = get_type_hints(kind)
        for field in fields(kind):
            every.setdefault(field.name, hints[field.name])
    made = [
        (field, hint | None, dataclasses.field(default=None, metadata={"help": _help(field, kinds)}))
        for field, hint in every.items()
    ]
    return dataclasses.make_dataclass(name, made, frozen=True, namespace={"__module__": __name__})


def given_flags(flags: Any) -> dict[str, Any]:
    """Those of `any_of` that were given."""
    return {field.name: value for field in fields(flags) if (value := getattr(flags, field.name)) is not None}


def _help(name: str, kinds: Mapping[str, type]) -> str:
    """What a flag does, once for all dataclasses that say the same of it."""
    users: dict[str, list[str]] = {}
    for of, kind in kinds.items():
        for field in fields(kind):
            if field.name == name:
                said = descriptions(kind).get(name, "")
                default = (
                    "" if field.default in (None, MISSING) or "Default:" in said else f" Default: {field.default}."
                )
                users.setdefault(f"{said}{default}".strip(), []).append(of)
    return " ".join(f"{', '.join(several)}: {_within(said)}" for said, several in users.items())


def _within(sentence: str) -> str:
    """A sentence as it goes on after a colon."""
    return sentence[:1].lower() + sentence[1:] if sentence[1:2].islower() or sentence[1:2] == " " else sentence
