"""What the killed processes of test_record.py run."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import ModuleType

import torch

import lape
from lape.recording.record import record as lape_record
from lape.values.stats import ActivationStats
from lape.values.stats import merge as stats_merge

OPTIONS = {"document": "line", "row_tokens": 32, "batch_tokens": 32, "checkpoint_seconds": 0, "residual": True}
OPTIONS |= {"per_text": True, "most_texts": 20, "histogram": True}


def record(model: Path, texts: dict[str, str], out: Path) -> None:
    torch.set_num_threads(1)
    lape_record(*lape.load(model, device="cpu"), texts, out=out, **OPTIONS)


def record_and_die_while_writing(model: Path, texts: dict[str, str], out: Path) -> None:
    """Die between writing a checkpoint and putting it in place."""
    replace, done = os.replace, []

    def dying(source: str, target: str) -> None:
        done.append(target)
        if len(done) == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = dying
    record(model, texts, out)


def public_names_are_functions() -> None:
    """`lape.record` is also the name of a module, which an import of it elsewhere puts in the function's place."""
    modules = [name for name in lape.__all__ if isinstance(getattr(lape, name), ModuleType)]
    if modules:
        raise SystemExit(f"these are modules: {modules}")


def merge(parts: list[Path], out: Path) -> None:
    stats_merge(ActivationStats.load(part) for part in parts).save(out, overwrite=True)
