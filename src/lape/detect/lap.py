"""LAP: the neurons that fire most often in a language, entropy left out (a comparison in Tang et al. 2024; wording ours)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lape.detect.common import each, found, languages_of, short
from lape.detect.detector import Detector
from lape.detect.lape import scored_neurons
from lape.options import Options, Positive, keywords_of
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats


@dataclass(frozen=True)
class LapOptions(Options):
    """How the neurons that fire most often are chosen."""

    per_language: Positive = 100
    """Neurons of each language."""
    denominator: Literal["tokens", "routed"] = "tokens"
    """Divide by all counted tokens, or by those that reached the neuron's expert."""


@keywords_of(LapOptions)
def lap(stats: ActivationStats, options: LapOptions, *, folds: Sequence[int] | None = None) -> LanguageNeurons:
    """LAP: for language k the `per_language` neurons of highest activation probability p_k, of those that enough tokens reached.

    What every language needs fires often in all of them, so these sets are expected to be anything but specific. Compared in Tang et al. 2024; the
    definition is ours. `denominator`: see `LapOptions`; `folds`: use only these folds of the counts. Reads counts only. Raises OptionError for
    statistics of a single language.

    Example:
        >>> from lape.detect.lap import lap
        >>> len(lap(stats, per_language=5)["fr"])
        5
    """
    p = dict(zip(languages_of(stats), stats.probabilities(options.denominator, folds), strict=True))
    scored = scored_neurons(stats, folds)
    chosen = each(stats, p.__getitem__, options.per_language, above=0.0, among=scored)
    return found(stats, "lap", options, chosen, notes=short(chosen, options.per_language, "fire at all"))


LAP = Detector(
    "lap",
    "The neurons that fire most often in a language.",
    LapOptions,
    lap,
    published="compared in Tang et al. 2024, definition ours",
)
