"""Steering: the edits that make a model write another language (Tang et al. 2024: language neurons off and on)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lape.data.languages import tag
from lape.edit.edit import Add, Edit, Off, Scale, Set, edited
from lape.errors import OptionError
from lape.model.identity import check_made_with
from lape.options import by_name, check_choices, positive
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.same import check_same_model
from lape.values.stats import ActivationStats


@dataclass(frozen=True)
class SteerOptions:
    """How a model is steered to a language by its neurons."""

    how: Literal["off+add", "off+set", "off+scale", "add", "set", "scale", "off"] = "off+add"
    """What is done to the target's neurons, and whether the source's own are switched off."""
    value: Literal["mean", "firing", "difference"] | float = "mean"
    """What is set or added: the target's mean activation, its mean when firing, its mean minus that of the other languages, or a number."""
    strength: float = 1.0
    """The value is multiplied by it; for scale, it is the factor."""
    rise: float = 1.0
    """How many times as strong the last layer is edited as the first; between them it rises evenly."""
    tokens: Literal["both", "prompt", "generated"] = "both"
    """Where the edit acts: positions whose output picks a new token (generated), the rest of the prompt, or both."""
    first: int | None = None
    """Of the generated positions only the first so many, after which the model writes on by itself. Default: all."""
    fade: float = 1.0
    """Each generated position is changed by so much of the change of the one before; 1 is no fading."""
    layers: tuple[int, ...] | None = None
    """Only these layers. Default: all."""

    def __post_init__(self) -> None:
        check_choices(self)
        positive(self, "first")
        if isinstance(self.value, str) and self.value not in ("mean", "firing", "difference"):
            raise OptionError(f"value is {self.value!r}. Expected mean, firing, difference or a number.")


@dataclass(frozen=True)
class BeginningOptions(SteerOptions):
    """Steering where an answer begins, which fades: an answer goes on in the language it began in, and is more fluent for
    being left alone. The numbers were chosen on the development questions of the sample model.
    """

    how: Literal["off+add", "off+set", "off+scale", "add", "set", "scale", "off"] = "off+set"
    """What is done to the target's neurons, and whether the source's own are switched off."""
    strength: float = 2.0
    """The value is multiplied by it; for scale, it is the factor."""
    rise: float = 1.5
    """How many times as strong the last layer is edited as the first; between them it rises evenly."""
    tokens: Literal["both", "prompt", "generated"] = "generated"
    """Where the edit acts: positions whose output picks a new token (generated), the rest of the prompt, or both."""
    first: int | None = 16
    """Of the generated positions only the first so many, after which the model writes on by itself."""
    fade: float = 0.85
    """Each generated position is changed by so much of the change of the one before; 1 is no fading."""


@contextmanager
def steer(
    model: nn.Module,
    neurons: LanguageNeurons,
    stats: ActivationStats,
    options: SteerOptions | None = None,
    *,
    source: str | None = None,
    target: str,
    **changes: Any,
) -> Iterator[nn.Module]:
    """While inside, the model leans towards writing `target` instead of `source`.

    `options`, or its fields as keywords: see `SteerOptions`; `steering` says what is edited. Without a source nothing is
    switched off.
    """
    options = by_name(SteerOptions, {**vars(options or SteerOptions()), **changes})
    check_made_with(model, statistics=stats)
    with steered(model, steering(neurons, stats, options, source=source, target=target), options):
        yield model


def steered(model: nn.Module, edits: Sequence[Edit], where: SteerOptions) -> AbstractContextManager[nn.Module]:
    """`edited` with some edits, at the positions that the options' `tokens`, `first` and `fade` say."""
    return edited(model, edits, tokens=where.tokens, first=where.first, fade=where.fade)


def steering(
    neurons: LanguageNeurons,
    stats: ActivationStats,
    options: SteerOptions | None = None,
    *,
    source: str | None = None,
    target: str,
    **changes: Any,
) -> list[Edit]:
    """The edits of `steer`: source neurons that are not the target's off; a value set on, added to, or a factor at, the target's.

    Raises OptionError for a source that is the target or a set without neurons, TextError for a language that has none here,
    MismatchError for statistics of another model or of some shards only.
    """
    options = by_name(SteerOptions, {**vars(options or SteerOptions()), **changes})
    if source is not None and tag(source) == tag(target):
        raise OptionError(f"Source and target are both {tag(target)}. Name two languages.")
    check_same_model(neurons=neurons, statistics=stats)
    stats.check_whole()
    theirs = None if source is None else _within(neurons[source], options)
    off, _, on = options.how.rpartition("+") if options.how != "off" else ("off", "", "")
    own = _within(neurons[target], options)
    if on and not len(own):
        raise OptionError(
            f"{tag(target)} has no neurons here, so nothing can be switched on. Find more: lape identify RUN --per-language 100 (or a higher --rate)."
        )
    edits: list[Edit] = []
    if off and theirs is not None:
        edits.append(Off(theirs - own))
    elif options.how == "off":
        raise OptionError("how is off, but no source language was given. Name one: source=, or --from.")
    if on:
        edits.append(_switched_on(own, stats, target, on, options))
    return edits


def value_of(stats: ActivationStats, target: str, value: str | float) -> float | Tensor:
    """What is set or added for a language: a number, or (neurons,) float64 from the statistics."""
    if isinstance(value, (int, float)):
        return float(value)
    if value == "firing":
        return stats.firing_mean(target)
    mean = stats.mean(target)
    return mean if value == "mean" else mean - stats.others_mean(target)


def _switched_on(own: NeuronSet, stats: ActivationStats, target: str, how: str, options: SteerOptions) -> Edit:
    if how == "scale":
        return Scale(own, options.strength)
    value = value_of(stats, target, options.value) * _rising(stats, options.rise)
    return Add(own, value, options.strength) if how == "add" else Set(own, value * options.strength)


def _rising(stats: ActivationStats, rise: float) -> Tensor | float:
    """What the strength is multiplied by: 1 in the first layer, `rise` in the last. A number, or (neurons,) float64."""
    if rise == 1:
        return 1.0
    layers = stats.space.layers
    span = max(layers[-1] - layers[0], 1)
    depth = torch.tensor([(stretch.layer - layers[0]) / span for stretch in stats.space], dtype=torch.float64)
    return stats.space.per_neuron(1 + (rise - 1) * depth)


def _within(chosen: NeuronSet, options: SteerOptions) -> NeuronSet:
    return chosen if options.layers is None else chosen.in_layers(options.layers)
