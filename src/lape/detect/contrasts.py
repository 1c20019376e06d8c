"""By how much a neuron's activity in a language lies above that in the others: means, effect sizes, log-odds, distributions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from lape.detect.common import over_others
from lape.values.stats import ActivationStats

Of: TypeAlias = Literal["activation", "probability", "written", "d-prime", "log-odds", "distribution"]
"""What is compared: a key of `LEVELS` or of `PAIRS`."""
Folds: TypeAlias = Sequence[int] | None
Pair: TypeAlias = Callable[[str, str], Tensor]
"""Two languages -> (neurons,) float64: by how much the first lies above the second."""
PRIOR = 0.1
"""Tokens that are added to each language in the log-odds, as a share of its own: they fire as often as those of all languages do in the mean."""
FEWEST = 1e-6
"""The smallest share of tokens on which a neuron is taken to fire, or not to, so that one that never does has log-odds."""
BY_FOLDS: frozenset[Of] = frozenset({"probability", "log-odds"})
"""What is made of counts, which are kept by folds."""


def above_others(
    stats: ActivationStats, of: Of, against: Literal["mean", "largest"], folds: Folds = None
) -> dict[str, Tensor]:
    """Language -> (neurons,) float64: by how much it lies above the others in the mean, or above the nearest of them.

    Raises OptionError where what is compared was not recorded.

    Example:
        >>> from lape.detect.contrasts import above_others
        >>> gaps = above_others(stats, "d-prime", "largest")
        >>> int(gaps["fr"].argmax()) in neurons["fr"]
        True
    """
    languages = stats.languages
    if of in LEVELS:
        return dict(zip(languages, over_others(LEVELS[of](stats, folds), against), strict=True))
    pair = PAIRS[of](stats, folds)
    return {one: _over(pair, one, [other for other in languages if other != one], against) for one in languages}


def _over(pair: Pair, language: str, others: Sequence[str], against: Literal["mean", "largest"]) -> Tensor:
    total = pair(language, others[0])
    for other in others[1:]:
        gap = pair(language, other)
        total = total + gap if against == "mean" else torch.minimum(total, gap)
    return total / len(others) if against == "mean" else total


# What has a level in each language


def _activation(stats: ActivationStats, _folds: Folds) -> Tensor:
    return torch.stack([stats.mean(language) for language in stats.languages])


def _probability(stats: ActivationStats, folds: Folds) -> Tensor:
    return stats.probabilities("tokens", folds)


def _written(stats: ActivationStats, _folds: Folds) -> Tensor:
    """The length of what a neuron adds to the residual stream in the mean, whichever way along its column."""
    return torch.stack([stats.written_mean(language).abs() for language in stats.languages]) * stats.columns()


LEVELS: Mapping[str, Callable[[ActivationStats, Folds], Tensor]] = {
    "activation": _activation,
    "probability": _probability,
    "written": _written,
}
"""Name -> statistics and the folds of them to (languages, neurons) float64."""


# What two languages are compared by


def _d_prime(stats: ActivationStats, _folds: Folds) -> Pair:
    """d′ (Green and Swets 1966): the difference of means over the root mean square of the two standard deviations.

    Each variance is raised by the square of its layer's median standard deviation, else a neuron that hardly moves at all would be the first for a
    difference that is hardly there.
    """
    means = {language: stats.mean(language) for language in stats.languages}
    variances = {k: (stats.energy(k) - means[k].square()).clamp_min_(0) for k in stats.languages}
    every = torch.stack([*variances.values()])
    least = stats.space.per_neuron(torch.stack([every[:, part.start : part.stop].median() for part in stats.space]))

    def pair(one: str, other: str) -> Tensor:
        return (means[one] - means[other]) / ((variances[one] + variances[other]) / 2 + least).sqrt()

    return pair


def _log_odds(stats: ActivationStats, folds: Folds) -> Pair:
    """The difference of the log-odds of firing over its standard error, with an informative prior (Monroe, Colaresi and Quinn 2008, section 3.5).

    Tokens take the place of words, firing that of one word. Without a prior, a neuron that never fires in the other languages would come last, since
    the error of a count of 0 is the largest.
    """
    tokens = {k: stats[k].tokens[slice(None) if folds is None else torch.tensor(folds)].sum() for k in stats.languages}
    fires = dict(zip(stats.languages, stats.probabilities("tokens", folds), strict=True))
    usual = torch.stack([*fires.values()]).mean(0).clamp(FEWEST, 1 - FEWEST)
    logits, variances = {}, {}
    for language, share in fires.items():
        yes = (share + PRIOR * usual) * tokens[language]
        no = (1 - share + PRIOR * (1 - usual)) * tokens[language]
        logits[language], variances[language] = yes.log() - no.log(), 1 / yes + 1 / no
    return lambda one, other: (logits[one] - logits[other]) / (variances[one] + variances[other]).sqrt()


def _distribution(stats: ActivationStats, _folds: Folds) -> Pair:
    """How likely an activation of the first is to be above one of the second, less a half: the area under the ROC curve (McGraw and Wong 1992).

    Read off histograms; of two activations in one bin each is as likely the larger.
    """

    def pair(one: str, other: str) -> Tensor:
        theirs = shares(stats, other)
        return (shares(stats, one) * (theirs.cumsum(1) - theirs / 2)).sum(1) - 0.5

    return pair


PAIRS: Mapping[str, Callable[[ActivationStats, Folds], Pair]] = {
    "d-prime": _d_prime,
    "log-odds": _log_odds,
    "distribution": _distribution,
}
"""Name -> statistics and the folds of them to a function of two languages."""


def shares(stats: ActivationStats, language: str) -> Tensor:
    """(neurons, bins) float64: the share of a language's tokens in each bin, of those that reached the neuron."""
    counts = stats[language].extra("histogram").double()
    return counts / counts.sum(1, keepdim=True).clamp_min_(1)
