"""What the command line says of mistakes: of its words in lape's wording, and of options by their flags."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from cyclopts import CycloptsError
from cyclopts.exceptions import MissingArgumentError, UnknownOptionError, UnusedCliTokensError

_VALUE = r"""\[[^\]]*\]|\{[^}]*\}|\([^)]*\)|"[^"]*"|'[^']*'|[^\s,;()]*[^\s,;().]"""


_CALLED = {"texts": "text", "lines": "parallel", "include": "include_path"}
"""What a function calls otherwise than the command does."""


def flags_by_name(arguments: Iterable[Any]) -> dict[str, str]:
    """Python's name of an option -> its flag."""
    found = {one.field_info.name: one.name for one in arguments if one.parse and one.name.startswith("--")}
    return {name: flag for name, flag in found.items() if name.isidentifier()}


def in_flags(message: str, flags: Mapping[str, str]) -> str:
    """A message of the library, where options are called as in Python, as it is said of a command: `width=11008` is `--width 11008`, and
    `texts={"fr": "a.txt"}` is `--text fr=a.txt`.

    An option is known by its `=`, by an underscore, or by standing, in lower case, where a sentence begins.
    """
    if not flags:
        return message
    names = "|".join(sorted(flags, key=len, reverse=True))
    values = {**flags, **{python: flags[name] for python, name in _CALLED.items() if name in flags}}
    known = "|".join(sorted(values, key=len, reverse=True))
    given = re.compile(rf"(?<![-\w./])({known})=({_VALUE})(?:,\s(?=(?:{known})=))?")
    message = given.sub(lambda one: _given(values[one[1]], one[2], more=one[0].endswith(" ")), message)
    called = re.compile(rf"(?:(?<![-\w./'\"])(?=\w+_)|^|(?<=\.\s))({names})(?![\w=/]|\.\w)")
    return called.sub(lambda one: flags[one[1]], message)


def _given(flag: str, value: str, *, more: bool) -> str:
    """A flag with its value: a list as words with commas, a tuple as words, a mapping as TAG=VALUE each, a text without quotes, True as nothing."""
    words = re.sub(r"[\[\]{}()\"']", "", value).split(", ")
    if value.startswith("{"):
        said = " ".join(f"{flag} {word.replace(': ', '=')}" for word in words)
    elif value.startswith("("):
        said = shlex.join([flag, *words])
    else:
        said = flag if words == ["True"] else f"{flag} {','.join(words)}"
    return said + " " * more


def mistake(error: CycloptsError) -> str:
    """What is wrong with the words of a command, what was expected, and what to type."""
    command = " ".join(["lape", *(error.command_chain or ())])
    known = _known(error)
    usage = " ".join([command, *(_example(one) for one in known if one.required)])
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        given = error.keyword or error.argument.tokens
        _, found, meant = str(error).partition(" Did you mean ")
        about = next((one.parameter.help for one in known if one.name == error.argument.name), None) or ""
        expected = f" {about.split('. ')[0].rstrip('.')}." if about else ""
        if not (given or found or error.argument.field_info.is_positional):
            usage = _completed(error, [one for one in known if one.required and not one.field_info.is_positional])
        return f"{_called(error.argument)} {'was given no value' if given else 'is missing'}.{found}{meant}{expected} Type: {usage}"
    if isinstance(error, UnusedCliTokensError):
        extra = " ".join(error.unused_tokens or ())
        return f"Too many words: {extra}. Put quotes around words that belong together. Expected: {usage}"
    if isinstance(error, UnknownOptionError):
        return f"{error} All options: {command} --help"
    return str(error)


def usage(command: str, arguments: Iterable[Any]) -> str:
    """A command with what it needs, in the order in which one types it."""
    shown = [one for one in arguments if one.parse and one.show]
    places = [one for one in shown if one.field_info.is_positional]
    words = [_place(one) for one in places] + [_example(one) for one in shown if one.required and one not in places]
    more = ["[OPTIONS]"] if len(shown) > len(words) else []
    return " ".join([command, *words, *more])


def _place(argument: Any) -> str:
    """A positional argument, with dots where there may be several, in brackets where it may be left out."""
    several = argument.field_info.kind is argument.field_info.VAR_POSITIONAL
    name = f"{_called(argument)}{' ...' if several else ''}"
    return name if argument.required else f"[{name}]"


def _completed(error: CycloptsError, required: Iterable[Any]) -> str:
    """What was typed, with the required options that it lacks."""
    typed = error.root_input_tokens or []
    there = {word.partition("=")[0] for word in typed}
    return " ".join(["lape", shlex.join(typed), *(_example(one) for one in required if there.isdisjoint(one.names))])


def _known(error: CycloptsError) -> list[Any]:
    """What the command can be given."""
    if error.app is None or error.app.default_command is None:
        return []
    return list(error.app.assemble_argument_collection(parse_docstring=True))


def _called(argument: Any) -> str:
    return str(argument.name.lstrip("-").upper() if argument.field_info.is_positional else argument.name)


def _example(argument: Any) -> str:
    """A required argument as it is typed."""
    if argument.field_info.is_positional:
        return _called(argument)
    said = argument.parameter.help or ""
    return f"{argument.name} {'TAG=PATH' if said.startswith('TAG=PATH') else argument.name.lstrip('-').upper()}"
