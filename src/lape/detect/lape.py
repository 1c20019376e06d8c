"""LAPE, language activation probability entropy (Tang et al., ACL 2024, section 2.2), with the published selection rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from lape.detect.common import found
from lape.detect.detector import Detector
from lape.errors import OptionError
from lape.options import Options, Positive, Rate, Share, keywords_of
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_CHUNK = 2**18
MIN_ROUTED = 200
"""A neuron of an expert that fewer tokens reached in some language is not scored."""


@dataclass(frozen=True)
class LapeOptions(Options):
    """How language neurons are chosen by LAPE (Tang et al. 2024). The defaults are the published thresholds."""

    rate: Rate = 0.01
    """Share of all neurons that is kept, those of lowest entropy."""
    filter: Share = 0.95
    """Percentile of all activation probabilities that a neuron must exceed in some language to be a candidate."""
    bar: Share = 0.95
    """Percentile of all activation probabilities that a kept neuron must exceed in a language to belong to it."""
    per_language: Positive | None = None
    """Instead of a rate: this many neurons of each language, the lowest entropies above its bar."""
    denominator: Literal["tokens", "routed"] = "tokens"
    """Divide by all counted tokens, or by those that reached the neuron's expert."""


@dataclass(frozen=True)
class Selection:
    """What the rule chose from a table of probabilities."""

    entropy: Tensor
    """(neurons,) float64, nats; inf for a neuron that is no candidate."""
    members: list[Tensor]
    """Per language, sorted flat indices."""
    threshold: float
    bar: float
    """The percentile that a member's probability has to exceed."""
    bars: list[float]
    """Per language, what a neuron's probability had to exceed; where `per_language` lowered it, to reach."""


def entropy(probabilities: Tensor) -> Tensor:
    """LAPE of every neuron (Tang et al. 2024, section 2.2): the entropy over languages of its activation probabilities, divided by their sum.

    `probabilities`: (languages, neurons), each from 0 to 1. Gives (neurons,) float64 in nats, from 0 (it fires in one language alone, or never) to
    the natural logarithm of the number of languages (it fires as often in each).

    Example:
        >>> import torch
        >>> from lape.detect.lape import entropy
        >>> entropy(torch.tensor([[0.5, 0.2], [0.0, 0.2]])).tolist()  # two languages; log 2 = 0.693…
        [0.0, 0.693...]
        >>> entropy(stats.probabilities()).shape
        torch.Size([2800])
    """
    result = torch.empty(probabilities.shape[1], dtype=torch.float64)
    for at in range(0, probabilities.shape[1], _CHUNK):
        p = probabilities[:, at : at + _CHUNK].double()
        share = (p / _over_languages(p)).nan_to_num_(0.0)
        result[at : at + _CHUNK] = _over_languages(torch.special.entr(share))
    return result


def _over_languages(values: Tensor) -> Tensor:
    """Sum over the first axis, one row after the other: torch's own sum rounds differently at different columns, and equal
    neurons must have equal entropies.
    """
    total = torch.zeros_like(values[0])
    for row in values:
        total += row
    return total


def percentile(probabilities: Tensor, share: float) -> float:
    """The k-th smallest of all numbers, k = round(share · how many), as published."""
    k = min(max(round(share * probabilities.numel()), 1), probabilities.numel())
    return float(probabilities.flatten().kthvalue(k).values)


def select(probabilities: Tensor, options: LapeOptions, scored: Tensor | None = None) -> Selection:
    """Apply the published rule to (languages, neurons) probabilities.

    One percentile over all probabilities; neurons never strictly above it are no candidates; of the rest, the
    round(rate · neurons) of lowest entropy are kept (equal entropies: the lower flat index first); a kept neuron belongs to
    every language where it is strictly above the bar. `scored` (neurons,) bool leaves neurons out altogether.
    """
    scored = torch.ones(probabilities.shape[1], dtype=torch.bool) if scored is None else scored
    usable = among(scored, probabilities)
    threshold = percentile(usable, options.filter)
    bar = threshold if options.bar == options.filter else percentile(usable, options.bar)
    score = entropy(probabilities)
    candidate = (probabilities > threshold).any(0) & scored
    score[~candidate] = torch.inf
    if options.per_language is not None:
        members, bars = _per_language(probabilities, score, scored, candidate, bar, options.per_language)
        return Selection(score, members, threshold, bar, bars)
    count = min(round(options.rate * probabilities.shape[1]), int(candidate.sum()))
    kept = score.sort(stable=True).indices[:count].sort().values
    members = [kept[row[kept] > bar] for row in probabilities]
    return Selection(score, members, threshold, bar, [bar] * len(probabilities))


