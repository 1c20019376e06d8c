"""Nothing in the tests touches a network."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if (
    int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1
):  # each process has a core: threads that wait for each other slow all
    os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests share what is slow to make, and those on the real model share the model: each in one process."""
    for item in items:
        real = item.path.parent.name == "real"
        item.add_marker(pytest.mark.xdist_group("real" if real else item.path.stem))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For models so small that a second thread only waits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
