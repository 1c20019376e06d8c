"""Entropy minus λ times the largest probability (Zhang et al. 2025, arXiv 2505.21505)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lape.detect.common import found, languages_of
from lape.detect.detector import Detector
from lape.detect.lape import LapeOptions, among, entropy, percentile, scored_neurons
from lape.options import given
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

_HALVINGS = 40
_LARGEST = 2.0**20


@dataclass(frozen=True)
class AlignmentOptions(LapeOptions):
    """How neurons are chosen by entropy and probability together (Zhang et al. 2025)."""

    weight: float | None = None
    """λ, the weight of the largest probability. Default: the largest that keeps no neuron of every language."""


def alignment(
    stats: ActivationStats,
    *,
    rate: float = 0.01,
    filter: float = 0.95,
    bar: float = 0.95,
    per_language: int | None = None,
    denominator: Literal["tokens", "routed"] = "tokens",
    weight: float | None = None,
    folds: Sequence[int] | None = None,
) -> LanguageNeurons:
    """The neurons of lowest H − λ · max_k p_k: entropy alone overlooks how often a neuron fires (ours, after Zhang et al. 2025, arXiv 2505.21505,
    who have no filter of candidates).

    Candidates and membership are LAPE's (some probability strictly above the 95th percentile of all), as are the options but `weight`: λ. Without it
    λ is the largest, up to 2²⁰, at which none of the neurons kept by `rate` belongs to every language; where every λ keeps such a
    neuron, it is 0 and a note says so. Scores are (neurons,) float64, in nats. Reads counts only. Raises OptionError for statistics of a single language.

    Example:
        >>> from lape.detect.alignment import alignment
        >>> alignment(stats, weight=0.5).options["λ"]
        0.5
    """
    options = given(AlignmentOptions, locals())
    languages = languages_of(stats)
    p = stats.probabilities(options.denominator, folds)
    scored = scored_neurons(stats, folds)
    usable = among(scored, p)
    above = p > percentile(usable, options.bar)
    candidate = (p > percentile(usable, options.filter)).any(0) & scored
    where = torch.nonzero(candidate)[:, 0]
    plain, top, every = entropy(p[:, where]), p[:, where].amax(0), above[:, where].all(0)
    count = min(round(options.rate * p.shape[1]), len(where))
    weight, notes = options.weight, []
    if weight is None:
        largest = largest_weight(plain, top, every, count)
        if largest is None:
            notes.append("At every weight some kept neuron belongs to every language, so λ is 0.")
        weight = largest or 0.0
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
    return found(stats, "alignment", options, chosen, scores=full, more={"λ": weight}, notes=notes, folds=folds)


def _lowest(score: Tensor, count: int) -> Tensor:
    return score.sort(stable=True).indices[:count]


def largest_weight(plain: Tensor, top: Tensor, every: Tensor, count: int) -> float | None:
    """The largest λ from 0 to 2²⁰ at which none of the `count` lowest of plain − λ · top is a neuron of every language.

    (neurons,) each, float64 and bool. None where there is no such λ. How many neurons of every language are kept neither rises
    nor falls with λ throughout, so bisection would miss some; but where a neuron is ahead of them all is one interval, and
    λ is the upper end of the last stretch that `count` of these intervals cover.
    """

    def specific(weight: float) -> bool:
        return not bool(every[_lowest(plain - weight * top, count)].any())

    if specific(_LARGEST):
        return _LARGEST
    low, high = _ahead(plain, top, every)
    ends = torch.unique(torch.cat([low, high]))
    covered = torch.searchsorted(low, ends) - torch.searchsorted(high, ends)  # just below each end
    for k in torch.nonzero((covered >= count) & (ends > 0)).flip(0)[:, 0].tolist():
        upper, lower = float(ends[k]), float(ends[k - 1])
        for part in (0.0, *(2.0**-power for power in range(_HALVINGS, 0, -1))):  # at the end itself scores are equal
            if specific(upper - part * (upper - lower)):
                return upper - part * (upper - lower)
    return 0.0 if specific(0.0) else None


def _ahead(plain: Tensor, top: Tensor, every: Tensor) -> tuple[Tensor, Tensor]:
    """Both ends, each sorted, of the open intervals of λ on which a neuron has a lower score than all neurons of every language."""
    others = torch.nonzero(~every)[:, 0]
    low, high = torch.zeros_like(plain[others]), torch.full_like(plain[others], _LARGEST)
    for one in _frontier(plain, top, every).tolist():
        steeper, behind = top[others] - top[one], plain[others] - plain[one]
        crossing = behind / steeper
        low = torch.where(steeper > 0, low.maximum(crossing), low)
        high = torch.where(steeper < 0, high.minimum(crossing), high)
        never = (steeper == 0) & ((behind > 0) | ((behind == 0) & (others > one)))
        high = high.masked_fill(never, 0.0)
    some = low < high
    return low[some].sort().values, high[some].sort().values


def _frontier(plain: Tensor, top: Tensor, every: Tensor) -> Tensor:
    """The neurons of every language of which one has the least score at each λ: few, those on the lower hull of (top, plain)."""
    where = torch.nonzero(every)[:, 0]
    where = where[plain[where].sort(stable=True).indices]
    where = where[top[where].sort(stable=True, descending=True).indices]
    if len(where):
        before = plain[where].cummin(0).values.roll(1)
        before[0] = torch.inf
        where = where[plain[where] < before].flip(0)
    hull: list[tuple[float, float, int]] = []
    for point in zip(top[where].tolist(), plain[where].tolist(), where.tolist(), strict=True):
        while len(hull) > 1 and _turn(hull[-2], hull[-1], point) <= 0:
            hull.pop()
        hull.append(point)
    return torch.tensor([index for _, _, index in hull], dtype=torch.int64)


def _turn(a: tuple[float, float, int], b: tuple[float, float, int], c: tuple[float, float, int]) -> float:
    """Above 0 where a → b → c turns left."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


ALIGNMENT = Detector(
    "alignment",
    "The lowest entropies, from which λ times the largest activation probability is subtracted.",
    AlignmentOptions,
    alignment,
    published="Zhang et al. 2025, arXiv 2505.21505",
)
