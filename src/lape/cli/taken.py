"""What a run knows need not be typed again: a verb that is given a run takes its model, and how its texts are read, from there.

What is typed, or stands in a file of options, wins. What was taken is said in one line.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclopts.argument import update_argument_collection

from lape.cli.common import err
from lape.cli.flags import argument_of
from lape.errors import LapeError, OptionError

READING = ("show", "steer", "play", "export", "merge", "push", "plan")
"""Verbs that put nothing into the run that they are given."""
RUNS = ("run", "neurons", "stats", "with")
"""Arguments that may be a run, and so one on the Hub: hf:OWNER/NAME. Beside a run, it may stand where the model would."""
LOADED = ("dtype", "revision", "bits", "sites")
"""Options with which a model was loaded, without which it would be another."""
READ = ("document", "column", "bos")
"""Options of how texts become tokens."""
SCHEME = "hf:"
_MADE = re.compile(r"\w+(ForCausalLM|ForConditionalGeneration|Model)")
"""What stands for the name of a model that was made in memory: its class."""
_FILES = ("run.json", "stats.safetensors", "neurons.safetensors")


def is_run(path: Path) -> bool:
    """Whether a word that may be a model is a run's folder, or a file of statistics or neurons."""
    if path.is_file():
        return path.suffix == ".safetensors"
    return not (path / "config.json").is_file() and any((path / name).is_file() for name in _FILES)


def fetched(_app: Any, commands: tuple[str, ...], arguments: Any) -> None:
    """A hook of cyclopts' `config`, before `from_run`: a run that is named by its place on the Hub, hf:OWNER/NAME, is fetched from there.

    Raises OptionError for a verb that would put its result into the run, unless it is told where else.
    """
    places = [one for name in RUNS if (one := argument_of(arguments, name))]
    for argument in [*places, argument_of(arguments, "model")] if places else []:
        for k, token in enumerate(argument.tokens if argument else ()):
            if not token.value.startswith(SCHEME):
                continue
            if commands[0] not in READING and not _value(argument_of(arguments, "out")):
                there = token.value.removeprefix(SCHEME)
                raise OptionError(
                    f"lape {commands[0]} puts its result into the run, and {token.value} lies on the Hub. Say where it goes, --out OUT, or fetch the run "
                    f"into a folder of yours: hf download {there} --local-dir {there.partition('/')[2]}"
                )
            from lape.ship.hub import fetch

            folder = fetch(token.value)
            err.print(f"{token.value} is at {folder}", soft_wrap=True)
            argument.tokens[k] = token.evolve(value=str(folder))


def from_preset(_app: Any, commands: tuple[str, ...], arguments: Any) -> None:
    """A hook of cyclopts' `config`, after a file's values are in: what neither the command nor the file says is a preset's, where one is named."""
    from lape.study.presets import PRESETS, preset

    name = _value(asked) if (asked := argument_of(arguments, "preset")) is not None else ""
    if commands and name in PRESETS:
        update_argument_collection(preset(name), f"--preset {name}", arguments, root_keys=(), allow_unknown=False)


def from_run(_app: Any, commands: tuple[str, ...], arguments: Any) -> None:
    """A hook of cyclopts' `config`, after a file's values are in. A run stands where its flag or place is, or alone where the model would.

    Raises OptionError where two runs are named.
    """
    model, run = argument_of(arguments, "model"), argument_of(arguments, "run") or argument_of(arguments, "neurons")
    if not commands or model is None or run is None:
        return
    first, place = _value(model), _value(run)
    alone = bool(first) and is_run(Path(first))
    if alone and place and Path(place) != Path(first):
        raise OptionError(f"{first} is a run, and {place} was named too. Name a model and a run, or one run alone.")
    if alone:
        run.tokens, model.tokens, place = model.tokens, [], first
    if not place or not Path(place).exists():
        return
    needs = _needs(commands)
    taken = known(Path(place), needs, with_model=not model.tokens and (alone or model.required or "MODEL" in needs))
    if model.required and not model.tokens and "model" not in taken:
        raise unknown(
            Path(place), f"lape {commands[0]} MODEL {'' if run.field_info.is_positional else '--run '}{place}"
        )
    taken = {name: value for name, value in taken.items() if _lacks(argument_of(arguments, name), value)}
    if taken:
        update_argument_collection(taken, place, arguments, root_keys=(), allow_unknown=False)
        err.print(f"From {place}: {', '.join(_typed(name, value) for name, value in taken.items())}", soft_wrap=True)


def known(place: Path, needs: frozenset[str], *, with_model: bool) -> dict[str, Any]:
    """Option -> what a run knows of it. `needs`: the flags of what an experiment cannot do without."""
    from lape.store.run import read_record

    folder = place if place.is_dir() else place.parent
    record, manifest = read_record(folder), manifest_of(place)
    read = manifest.get("options")
    found = {name: read[name] for name in READ if isinstance(read, dict) and name in read}
    if with_model and (name := named_in(manifest)):
        found["model"] = name
        how = record.get("loading")
        found |= {name: how[name] for name in LOADED if isinstance(how, dict) and how.get(name) is not None}
    if "--parallel TAG=PATH" in needs:
        before = [read_record(one.parent).get("parallel") for one in sorted(folder.glob("*/run.json"))]
        found |= next(({"parallel": words} for words in before if words), {})
    return found


def manifest_of(place: Path) -> Mapping[str, Any]:
    """What a run, or a file of statistics or neurons, says of how it was made; empty where it cannot be read, which its reader says."""
    from lape.values.neurons import LanguageNeurons
    from lape.values.stats import ActivationStats

    for kind in (ActivationStats, LanguageNeurons):
        try:
            manifest: Mapping[str, Any] = kind.load(place).manifest
        except (LapeError, OSError):
            continue
        return manifest
    return {}


def named_in(manifest: Mapping[str, Any]) -> str:
    """The model that something was recorded with, as `lape.load` takes it; empty where that is not said."""
    from lape.model.sample import NAME
    from lape.values.same import place_of

    made = manifest.get("model")
    name = place_of(made) if isinstance(made, dict) else ""
    if _MADE.fullmatch(name):
        return ""
    return "sample" if name == NAME and not Path(name).exists() else name


def recorded_with(manifest: Mapping[str, Any], place: Path) -> str:
    """`named_in`. Raises OptionError where it is not said."""
    if name := named_in(manifest):
        return name
    raise unknown(place, "--model MODEL")


def unknown(place: Path, typed: str) -> OptionError:
    """What is said of a run that does not name its model."""
    return OptionError(f"{place} does not say which model it was recorded with. Name it: {typed}.")


def _needs(commands: tuple[str, ...]) -> frozenset[str]:
    """What is to be typed for what an experiment cannot do without."""
    from lape.experiments import experiments

    one = experiments().get(commands[1]) if len(commands) > 1 and commands[0] == "run" else None
    return frozenset(need.flag for need in one.needs) if one else frozenset()


def _value(argument: Any) -> str:
    return argument.tokens[0].value if argument.tokens else ""


def _lacks(argument: Any, value: Any) -> bool:
    """Whether an option was not given, and is another by default."""
    return argument is not None and not argument.tokens and argument.field_info.default != value


def _typed(name: str, value: Any) -> str:
    words = shlex.join(map(str, value)) if isinstance(value, list) else shlex.quote(str(value))
    return f"{'model ' if name == 'model' else f'--{name} '}{words}"
