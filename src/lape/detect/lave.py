"""LAVE: the entropy of how strongly neurons are active, not of how often (a comparison in Tang et al. 2024; wording ours)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lape.detect.common import languages_of
from lape.detect.detector import Detector
from lape.detect.lape import LapeOptions, by_rule, scored_neurons, select
from lape.errors import OptionError
from lape.options import keywords_of
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats


@keywords_of(LapeOptions)
def lave(stats: ActivationStats, options: LapeOptions, *, folds: Sequence[int] | None = None) -> LanguageNeurons:
    """LAVE: LAPE's rule with v_k = E_k[max(a, 0)] in the place of the probability: entropy over languages of v, same filters.

    Means themselves can be negative and have no entropy, hence their positive part. The percentiles are taken over all v, so that layers with large
    activations give most candidates. Options: `lape.detect.lape.LapeOptions`. Sums are kept once, so it has no halves and no stability, and `folds`
    are refused. Compared in Tang et al. 2024; the definition is ours. Raises OptionError for statistics without sums, or of a single language.

    Example:
        >>> from lape.detect.lave import lave
        >>> len(lave(stats, per_language=5)["fr"])
        5
    """
    if folds is not None:
        raise OptionError(
            "Sums are not kept fold by fold, so the lave method cannot use some of the folds alone. Leave folds out."
        )
    languages = languages_of(stats)
    strength = torch.stack([stats.positive_mean(language, options.denominator) for language in languages])
    chosen = select(strength, options, scored_neurons(stats))
    return by_rule(stats, "lave", options, chosen)


LAVE = Detector(
    "lave",
    "LAPE's rule applied to how strongly neurons are active instead of how often they fire.",
    LapeOptions,
    lave,
    published="compared in Tang et al. 2024, definition ours",
    needs=("positive",),
)
