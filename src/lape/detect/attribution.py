"""The neurons of largest first-order attribution for a language's loss (ours, after CRANE's criticism that firing often is not mattering, arXiv 2601.04664)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lape.detect.common import found, languages_of, largest, over_others, short
from lape.detect.detector import Detector
from lape.detect.lape import entropy
from lape.errors import OptionError
from lape.options import Options, Positive, UpToOne, keywords_of
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats


@dataclass(frozen=True)
class AttributionOptions(Options):
    """How language neurons are chosen by their first-order attribution, activation × gradient of the loss."""

    per_language: Positive = 100
    """Neurons of each language."""
    by: Literal["own", "difference", "share", "product", "entropy"] = "product"
    """The score: the attribution, its difference from the others' mean, its share over languages, attribution · share², or LAPE
    among the neurons whose attribution matters.
    """
    matters: UpToOne = 0.05
    """For entropy: the share of all neurons, those of largest attribution, that it chooses among."""


@keywords_of(AttributionOptions)
def attribution(
    stats: ActivationStats, options: AttributionOptions, *, folds: Sequence[int] | None = None
) -> LanguageNeurons:
    """For language k the `per_language` neurons of largest score, from A_k = E_k[−a · ∂NLL/∂a], gradient × activation: the first-order damage, in
    nats per token, of zeroing a neuron (ours, after CRANE, arXiv 2601.04664).

    `by`: own, A_k itself; difference, A_k minus the others' mean; share, A_k⁺ / Σ_j A_j⁺; product, A_k⁺ · share². entropy: the
    lowest LAPE among the `matters` share of neurons of largest A_k. Attributions are not kept by folds, so `folds` are refused. Raises OptionError for
    statistics recorded without `attribution`, or of a single language.

    Example:
        >>> from lape.detect.attribution import attribution
        >>> len(attribution(stats, per_language=3, by="own")["fr"])
        3
    """
    if folds is not None:
        raise OptionError(
            "Attributions are not kept fold by fold, so the attribution method cannot use some of the folds alone. Leave folds out."
        )
    languages = languages_of(stats)
    owed = torch.stack([stats.attribution(language) for language in languages])
    scores, above = _scores(stats, options, owed)
    chosen = {
        language: largest(score, options.per_language, over)
        for language, score, over in zip(languages, scores, above, strict=True)
    }
    notes = short(chosen, options.per_language, "have a score above 0")
    return found(stats, "attribution", options, chosen, notes=notes)


def _scores(stats: ActivationStats, options: AttributionOptions, owed: Tensor) -> tuple[Tensor, Tensor]:
    """(languages, neurons) scores, and which can be chosen."""
    if options.by == "own":
        return owed, owed > 0
    if options.by == "difference":
        gap = over_others(owed, "mean")
        return gap, (gap > 0) & (owed > 0)
    if options.by == "entropy":
        mattering = torch.zeros_like(owed, dtype=torch.bool)
        for row, owes in zip(mattering, owed, strict=True):
            row[largest(owes, round(options.matters * len(owes)))] = True
        p = stats.probabilities()
        # Languages in which a neuron fires less than on average are not the ones it is specific to.
        return -entropy(p).expand_as(owed), mattering & (owed > 0) & (p > p.mean(0))
    positive = owed.clamp_min(0)
    share = (positive / positive.sum(0)).nan_to_num(0.0)
    return (share if options.by == "share" else positive * share.square()), positive > 0


ATTRIBUTION = Detector(
    "attribution",
    "The neurons to which a language's loss is attributed most (activation × gradient).",
    AttributionOptions,
    attribution,
    needs=("attribution", "attributed"),
)
