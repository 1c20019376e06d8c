"""Random neurons of each language (a comparison in Tang et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lape.detect.common import found, languages_of
from lape.detect.detector import Detector
from lape.options import Options, Positive, keywords_of
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats


@dataclass(frozen=True)
class RandomOptions(Options):
    """How random neurons are drawn."""

    per_language: Positive = 100
    """Neurons of each language."""
    seed: int = 0
    """Seed of the draw."""


@keywords_of(RandomOptions)
def random(stats: ActivationStats, options: RandomOptions, *, folds: Sequence[int] | None = None) -> LanguageNeurons:
    """A control: `per_language` neurons of each language, drawn from all neurons alike by a `seed` (compared in Tang et al. 2024).

    `folds` changes nothing: no statistic is read. The larger draw of a seed holds the smaller, so that sizes can be compared. Raises OptionError for
    statistics of a single language.

    Example:
        >>> from lape.detect.random import random
        >>> few, many = random(stats, per_language=5, seed=1), random(stats, per_language=9, seed=1)
        >>> len(few["fr"] & many["fr"])
        5
    """
    del folds
    generator = torch.Generator().manual_seed(options.seed)
    drawn = {
        language: torch.randperm(len(stats.space), generator=generator)[: options.per_language]
        for language in languages_of(stats)
    }
    return found(stats, "random", options, drawn)


RANDOM = Detector(
    "random",
    "Neurons drawn at random by a seed: a control.",
    RandomOptions,
    random,
    published="compared in Tang et al. 2024",
)
