"""After Act-Prob-90p of Mondal et al. 2025 (arXiv 2503.17456): how often a neuron exceeds the 90th percentile of its own activation over all languages."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lape.detect.common import each, found, languages_of, short
from lape.detect.contrasts import shares
from lape.detect.detector import Detector
from lape.detect.lape import scored_neurons
from lape.options import Options, Positive, Share, keywords_of
from lape.values.histogram import ZERO
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats


@dataclass(frozen=True)
class Probability90Options(Options):
    """How neurons are chosen by how often they exceed a high percentile of their own activation (after Mondal et al. 2025)."""

    per_language: Positive = 100
    """Neurons of each language."""
    percentile: Share = 0.9
    """The share of all tokens, each language weighing the same, on which a neuron does not exceed its threshold."""


@keywords_of(Probability90Options)
def probability90(stats: ActivationStats, options: Probability90Options) -> LanguageNeurons:
    """For language k the `per_language` neurons that exceed their threshold on the largest share of k's tokens (after Mondal et al. 2025, arXiv 2503.17456).

    This is not what Mondal et al. released. Their code takes the 90th percentile within the *same* language, so that by construction every neuron exceeds
    its threshold on about .10 of the tokens of every language: that rule is degenerate, it cannot rank neurons by language. Ours pools:
    one threshold for each neuron, the `percentile` of its activation over the tokens of all languages, each language weighing the same, so
    that the shares differ between languages. It is read off a histogram (`lape.values.histogram`): see `exceeding` for what is exact. Raises
    OptionError for statistics recorded without `histogram`, or of a single language.

    Example:
        >>> from lape.detect.probability90 import probability90
        >>> len(probability90(stats, per_language=5)["fr"])
        5
    """
    languages_of(stats)  # refuses one language before the histogram is read
    bins, part = threshold(stats, options.percentile)

    def share(language: str) -> Tensor:
        return exceeding(shares(stats, language), bins, part)

    chosen = each(stats, share, options.per_language, above=0.0, among=scored_neurons(stats))
    notes = short(chosen, options.per_language, "ever exceed their threshold")
    return found(stats, "probability90", options, chosen, notes=notes)


def threshold(stats: ActivationStats, percentile: float) -> tuple[Tensor, Tensor]:
    """Where each neuron's percentile lies: the bin, (neurons,) int64, and the part of that bin's tokens above it, (neurons,) float64.

    Languages weigh the same. A percentile in the bin that ends in 0 is 0: a neuron that rarely fires has most tokens there.
    """
    languages = stats.languages
    pooled = shares(stats, languages[0])
    for language in languages[1:]:
        pooled += shares(stats, language)
    pooled /= len(languages)
    beyond = pooled.flip(1).cumsum(1).flip(1) - pooled  # share above each bin's upper edge
    bins = (beyond > 1 - percentile).sum(1).clamp_max_(pooled.shape[1] - 1)
    inside = pooled.gather(1, bins[:, None])[:, 0]
    missing = 1 - percentile - beyond.gather(1, bins[:, None])[:, 0]
    part = (missing / inside).nan_to_num_(0.0, 0.0, 0.0).clamp_(0, 1)
    return bins, part.masked_fill_(bins == ZERO, 0.0)


def exceeding(share: Tensor, bins: Tensor, part: Tensor) -> Tensor:
    """(neurons, bins) shares of one language -> (neurons,) float64: the share of its tokens above each neuron's threshold.

    Exact for the bins above the threshold's. The tokens of its own bin are taken to lie alike in every language, `part` of them
    above it: the error is at most the language's share in that bin, and none where the threshold is 0.
    """
    own = share.gather(1, bins[:, None])[:, 0]
    above = torch.where(torch.arange(share.shape[1]) > bins[:, None], share, 0.0).sum(1)
    return above + part * own


PROBABILITY90 = Detector(
    "probability90",
    "The neurons that most often exceed, in a language, a high percentile of their own activation over all languages.",
    Probability90Options,
    probability90,
    published="after Mondal et al. 2025, arXiv 2503.17456, whose released code takes the percentile within the same language, where every share is about .10; "
    "ours is over all languages",
    needs=("histogram",),
)
