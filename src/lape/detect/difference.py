"""The neurons most active in a language above what they are in the others (ours; see docs/studies)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lape.detect.common import each, found, languages_of
from lape.detect.contrasts import BY_FOLDS, Of, above_others
from lape.detect.detector import Detector
from lape.detect.lape import scored_neurons
from lape.errors import OptionError
from lape.options import Options, Positive, keywords_of
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats


@dataclass(frozen=True)
class DifferenceOptions(Options):
    """How language neurons are chosen by what they do in a language above the others."""

    per_language: Positive = 100
    """Neurons of each language: those whose activity lies furthest above the other languages'."""
    of: Of = "activation"
    """What is compared: the mean activation; the activation probability; the length of what is written in the mean; d′; the log-odds of
    firing over their standard error; the distribution, as the area under the ROC curve.
    """
    against: Literal["mean", "largest"] = "mean"
    """What is taken off: the mean over the other languages, or the largest of them."""


@keywords_of(DifferenceOptions)
def difference(
    stats: ActivationStats, options: DifferenceOptions, *, folds: Sequence[int] | None = None
) -> LanguageNeurons:
    """For language k the `per_language` neurons whose activity lies furthest above that in the other languages, where it lies above (ours).

    Languages are compared two at a time as `lape.detect.contrasts` says; a neuron's score is the mean over the other languages or, with
    `against="largest"`, that against the nearest of them. For `activation`, the default, this is the mean activation minus the mean of the others'
    mean activations, or minus the largest. It looks at how much a neuron does, which an entropy does not. Sums are kept once, so what is made
    of them has no halves and no stability; `probability` and `log-odds` have both. Neurons of experts that few tokens reached are left out.
    `written` needs statistics recorded with `also="columns"`, `distribution` with `histogram`. Raises OptionError for statistics without what is
    compared, or of a single language.

    Example:
        >>> from lape.detect.difference import difference
        >>> len(difference(stats, per_language=5, of="probability")["fr"])
        5
    """
    if folds is not None and options.of not in BY_FOLDS:
        raise OptionError(
            f"Sums and histograms are not kept fold by fold, so the difference of {options.of} cannot use some of the folds alone. Leave folds out, or take "
            f"{' or '.join(sorted(BY_FOLDS))}."
        )
    languages_of(stats)  # refuses one language
    gaps = above_others(stats, options.of, options.against, folds)
    scored = scored_neurons(stats, folds)
    chosen = each(stats, gaps.__getitem__, options.per_language, above=0.0, among=scored)
    return found(stats, "difference", options, chosen, folds=folds)


DIFFERENCE = Detector(
    "difference",
    "The neurons whose activity in a language lies furthest above that in the others.",
    DifferenceOptions,
    difference,
    needs=("sum",),
)
