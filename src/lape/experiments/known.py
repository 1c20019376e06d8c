"""What a run knows of the commands that go on from it: the words that are typed for its model and its texts."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lape.model.sample import NAME

_MODEL_FIRST = ("record", "perplexity", "force", "examples", "eval", "study", "steer")
"""Verbs whose first word is a model."""


@dataclass(frozen=True)
class Known:
    """Words of a command, ready to be typed; where nothing is known, what stands for them."""

    run: str = "RUN"
    model: str = "MODEL"
    recorded: str = "--text TAG=PATH"
    """The text that was recorded."""
    other: str = "--text TAG=PATH"
    """Text that was not."""
    parallel: str = "--parallel TAG=PATH"
    identify: str = "lape identify RUN"
    """The command that finds the run's neurons; empty where none finds these again."""

    def fill(self, command: str) -> str:
        """A command with {run}, {model} and so on filled in."""
        return command.format(**vars(self))


def known_of(
    record: Mapping[str, Any], model: Mapping[str, Any], languages: Iterable[str] = (), *others: Mapping[str, Any]
) -> Known:
    """What the run.json of a run or study knows; `others`: those beside results in it."""
    languages = [*languages]
    recorded = recorded_in(record)
    parallel = next((some for one in (record, *others) if (some := typed_after(one, "--parallel"))), [])
    return Known(
        model=_model(record, model, *others),
        recorded=given("--text", recorded) or placeholders("--text", languages),
        other=placeholders("--text", languages) + _by_line(record),
        parallel=" ".join(f"--parallel {shlex.quote(one)}" for one in parallel)
        or placeholders("--parallel", languages),
    )


def evaluated(record: Mapping[str, Any], *names: str) -> str:
    """The text that a result was measured on, where its run.json lists it under one of `names`; else empty."""
    texts = texts_in(record, *names)
    return given("--text", texts) + _by_line(record) if texts else ""


def _by_line(record: Mapping[str, Any]) -> str:
    options = record.get("options")
    return " --document line" if isinstance(options, dict) and options.get("document") == "line" else ""


def given(option: str, paths: Mapping[str, Iterable[str]]) -> str:
    """`--text fr=a.txt --text fr=b.txt`, of language -> paths."""
    return " ".join(
        f"{option} {shlex.quote(f'{language}={path}')}" for language, some in paths.items() for path in some
    )


def placeholders(option: str, languages: Iterable[str]) -> str:
    """The same where only the languages are known."""
    return given(option, {language: ["PATH"] for language in languages} or {"TAG": ["PATH"]})


def recorded_in(record: Mapping[str, Any]) -> dict[str, list[str]]:
    """Language -> paths of the text that a run recorded; empty where its run.json does not say it."""
    return texts_in(record) if record.get("verb") in ("record", "merge", "study") else {}


def texts_in(record: Mapping[str, Any], *names: str) -> dict[str, list[str]]:
    """Language -> paths, as a run.json lists them under the first of `names` (texts) that does; empty where it does not say all of them."""
    for name in names or ("texts",):
        texts = record.get(name)
        if isinstance(texts, dict) and texts and all(map(_listed, texts.values())):
            return texts
    return {}


def _listed(paths: Any) -> bool:
    return isinstance(paths, list) and bool(paths) and all(isinstance(path, str) for path in paths)


def typed_after(record: Mapping[str, Any], option: str) -> list[str]:
    """What was given to an option in the command that a run.json holds."""
    found: list[str] = []
    taking = False
    for word in _command(record):
        if word.startswith("-"):
            taking = word == option
            found += [word.removeprefix(f"{option}=")] if word.startswith(f"{option}=") else []
        elif taking:
            found.append(word)
    return found


def _model(record: Mapping[str, Any], model: Mapping[str, Any], *others: Mapping[str, Any]) -> str:
    """What names the model in a command: as it was named in one before, else by what its manifest says."""
    if record.get("verb") == "demo" or (model.get("id") == NAME and not Path(NAME).exists()):
        return "sample"
    for command in map(_command, (record, *others)):
        if len(command) > 1 and command[0] in _MODEL_FIRST and not command[1].startswith("-"):
            return shlex.quote(command[1])
    named = model.get("path") or model.get("id")
    return shlex.quote(str(named)) if named else "MODEL"


def _command(record: Mapping[str, Any]) -> list[str]:
    command = record.get("command")
    return [str(word) for word in command] if isinstance(command, list) else []
