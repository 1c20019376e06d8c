"""`lape --again PATH`: run the command that made a result once more."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from lape.errors import FileError, OptionError
from lape.store.run import read_record


def recall(words: Sequence[str]) -> list[str]:
    """Return the command that made the result at a path.

    `words`: the path, a folder or a file in it, then options that take the place of the command's own.

    Raises OptionError without a path, and FileError where no run.json says how the result was made.
    """
    if not words:
        raise OptionError("--again was given no path. Expected a result of lape: lape --again runs/mine/perplexity")
    place, typed = Path(words[0]), list(words[1:])
    if not place.exists():
        raise FileError(f"There is no {place}. Expected a folder or a file that lape wrote.")
    command = read_record(place if place.is_dir() else place.parent).get("command")
    if not isinstance(command, list) or not command:
        raise FileError(
            f"Nothing says which command made {place}. Expected a folder that lape wrote, with a run.json in it."
        )
    flags = {
        word.partition("=")[0]: "=" in word or not after.startswith("-") for word, after in pairwise([*typed, "-"])
    }
    kept, replaced = [], False
    for word in command:
        if word.startswith("--"):
            flag, equals, _ = word.partition("=")
            replaced = flags.get(flag, False) and not equals
            if flag in flags:
                continue
        if not replaced:
            kept.append(word)
    return [*kept, *typed]
