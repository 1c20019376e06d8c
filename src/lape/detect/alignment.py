"""Language neurons by entropy and probability together, as released by Zhang et al. 2025 (arXiv 2505.21505, "Language neurons alignment")."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lape.detect.common import found, languages_of
from lape.detect.detector import Detector
from lape.detect.lape import LapeOptions, among, entropy, percentile, scored_neurons
from lape.errors import OptionError
from lape.options import keywords_of
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

HIGHEST, STEP = 0.2, 1e-3
"""The search for λ: up to which, and how narrow what is left has to be."""


@dataclass(frozen=True)
class AlignmentOptions(LapeOptions):
    """How neurons are chosen by entropy and probability together (Zhang et al. 2025). The defaults are the published ones."""

    filter: float = 0.0
    """Percentile of all activation probabilities that a neuron must exceed in some language to be a candidate; 0: every neuron is one."""
    weight: float | Literal["auto"] = "auto"
    """λ, the weight of the largest probability; auto: the largest up to 0.2 at which no kept neuron belongs to every language, by bisection."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.filter < 1:
            raise OptionError(f"filter is {self.filter}. Expected 0 for no filter, or a share such as 0.95.")
        if not _weighs(self.weight):
            raise OptionError(f"weight is {self.weight!r}. Expected auto, or a number from 0 such as 0.1.")


@keywords_of(AlignmentOptions)
def alignment(
    stats: ActivationStats, options: AlignmentOptions, *, folds: Sequence[int] | None = None
) -> LanguageNeurons:
    """The neurons of lowest H / ln K − λ · max_k p_k / (H_K / K): entropy alone overlooks how often a neuron fires (Zhang et al. 2025, arXiv 2505.21505).

    p_k is the share of language k's tokens on which a neuron fires, H the entropy in nats of the p_k divided by their sum, K the number of languages and
    H_K = 1 + 1/2 + … + 1/K. Both terms are as in the released code; the paper writes them without their divisors. The round(rate · neurons) lowest
    scores are kept, of all neurons (no filter; equal scores: the lower flat index first), and a kept neuron belongs to every language where p_k is
    strictly above the percentile `bar` of all probabilities. A neuron that never fires has the score 1. A kept neuron may be above the bar nowhere, and
    is then in no set: `options["kept_by_languages"]` counts the kept neurons that belong to 0, 1, …, K languages, and a note says how many are in none.

    `weight`: λ. "auto" searches as the released code does: bisection of [0, 0.2] down to 0.001, going up wherever no kept neuron belongs to every
    language. Where 0.2 would do, that ends one step below it, at 0.1992; where no λ that was tried does, λ is 0 and a note says so.
    `options["λ"]` is the weight that was used. `filter`, `per_language` and `denominator` are ours, as in LAPE; of a filter, candidates alone are kept.

    `scores` are (selected,) float64, without a unit. Reads counts only. Raises OptionError for statistics of a single language.

    Example:
        >>> from lape.detect.alignment import alignment
        >>> chosen = alignment(stats, weight=0.109375)
        >>> chosen.options["λ"], chosen.options["kept_by_languages"]  # 4 in none, 24 in one
        (0.109375, [4, 24, 0, 0, 0])
        >>> alignment(stats).options["λ"]
        0.199...
    """
    languages = languages_of(stats)
    p = stats.probabilities(options.denominator, folds)
    scored = scored_neurons(stats, folds)
    usable = among(scored, p)
    candidate = (p > percentile(usable, options.filter)).any(0) & scored if options.filter else scored
    above = p > percentile(usable, options.bar)
    level, top = _terms(p)
    level[~candidate] = torch.inf
    count = min(round(options.rate * p.shape[1]), int(candidate.sum()))
    weight, notes = options.weight, []
    if weight == "auto":
        general = above.all(0)
        best = bisected(lambda tried: not bool(general[_lowest(level - tried * top, count)].any()))
        if best is None:
            notes.append("At every weight tried some kept neuron belongs to every language, so λ is 0.")
        weight = best or 0.0
    score = level - weight * top
    more: dict[str, float | list[int]] = {"λ": weight}
    if options.per_language is None:
        kept = _lowest(score, count)
        chosen = {language: kept[row[kept]] for language, row in zip(languages, above, strict=True)}
        by_languages = torch.bincount(above[:, kept].sum(0), minlength=len(languages) + 1).tolist()
        more["kept_by_languages"] = by_languages
        if by_languages[0]:
            notes.append(
                f"{by_languages[0]:,} of {count:,} kept neurons are above the bar in no language, and in no set."
            )
    else:
        chosen = {}
        for language, row in zip(languages, above & candidate, strict=True):
            own = torch.where(row, score, torch.inf)
            chosen[language] = _lowest(own, min(options.per_language, int(row.sum())))
    return found(stats, "alignment", options, chosen, scores=score, more=more, notes=notes, folds=folds)


def _weighs(weight: object) -> bool:
    return weight == "auto" or (isinstance(weight, (int, float)) and 0 <= weight < math.inf)


def _terms(p: Tensor) -> tuple[Tensor, Tensor]:
    """(languages, neurons) -> H / ln K and max p / (H_K / K) of each neuron, (neurons,) float64. One that never fires has the highest H."""
    languages = len(p)
    harmonic = sum(1 / k for k in range(1, languages + 1))
    top = p.amax(0)
    level = entropy(p) / math.log(languages)
    return level.masked_fill_(top == 0, 1.0), top / (harmonic / languages)


def bisected(passes: Callable[[float], bool]) -> float | None:
    """The last weight that passes on the way of the released search through [0, 0.2]; None where none does that was tried.

    Whether a weight passes need not change only once, so this is the largest that passes only where it does.
    """
    low, high = 0.0, HIGHEST
    best = next((end for end in (high, low) if passes(end)), None)
    while high - low > STEP:
        middle = (low + high) / 2
        if passes(middle):
            best = low = middle
        else:
            high = middle
    return best


def _lowest(score: Tensor, count: int) -> Tensor:
    """Sorted flat indices of the `count` lowest scores, the lower index first where they are equal. Quicker than sorting all."""
    if not count:
        return torch.empty(0, dtype=torch.int64)
    limit = score.kthvalue(count).values
    below = torch.nonzero(score < limit)[:, 0]
    level = torch.nonzero(score == limit)[: count - len(below), 0]
    return torch.cat([below, level]).sort().values


ALIGNMENT = Detector(
    "alignment",
    "The lowest normalised entropies, from which λ times the normalised largest activation probability is subtracted.",
    AlignmentOptions,
    alignment,
    published="Zhang et al. 2025, arXiv 2505.21505",
)
