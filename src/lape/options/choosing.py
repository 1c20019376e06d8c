"""Options of the ways of choosing language neurons."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from lape.errors import OptionError
from lape.options.base import check_choices, positive, shares


@dataclass(frozen=True)
class LapeOptions:
    """How language neurons are chosen by LAPE (Tang et al. 2024). The defaults are the published thresholds."""

    rate: float = 0.01
    """Share of all neurons that is kept, those of lowest entropy."""
    filter: float = 0.95
    """Percentile of all activation probabilities that a neuron must exceed in some language to be a candidate."""
    bar: float = 0.95
    """Percentile of all activation probabilities that a kept neuron must exceed in a language to belong to it."""
    per_language: int | None = None
    """Instead of a rate: this many neurons of each language, the lowest entropies above its bar."""
    denominator: Literal["tokens", "routed"] = "tokens"
    """Divide by all counted tokens, or by those that reached the neuron's expert."""

    def __post_init__(self) -> None:
        shares(self, rate=0.01, filter=0.95, bar=0.95)
        check_choices(self)
        positive(self, "per_language")


@dataclass(frozen=True)
class LapOptions:
    """How the neurons that fire most often are chosen."""

    per_language: int = 100
    """Neurons of each language."""
    denominator: Literal["tokens", "routed"] = "tokens"
    """Divide by all counted tokens, or by those that reached the neuron's expert."""

    def __post_init__(self) -> None:
        check_choices(self)
        positive(self, "per_language")


@dataclass(frozen=True)
class RandomOptions:
    """How random neurons are drawn."""

    per_language: int = 100
    """Neurons of each language."""
    seed: int = 0
    """Seed of the draw."""

    def __post_init__(self) -> None:
        positive(self, "per_language")


@dataclass(frozen=True)
class AlignmentOptions(LapeOptions):
    """How neurons are chosen by entropy and probability together (Zhang et al. 2025)."""

    weight: float | None = None
    """λ, the weight of the largest probability. Default: the largest that keeps no neuron of every language."""


@dataclass(frozen=True)
class VariationOptions:
    """How language neurons are chosen by LAPE's rule from how far tuning moved their weights (ours)."""

    rate: float = 0.01
    """Share of all neurons that is kept, those of lowest entropy."""
    filter: float = 0.95
    """Percentile of all relative changes that a neuron must exceed in some language to be a candidate."""
    bar: float = 0.95
    """Percentile of all relative changes that a kept neuron must exceed in a language to belong to it."""
    per_language: int | None = None
    """Instead of a rate: this many neurons of each language, the lowest entropies above its bar."""

    def __post_init__(self) -> None:
        self.rule()  # checks them

    def rule(self) -> LapeOptions:
        """The same thresholds, for `lape.detect.lape.select`."""
        return LapeOptions(self.rate, self.filter, self.bar, self.per_language)


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


@dataclass(frozen=True)
class ApOptions:
    """How neurons are chosen by the average precision of their answer to single texts (Kojima et al. 2024)."""

    per_language: int = 100
    """Neurons of each language."""
    side: Literal["both", "top", "bottom"] = "both"
    """Those of largest average precision, of smallest, or half of each; of an odd number one more of the largest."""

    def __post_init__(self) -> None:
        check_choices(self)
        positive(self, "per_language")


@dataclass(frozen=True)
class Probability90Options:
    """How neurons are chosen by how often they exceed a high percentile of their own activation (Mondal et al. 2025)."""

    per_language: int = 100
    """Neurons of each language."""
    percentile: float = 0.9
    """The share of all tokens, each language weighing the same, on which a neuron does not exceed its threshold."""

    def __post_init__(self) -> None:
        shares(self, percentile=0.9)
        positive(self, "per_language")


@dataclass(frozen=True)
class AttributionOptions:
    """How language neurons are chosen by what the loss owes them."""

    per_language: int = 100
    """Neurons of each language."""
    by: Literal["own", "difference", "share", "product", "entropy"] = "product"
    """The score: the attribution, its difference from the others' mean, its share over languages, attribution · share², or LAPE
    among the neurons whose attribution matters.
    """
    matters: float = 0.05
    """For entropy: this share of all neurons, those of largest attribution, matters."""

    def __post_init__(self) -> None:
        check_choices(self)
        positive(self, "per_language")
        if not 0 < self.matters <= 1:
            raise OptionError(f"matters is {self.matters}. Expected a share between 0 and 1, such as 0.05.")


@dataclass(frozen=True)
class ChoosingOptions:
    """The options of all ways of choosing, as the command line takes them; each way knows some of them."""

    rate: float | None = None
    """lape, lave, alignment, variation: share of all neurons that is kept. Default: 0.01, as published."""
    filter: float | None = None
    """The same: percentile of all values that a neuron must exceed in some language. Default: 0.95, as published."""
    bar: float | None = None
    """The same: percentile that a kept neuron must exceed in a language to belong to it. Default: 0.95, as published."""
    per_language: int | None = None
    """This many neurons of each language; for lape, lave, alignment and variation instead of a rate. Default of the others: 100."""
    denominator: Literal["tokens", "routed"] | None = None
    """lape, lave, lap, alignment: divide by all counted tokens, or by those that reached the neuron's expert."""
    weight: float | None = None
    """alignment: λ, the weight of the largest probability. Default: the largest that keeps no neuron of every language."""
    of: Literal["activation", "probability"] | None = None
    """difference: compare the mean activation (default), or the activation probability."""
    against: Literal["mean", "largest"] | None = None
    """difference: take off the mean over the other languages (default), or the largest of them."""
    by: Literal["own", "difference", "share", "product", "entropy"] | None = None
    """attribution: the score."""
    matters: float | None = None
    """attribution by entropy: this share of all neurons matters. Default: 0.05."""
    side: Literal["both", "top", "bottom"] | None = None
    """ap: those of largest average precision, of smallest, or half of each (default)."""
    percentile: float | None = None
    """probability90: share of all tokens on which a neuron does not exceed its threshold. Default: 0.9."""
    seed: int | None = None
    """random: seed of the draw."""

    def __post_init__(self) -> None:
        shares(self, rate=0.01, filter=0.95, bar=0.95, percentile=0.9)
        positive(self, "per_language")

    def chosen(self) -> dict[str, Any]:
        """Those that were given."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}
