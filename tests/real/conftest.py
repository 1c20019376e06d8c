"""What the tests on the real model share: it is loaded, recorded and identified once."""

from __future__ import annotations

from typing import Any

import pytest

import lape
from lape import samples
from lape.neurons import LanguageNeurons
from lape.stats import ActivationStats


@pytest.fixture(scope="session")
def loaded() -> tuple[Any, Any]:
    return lape.load("sample")


@pytest.fixture(scope="session")
def stats(loaded: tuple[Any, Any]) -> ActivationStats:
    return lape.record(*loaded, samples.texts("record"), row_tokens=256, residual=True)


@pytest.fixture(scope="session")
def neurons(stats: ActivationStats) -> LanguageNeurons:
    return lape.identify(stats)
