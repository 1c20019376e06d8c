"""What the tests on the real model share: it is recorded once, and loaded and identified once in each process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import lape
from lape.data import samples
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats
from support.once import once


@pytest.fixture(scope="session")
def loaded() -> tuple[Any, Any]:
    return lape.load("sample")


@pytest.fixture(scope="session")
def stats(loaded: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> ActivationStats:
    def make(path: Path) -> None:
        lape.record(*loaded, samples.texts("record"), row_tokens=256, residual=True).save(path)

    return ActivationStats.load(once(tmp_path_factory, "sample.safetensors", make))


@pytest.fixture(scope="session")
def neurons(stats: ActivationStats) -> LanguageNeurons:
    return lape.identify(stats)


@pytest.fixture(scope="package", autouse=True)
def _all_cores() -> Iterator[None]:
    """The tiny models of the other tests run fastest on one thread, and say so for the whole process."""
    before = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    others = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) - 1  # processes that want a core each
    torch.set_num_threads(max(1, cores - others))
    yield
    torch.set_num_threads(before)
