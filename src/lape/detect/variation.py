"""Variation: the neurons whose weights tuning on one language moves, and tuning on the others does not (wording ours).

It stands for the comparison "PV" in Tang et al. 2024, whose exact definition could not be found; this one is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lape.detect.common import languages_of, short
from lape.detect.detector import Detector
from lape.detect.lape import LapeOptions, by_rule, select
from lape.options import Options, keywords_of
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats


@dataclass(frozen=True)
class VariationOptions(Options):
    """How language neurons are chosen by LAPE's rule from how far tuning moved their weights (ours)."""

    rate: float = 0.01
    """Share of all neurons that is kept, those of lowest entropy."""
    filter: float = 0.95
    """Percentile of all relative changes that a neuron must exceed in some language to be a candidate."""
    bar: float = 0.95
    """Percentile of all relative changes that a kept neuron must exceed in a language to belong to it."""
    per_language: int | None = None
    """Instead of a rate: this many neurons of each language, the lowest entropies above its bar."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rule()  # checks them

    def rule(self) -> LapeOptions:
        """The same thresholds, for `lape.detect.lape.select`."""
        return LapeOptions(self.rate, self.filter, self.bar, self.per_language)


@keywords_of(VariationOptions)
def variation(stats: ActivationStats, options: VariationOptions) -> LanguageNeurons:
    """LAPE's rule with δ_k = ‖ΔW‖ / ‖W‖ in the place of the probability: entropy over languages of δ, same filters (ours).

    δ_k is how far tuning on language k moved a neuron's gate row, up row and down column, see `lape.recording.weight_change`; only its shares over
    languages matter to the entropy, so tune on each language with as many steps and tokens. Which seed was used matters too: see
    `lape.measure.seeds.compare_seeds`. Options: `VariationOptions`. Raises OptionError for statistics recorded without `tuned`, or of a single language.

    Example:
        >>> from lape.detect.variation import variation
        >>> len(variation(stats, per_language=5)["fr"])
        5
    """
    languages = languages_of(stats)
    delta = torch.stack([stats.variation(language) for language in languages])
    chosen = select(delta, options.rule())
    notes = [
        f"{language}: fewer than {options.per_language} neurons were above the bar, so it was lowered from {chosen.bar:.3g} to {bar:.3g}."
        for language, bar in zip(languages, chosen.bars, strict=True)
        if bar < chosen.bar
    ]
    if options.per_language is not None:
        members = dict(zip(languages, chosen.members, strict=True))
        notes += short(members, options.per_language, "were moved at all")
    return by_rule(stats, "variation", options, chosen, notes)


VARIATION = Detector(
    "variation",
    "LAPE's rule applied to how far tuning on a language moved a neuron's weights.",
    VariationOptions,
    variation,
    published="compared in Tang et al. 2024 as PV, definition ours",
    needs=("variation",),
)
