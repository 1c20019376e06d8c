"""What processes that are killed run: a command of `lape`, forked where everything is imported already."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import lape
from lape.cli import run
from support.worded import judged_by_words

JUDGED = ("confusion", "fix")
"""Commands whose answers are judged by the planted model's words."""
STEPS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "open"}
"""What Python is audited for that changes a folder."""


def command(words: Sequence[str], watched: Path, said: Path, last: int = 0) -> None:
    """Run a command and die just before its `last` change of files in `watched`; with 0, write to `said`.steps which there were.

    `said`: a file that gets what it prints. Each change is a step: a file is opened to be written, renamed or removed, a folder made
    or removed.
    """
    torch.set_num_threads(1)
    sys.argv = ["lape", *words]
    with said.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if words[0] in JUDGED:
        judged_by_words(pytest.MonkeyPatch())
    steps: list[str] = []

    def step(event: str, args: tuple[Any, ...]) -> None:
        if event in STEPS and _changes(event, args, str(watched)):
            steps.append(event)
            if len(steps) == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(step)
    code = run(list(words))
    if not last:
        said.with_suffix(".steps").write_text(json.dumps(steps))
    sys.exit(code)


def _changes(event: str, args: tuple[Any, ...], watched: str) -> bool:
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    if event == "open" and not (isinstance(args[2], int) and args[2] & writes):
        return False
    inside = event in ("os.remove", "os.rmdir") and args[1] != -1  # of a folder that is removed with all that is in it
    return inside or str(args[0]).startswith(watched)


def public_names_are_functions() -> None:
    """`lape.record` is also the name of a module, which an import of it elsewhere puts in the function's place."""
    modules = [name for name in lape.__all__ if isinstance(getattr(lape, name), ModuleType)]
    if modules:
        raise SystemExit(f"these are modules: {modules}")
