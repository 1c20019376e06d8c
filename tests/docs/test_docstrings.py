"""Examples in docstrings: each is run, and every public name has one.

They are run in an empty folder with a made model, in one namespace: `lape`, `model`, `tokenizer`, `stats` (everything recorded), `neurons`, `texts`
(language -> `Documents` that were not recorded), and the folders `model` and `run` and files `en.txt`, … as a user would have them.
"""

from __future__ import annotations

import doctest
import inspect
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from pkgutil import resolve_name
from types import MappingProxyType
from typing import Any

import pytest
import torch

import lape
from lape.measure.result import Result
from lape.values.stats import ActivationStats, LanguageStats
from support.hub import fake_hub
from support.pages import referenced
from support.planted import planted, planted_folder, planted_stats, planted_texts, planted_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

NOT_RUN: Mapping[str, str] = MappingProxyType(
    {"lape.experiments.harness.harness": "lm-eval fetches the data of its tasks"}
)
"""Name -> why its example is not run here: what it needs."""
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def public() -> dict[str, Any]:
    """Name -> function or class: all that the reference documents, and what experiments give."""
    found = {name: resolve_name(name) for name in referenced()} | {"lape.measure.result.Result": Result}
    return {name: value for name, value in found.items() if callable(value) and not _speaks_for_itself(value)}


def _speaks_for_itself(value: Any) -> bool:
    """Options are shown by the functions that take their fields as keywords, errors by what raises them."""
    return inspect.isclass(value) and (value.__name__.endswith("Options") or issubclass(value, Exception))


def examples(name: str, value: Any) -> list[doctest.DocTest]:
    """The examples of a function, or of a class and its own methods."""
    finder, parser = doctest.DocTestFinder(exclude_empty=True), doctest.DocTestParser()
    if inspect.isclass(value):
        return [one for one in finder.find(value, name, globs={}) if one.examples]
    test = parser.get_doctest(inspect.getdoc(value) or "", {}, name, inspect.getsourcefile(inspect.unwrap(value)), None)
    return [test] if test.examples else []


EXAMPLES = {one.name: one for name, value in public().items() if name not in NOT_RUN for one in examples(name, value)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that every example finds."""
    return planted_folder(tmp_path_factory.mktemp("docstrings"))


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    """What every example can use."""
    stats = with_variation(planted_stats())
    neurons = lape.identify(stats, reliability=False)
    here = {"model": planted(), "tokenizer": planted_tokenizer(), "texts": planted_texts(1, 60)}
    return {"lape": lape, "stats": stats, "neurons": neurons, **here}


@pytest.fixture(scope="module", autouse=True)
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where examples push to and fetch from."""
    with fake_hub(tmp_path_factory.mktemp("cache")):
        yield


@pytest.fixture
def names(made: Path, known: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The same, in a folder that is the example's alone."""
    shutil.copytree(made, tmp_path / "here", copy_function=os.link)
    monkeypatch.chdir(tmp_path / "here")
    return dict(known)


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


def test_every_method_is_in_an_example_of_its_class() -> None:
    missing = set()
    for name, kind in public().items():
        shown = "".join(one.source for test in examples(name, kind) for one in test.examples)
        for method in vars(kind) if inspect.isclass(kind) else ():
            told = getattr(vars(kind)[method], "__doc__", None)
            is_own = inspect.isroutine(getattr(kind, method)) or isinstance(vars(kind)[method], property)
            if told and is_own and not method.startswith("_") and not re.search(rf"\.{method}\b", shown):
                missing.add(f"{name}.{method}")
    assert not missing


def test_examples_are_not_run_for_a_reason() -> None:
    assert set(NOT_RUN) <= set(public())
