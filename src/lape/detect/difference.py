"""The neurons whose mean activation in a language lies furthest above its mean in the others (ours; see docs/studies)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from lape.errors import OptionError
from lape.neurons import LanguageNeurons, NeuronSet
from lape.options import DifferenceOptions, given
from lape.stats import ActivationStats


def difference(
    stats: ActivationStats,
    options: DifferenceOptions | None = None,
    *,
    folds: Sequence[int] | None = None,
    **changes: Any,
) -> LanguageNeurons:
    """For language k the N neurons of largest E_k[a] minus the mean of E_j[a] over the other languages j.

    It looks at how strongly a neuron fires, which an entropy of probabilities does not: such sets steer better and lie above
    LAPE on the frontier of own against others. Sums are kept once, so it has no halves and no stability.
    """
    options = given(DifferenceOptions, options, changes)
    if folds is not None:
        raise OptionError("Sums are not kept by folds, so the difference method cannot choose from some of them.")
    sets = {}
    for language in stats.languages:
        gap = stats.mean(language) - stats.others_mean(language)
        count = min(options.per_language, int((gap > 0).sum()))
        sets[language] = NeuronSet(stats.space, gap.topk(count).indices)
    return LanguageNeurons(
        space=stats.space,
        sets=sets,
        method="difference",
        options=dataclasses.asdict(options),
        manifest=stats.manifest,
        fingerprints=torch.unique(torch.cat([stats[language].fingerprints for language in stats.languages])),
    )
