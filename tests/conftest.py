"""Nothing in the tests touches a network."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:  # a core each: threads that wait for each other slow all
    os.environ.setdefault("OMP_NUM_THREADS", "1")


SLOW = (
    "cli/test_main.py",
    "cli/test_steering.py",
    "contracts",
    "docs/test_docs.py",
    "docs/test_docs_run.py",
    "edit/test_edit.py",
    "edit/test_positions.py",
    "experiments",
    "figures/test_figures.py",
    "measure/test_generation.py",
    "measure/test_grader.py",
    "model/test_experts.py",
    "play",
    "real",
    "recording/test_compiled.py",
    "recording/test_parallel.py",
    "recording/test_plan.py",
    "recording/test_ray.py",
    "recording/test_record.py",
    "recording/test_until.py",
    "reporting",
    "study/test_study.py",
    "test_kills.py",
    "test_planted.py",
)
"""Rooms and files that take long: real models, browsers, clusters, whole studies, everything on every kind of model."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow, by its file."""
    here = Path(__file__).parent
    for item in items:
        if any((here / name) in (item.path, *item.path.parents) for name in SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")
def without_pip_list() -> Iterator[None]:
    """lm-eval asks pip and the system what they are after every run, which takes longer than the tasks of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("lm_eval") is not None:
            patch.setattr("lm_eval.evaluator.add_env_info", lambda _results: None)
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For models so small that a second thread only waits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
