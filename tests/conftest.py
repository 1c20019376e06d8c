"""Nothing in the tests touches a network."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")  # as the command line does where stderr is no terminal
if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:  # a core each: threads that wait for each other slow all
    os.environ.setdefault("OMP_NUM_THREADS", "1")


SLOW = (
    "contracts/test_architectures.py",
    "real/test_main_job.py",
    "real/test_play_page.py",
    "recording/test_ray.py",
    "real",
    "benchmarks",
    "docs/test_docs_run.py",
    "docs/test_docstrings.py",
    "figures/test_figures.py",
    "test_kills.py",
    "experiments/test_harness.py",
    "experiments",
    "contracts",
    "study/test_study.py",
    "play",
    "cli/test_steering.py",
    "cli/test_main.py",
    "reporting",
    "recording/test_parallel.py",
    "recording/test_plan.py",
    "recording/test_record.py",
    "recording/test_until.py",
    "edit/test_edit.py",
    "edit/test_positions.py",
    "measure/test_generation.py",
    "measure/test_grader.py",
    "model/test_experts.py",
    "docs/test_docs.py",
    "test_planted.py",
)
"""Files and rooms that take long, the longest first: real models, browsers, clusters, whole studies, everything on every kind of model."""
_HERE = Path(__file__).parent


@cache
def _rank(path: Path) -> int:
    """The place of a file in `SLOW`; behind all of them for others."""
    return next((k for k, name in enumerate(SLOW) if _HERE / name in (path, *path.parents)), len(SLOW))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What is left out is not imported either."""
    return True if "not slow" in config.option.markexpr and _rank(collection_path) < len(SLOW) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow, by its file; the longest begins, so that no process waits for another at the end."""
    items.sort(key=lambda item: _rank(item.path))
    for item in items:
        if _rank(item.path) < len(SLOW):
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
