"""Examples in docstrings: each is run, and every public name has one.

They are run in an empty folder with a made model, in one namespace: `lape`, `model`, `tokenizer`, `stats` (everything recorded), `neurons`, `texts`
(language -> `Documents` that were not recorded), and the folders `model` and `run` and files `en.txt`, … as a user would have them.
"""

from __future__ import annotations

import doctest
import inspect
import os
import shutil
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch

import lape
from lape.detect import DETECTORS
from lape.experiments import NAMES
from lape.measure.result import Result
from lape.values.neurons import NeuronSet
from lape.values.space import NeuronSpace
from lape.values.stats import ActivationStats, LanguageStats
from support.planted import planted, planted_folder, planted_stats, planted_texts, planted_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

NOT_RUN: Mapping[str, str] = MappingProxyType(
    {"lape.experiments.harness.harness": "lm-eval fetches the data of its tasks"}
)
"""Name -> why its example is not run here: what it needs."""
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def public() -> dict[str, Any]:
    """Name -> function or class: those at top level, the selection methods, and what experiments offer and give."""
    found = {f"lape.{name}": getattr(lape, name) for name in lape.__all__}
    found |= {f"lape.detect.{name}": detector.find for name, detector in DETECTORS.items()}
    for experiment in NAMES:
        package = import_module(f"lape.experiments.{experiment}")
        offered = [name for name in getattr(package, "__all__", ()) if name != "EXPERIMENT"]
        found |= {f"lape.experiments.{experiment}.{name}": getattr(package, name) for name in offered}
    found["lape.measure.result.Result"] = Result
    found |= {f"lape.values.{one.__name__}": one for one in (NeuronSet, NeuronSpace)}
    once = {id(value): name for name, value in reversed(found.items())}
    return {name: value for name, value in found.items() if once[id(value)] == name}


def examples(name: str, value: Any) -> list[doctest.DocTest]:
    """The examples of a function, or of a class and its own methods."""
    finder, parser = doctest.DocTestFinder(exclude_empty=True), doctest.DocTestParser()
    if inspect.isclass(value):
        return [one for one in finder.find(value, name, globs={}) if one.examples]
    test = parser.get_doctest(inspect.getdoc(value) or "", {}, name, inspect.getsourcefile(value), None)
    return [test] if test.examples else []


EXAMPLES = {one.name: one for name, value in public().items() if name not in NOT_RUN for one in examples(name, value)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that every example finds."""
    return planted_folder(tmp_path_factory.mktemp("docstrings"))


@pytest.fixture
def names(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What every example can use."""
    shutil.copytree(made, tmp_path / "here", copy_function=os.link)
    monkeypatch.chdir(tmp_path / "here")
    stats = with_variation(planted_stats())
    neurons = lape.identify(stats, reliability=False)
    here = {"model": planted(), "tokenizer": planted_tokenizer(), "texts": planted_texts(1, 60)}
    return {"lape": lape, "stats": stats, "neurons": neurons, **here}


def with_variation(stats: ActivationStats) -> ActivationStats:
    """The same, as if tuned checkpoints had been recorded too."""
    random = torch.Generator().manual_seed(0)
    tensors = {"variation": torch.rand(len(stats.space), generator=random, dtype=torch.float64)}
    by_language = {k: LanguageStats({**stats[k].tensors, **tensors}) for k in stats.languages}
    return ActivationStats(stats.space, by_language, stats.manifest)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name: str, names: dict[str, Any]) -> None:
    test, said = EXAMPLES[name], []
    test.globs = names
    doctest.DocTestRunner(optionflags=FLAGS).run(test, out=said.append, clear_globs=False)
    assert not said, "".join(said)


def test_every_public_name_has_an_example() -> None:
    assert not {name for name, value in public().items() if not examples(name, value)}


def test_examples_are_not_run_for_a_reason() -> None:
    assert set(NOT_RUN) <= set(public())
