"""Entropy minus λ times the largest probability (Zhang et al. 2025, arXiv 2505.21505)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lape.detect.common import found, languages_of
from lape.detect.lape import entropy, percentile, scored_neurons
from lape.neurons import LanguageNeurons
from lape.options import AlignmentOptions, given
from lape.stats import ActivationStats

_STEPS = 30
_LARGEST = 2.0**20


def alignment(
    stats: ActivationStats,
    options: AlignmentOptions | None = None,
    *,
    folds: Sequence[int] | None = None,
    **changes: Any,
) -> LanguageNeurons:
    """The neurons of lowest H − λ · max_k p_k: entropy alone overlooks how often a neuron fires.

    Candidates and membership are LAPE's (some probability strictly above the 95th percentile of all). Without a given `weight`, λ
    is the largest at which none of the kept neurons belongs to every language, found by doubling and bisection; where even
    λ = 0 keeps such a neuron, it is 0 and a note says so. Reads counts only.
    """
    options = given(AlignmentOptions, options, changes)
    languages = languages_of(stats)
    p = stats.probabilities(options.denominator, folds)
    scored = scored_neurons(stats, folds)
    usable = p if scored is None else p[:, scored]
    above = p > percentile(usable, options.bar)
    candidate = (p > percentile(usable, options.filter)).any(0)
    if scored is not None:
        candidate &= scored
    where = torch.nonzero(candidate)[:, 0]
    plain, top, every = entropy(p[:, where]), p[:, where].amax(0), above[:, where].all(0)
    count = min(round(options.rate * p.shape[1]), len(where))
    weight, notes = options.weight, []
    if weight is None:
        weight = _largest_weight(plain, top, every, count)
        if count and bool(every[_lowest(plain - weight * top, count)].any()):
            notes.append("Even without any weight some kept neuron belongs to every language, so λ is 0.")
    score = plain - weight * top
    if options.per_language is None:
        kept = where[_lowest(score, count)]
        chosen = {language: kept[row[kept]] for language, row in zip(languages, above, strict=True)}
    else:
        chosen = {}
        for language, row in zip(languages, above[:, where], strict=True):
            own = torch.where(row, score, torch.inf)
            chosen[language] = where[_lowest(own, min(options.per_language, int(row.sum())))]
    full = torch.full((p.shape[1],), torch.inf, dtype=torch.float64).index_put_((where,), score)
    return found(stats, "alignment", options, chosen, scores=full, more={"λ": weight}, notes=notes)


def _lowest(score: Tensor, count: int) -> Tensor:
    return score.sort(stable=True).indices[:count]


def _largest_weight(plain: Tensor, top: Tensor, every: Tensor, count: int) -> float:
    """The largest λ at which none of the `count` lowest scores is a neuron of every language."""

    def specific(weight: float) -> bool:
        return not bool(every[_lowest(plain - weight * top, count)].any())

    if not specific(0.0):
        return 0.0
    high = 2.0**-10
    while high < _LARGEST and specific(high):
        high *= 2
    if high >= _LARGEST:
        return high
    low = high / 2 if specific(high / 2) else 0.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if specific(middle) else (low, middle)
    return low