def _per_language(
    probabilities: Tensor, score: Tensor, scored: Tensor, candidate: Tensor, bar: float, count: int
) -> tuple[list[Tensor], list[float]]:
    """For each language the `count` lowest entropies above the bar; where fewer are above it, the bar is lowered until there are."""
    plain = entropy(probabilities)
    members, bars = [], []
    for row in probabilities:
        usable = (row > 0) & scored
        above = candidate & (row > bar)
        lowered = bar
        if int(above.sum()) < count:
            size = min(count, int(usable.sum()))
            lowered = float(row[usable].kthvalue(int(usable.sum()) - size + 1).values) if size else bar
            above = usable & (row >= lowered) if size else above
        ranked = torch.where(above, plain, torch.inf).sort(stable=True).indices[: min(count, int(above.sum()))]
        score[ranked] = plain[ranked]
        members.append(ranked.sort().values)
        bars.append(lowered)
    return members, bars


def among(scored: Tensor, probabilities: Tensor) -> Tensor:
    """(languages, neurons) of those that are scored; no copy where all are."""
    return probabilities if bool(scored.all()) else probabilities[:, scored]


def scored_neurons(stats: ActivationStats, folds: Sequence[int] | None = None) -> Tensor:
    """(neurons,) bool: False for neurons of experts that too few tokens reached."""
    fewest = stats.routed(folds).amin(0)
    dense = torch.tensor([stretch.expert is None for stretch in stats.space])
    scored = stats.space.per_neuron((fewest >= MIN_ROUTED) | dense)
    if not bool(scored.any()):
        raise OptionError(
            f"No expert was sent {MIN_ROUTED} tokens in every language (the most: {int(fewest.max())}), so no neuron can be scored. Record more text."
        )
    return scored


@keywords_of(LapeOptions)
def lape(stats: ActivationStats, options: LapeOptions, *, folds: Sequence[int] | None = None) -> LanguageNeurons:
    """LAPE, language activation probability entropy: the neurons of lowest entropy over languages of how often they fire (Tang et al. 2024).

    One percentile over all activation probabilities, `filter`, says which neurons are candidates; of these the `rate` of lowest entropy (natural log,
    nats) is kept, and a kept neuron belongs to every language where its probability is above the percentile `bar`. The defaults are the published
    thresholds. Further: `per_language`, `denominator`, see `LapeOptions`. `folds`: use only these folds of the counts. Reads counts only.

    Gives a set of flat indices for each language, and as `scores` (selected,) float64 the entropies of the neurons in them. Raises OptionError for
    statistics of a single language.

    Example:
        >>> from lape.detect.lape import lape
        >>> neurons = lape(stats, rate=0.005)
        >>> sorted(neurons)
        ['en', 'fr', 'id', 'zh']
        >>> len(lape(stats, per_language=5)["fr"])
        5
    """
    if len(stats.languages) < 2:
        raise OptionError(
            f"Only {', '.join(stats.languages) or 'no language'} was recorded. LAPE compares languages: with one alone every entropy is 0. Record two or more."
        )
    scored = scored_neurons(stats, folds)
    chosen = select(stats.probabilities(options.denominator, folds), options, scored)
    return by_rule(stats, "lape", options, chosen, _notes(options, chosen, stats.languages, scored), folds)


def by_rule(
    stats: ActivationStats,
    method: str,
    options: DataclassInstance,
    chosen: Selection,
    notes: Sequence[str] = (),
    folds: Sequence[int] | None = None,
) -> LanguageNeurons:
    """What `select` chose for the statistics' languages, with the thresholds at which it did."""
    members = dict(zip(stats.languages, chosen.members, strict=True))
    more = {"threshold": chosen.threshold, "bars": dict(zip(stats.languages, chosen.bars, strict=True))}
    return found(stats, method, options, members, scores=chosen.entropy, more=more, notes=notes, folds=folds)


def _notes(options: LapeOptions, chosen: Selection, languages: list[str], scored: Tensor) -> list[str]:
    notes = []
    if not bool(scored.all()):
        notes.append(
            f"{int((~scored).sum()):,} neurons of experts were not scored: fewer than {MIN_ROUTED} tokens reached them in some language."
        )
    if options.per_language is None:
        return notes
    for language, bar, flat in zip(languages, chosen.bars, chosen.members, strict=True):
        if bar < chosen.bar:
            notes.append(
                f"{language}: fewer than {options.per_language} neurons were above the bar, so it was lowered from {chosen.bar:.3f} to {bar:.3f}."
            )
        if len(flat) < options.per_language:
            notes.append(f"{language}: only {len(flat)} neurons fire at all.")
    return notes


LAPE = Detector(
    "lape",
    "The lowest entropies of the activation probabilities over languages, among neurons that fire often in some language.",
    LapeOptions,
    lape,
    published="Tang et al. 2024",
)
