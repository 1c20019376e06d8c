"""The neurons most active in a language above what they are in the others (ours; see docs/studies)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lape.detect.common import each, found, languages_of, over_others
from lape.detect.detector import Detector
from lape.detect.lape import scored_neurons
from lape.errors import OptionError
from lape.options import check_choices, given, positive
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats


@dataclass(frozen=True)
class DifferenceOptions:
    """How language neurons are chosen by what they do in a language above the others."""

    per_language: int = 100
    """Neurons of each language: those whose activity lies furthest above the other languages'."""
    of: Literal["activation", "probability"] = "activation"
    """What is compared: the mean activation, or the activation probability."""
    against: Literal["mean", "largest"] = "mean"
    """What is taken off: the mean over the other languages, or the largest of them."""

    def __post_init__(self) -> None:
        check_choices(self)
        positive(self, "per_language")


def difference(
    stats: ActivationStats,
    *,
    per_language: int = 100,
    of: Literal["activation", "probability"] = "activation",
    against: Literal["mean", "largest"] = "mean",
    folds: Sequence[int] | None = None,
) -> LanguageNeurons:
    """For language k the `per_language` neurons of largest x_k minus the mean of x_j over the other languages j, where it is above 0 (ours).

    x is the mean activation, or (`of="probability"`) the activation probability; with `against="largest"` the largest x_j is taken
    off instead of the mean. It looks at how much a neuron does, which an entropy does not. Sums are kept once, so mean
    activations have no halves and no stability; probabilities have both. Neurons of experts that few tokens reached are left out. Raises OptionError
    for statistics without sums, or of a single language.

    Example:
        >>> from lape.detect.difference import difference
        >>> len(difference(stats, per_language=5, of="probability")["fr"])
        5
    """
    options = given(DifferenceOptions, locals())
    if folds is not None and options.of != "probability":
        raise OptionError(
            "Sums are not kept fold by fold, so the difference method cannot use some of the folds alone. Leave folds out."
        )
    languages = languages_of(stats)
    gaps = dict(zip(languages, over_others(_values(stats, options.of, folds), options.against), strict=True))
    scored = scored_neurons(stats, folds)
    chosen = each(stats, gaps.__getitem__, options.per_language, above=0.0, among=scored)
    return found(stats, "difference", options, chosen, folds=folds)


def _values(stats: ActivationStats, of: str, folds: Sequence[int] | None) -> Tensor:
    if of == "probability":
        return stats.probabilities("tokens", folds)
    return torch.stack([stats.mean(language) for language in stats.languages])


DIFFERENCE = Detector(
    "difference",
    "The neurons whose activity in a language lies furthest above that in the others.",
    DifferenceOptions,
    difference,
    needs=("sum",),
)
