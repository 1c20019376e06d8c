"""Steering: the edits that make a model write another language (Tang et al. 2024: language neurons off and on)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from lape.data.languages import tag
from lape.edit.edit import Add, At, Edit, Off, Scale, Set, edited
from lape.edit.positions import Tokens
from lape.errors import OptionError
from lape.model.identity import check_made_with
from lape.options import Options, Positive, keywords_of
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.profile import Profile
from lape.values.same import check_same_model
from lape.values.space import NeuronSpace
from lape.values.stats import ActivationStats

How: TypeAlias = Literal["off+set", "off+add", "off+scale", "set", "add", "scale", "off"]
Value: TypeAlias = Literal["mean", "firing", "difference"] | float
Where: TypeAlias = Tokens
Point: TypeAlias = At


@dataclass(frozen=True)
class SteerOptions(Options):
    """How a model is steered to a language by its neurons. The defaults act where an answer begins, and fade: an answer goes on in the language
    it began in, and is more fluent for being left alone. They were chosen on the development questions of the sample model.
    """

    how: How = "off+set"
    """What is done to the target's neurons, and whether the source's own are switched off."""
    value: Value = "mean"
    """What is set or added: the target's mean activation, its mean when firing, its mean minus that of the other languages, or a number."""
    strength: float = 2.0
    """The value is multiplied by it; for scale, it is the factor."""
    rise: float = 1.5
    """How many times as strong the edit is in the last layer as in the first; between them it rises evenly."""
    tokens: Where = "generated"
    """Where the edit acts: positions whose output picks a new token (generated), the rest of the prompt, or both."""
    first: Positive | None = 16
    """Of the generated positions only the first N, after which the model writes on by itself; None: all."""
    fade: float = 0.85
    """The change at each generated position, as a share of that at the one before; 1 is no fading."""
    layers: tuple[int, ...] | None = None
    """Only these layers. Default: all."""
    at: Point = "activation"
    """Where `how` adds: to the activation, or to what goes into the activation function, which an adapter can do as well (gate)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.at == "gate" and not self.how.endswith("add"):
            raise OptionError(
                f"how is {self.how}, and at is gate. Only what is added can be added at the gate: give how='add' or 'off+add'."
            )


PUBLISHED = SteerOptions(how="off+add", strength=1.0, rise=1.0, tokens="both", first=None, fade=1.0)
"""The edit of Tang et al. (2024): the source's neurons off and the target's mean activation added, at every position of every layer."""
SHIPPED = SteerOptions(how="add", strength=1.0, rise=1.0, tokens="both", first=None, fade=1.0, at="gate")
"""What `lape.export` writes as an adapter of rank one: the target's neurons raised at the gate, at every position but the first."""


@dataclass(frozen=True, kw_only=True)
class SteerArguments(SteerOptions):
    """What `steer` takes besides a model and neurons."""

    to: str
    """The language that the model leans to."""
    source: str | None = None
    """The language whose neurons are switched off."""
    stats: ActivationStats | None = None
    """Where the values come from. Default: what the neurons carry of the statistics they were found in, which gives the same edit bit for bit."""
    isolated: bool = False
    """As in `edited`."""


@keywords_of(SteerArguments)
def steer(model: nn.Module, neurons: LanguageNeurons, options: SteerArguments) -> AbstractContextManager[nn.Module]:
    """Activation steering by language neurons: inside the `with`, the model leans towards writing `to`, and on leaving it is what it was.

    By default the neurons of `to` are set to twice their mean activation in it, rising to three times in the last layer, at the first 16
    generated positions and fading; those of `source`, where one is named, are off (zero ablation).

    The keywords are the fields of `SteerArguments`. The edit works in `generate` as `edited` does.

    Raises OptionError for a language without neurons, a source that is `to`, or neurons that carry no profile, where `stats` are needed;
    TextError for a language that was not identified or recorded; MismatchError for neurons or statistics of another model.

    Example:
        >>> inputs = tokenizer("en02 en03", return_tensors="pt")
        >>> with lape.steer(model, neurons, to="fr", source="en", strength=3.0):
        ...     answer = model.generate(**inputs, max_new_tokens=4)
        >>> answer.shape[0]
        1
    """
    if options.stats is not None:
        check_made_with(model, statistics=options.stats)
    edits = steering(neurons, options.stats, options, to=options.to, source=options.source)
    return steered(model, edits, options, isolated=options.isolated)


def steered(
    model: nn.Module, edits: Sequence[Edit], where: SteerOptions, *, isolated: bool = False
) -> AbstractContextManager[nn.Module]:
    """`edited` with some edits, at the positions that the options' `tokens`, `first` and `fade` say. Raises as `edited` does.

    Example:
        >>> from lape.edit.steer import SteerOptions, steered, steering
        >>> options = SteerOptions(strength=5.0)
        >>> inputs = tokenizer("en02 en03", return_tensors="pt")
        >>> with steered(model, steering(neurons, stats, options, to="fr", source="en"), options):
        ...     answer = model.generate(**inputs, max_new_tokens=3, do_sample=False)
        >>> tokenizer.decode(answer[0, 3:])
        'fr00 fr01 fr01'
    """
    return edited(model, edits, tokens=where.tokens, first=where.first, fade=where.fade, isolated=isolated)


def steering(
    neurons: LanguageNeurons,
    stats: ActivationStats | None,
    options: SteerOptions,
    *,
    to: str,
    source: str | None = None,
) -> list[Edit]:
    """The edits of `steer`: source neurons that are not the target's off; a value set on, added to, or a factor at, the target's.

    Raises OptionError for a source that is the target or a set without neurons, TextError for a language that has none here,
    MismatchError for statistics of another model or of some shards only. `stats`: where the values come from; None: what the neurons carry.

    Example:
        >>> from lape.edit.steer import SteerOptions, steering
        >>> steering(neurons, None, SteerOptions(how="off+scale", strength=2.0), to="fr", source="en")
        [Off(...), Scale(...)]
    """
    if source is not None and tag(source) == tag(to):
        raise OptionError(f"Source and target are both {tag(to)}. Name two languages.")
    if stats is not None:
        check_same_model(neurons=neurons, statistics=stats)
        stats.check_whole()
    theirs = None if source is None else _within(neurons[source], options)
    off, _, on = options.how.rpartition("+") if options.how != "off" else ("off", "", "")
    own = _within(neurons[to], options)
    if on and not len(own):
        raise OptionError(
            f"{tag(to)} has no neurons here, so nothing can be switched on; find some with lape.identify(stats, per_language=100), on the "
            "command line with lape identify RUN --per-language 100."
        )
    edits: list[Edit] = []
    if off and theirs is not None:
        edits.append(Off(theirs - own))
    elif options.how == "off":
        raise OptionError("how is off, but no source language was given. Name the language to switch off: source='en'.")
    if on:
        edits.append(_switched_on(own, neurons, stats, to, on, options))
    return edits


def value_of(known: ActivationStats | Profile, language: str, value: str) -> Tensor:
    """(neurons,) float64: what is set or added for a language, from statistics or from what neurons carry of them."""
    if value == "firing":
        return known.firing_mean(language)
    mean = known.mean(language)
    return mean if value == "mean" else mean - known.others_mean(language)


def _switched_on(
    own: NeuronSet, neurons: LanguageNeurons, stats: ActivationStats | None, to: str, how: str, options: SteerOptions
) -> Edit:
    if how == "scale":
        return Scale(own, options.strength)
    value = _value(neurons, stats, to, options.value) * _rising(neurons.space, options.rise)
    return Add(own, value, options.strength, options.at) if how == "add" else Set(own, value * options.strength)


def _value(neurons: LanguageNeurons, stats: ActivationStats | None, to: str, value: str | float) -> Tensor | float:
    if isinstance(value, (int, float)):
        return float(value)
    return value_of(_profile(neurons) if stats is None else stats, to, value)


def _profile(neurons: LanguageNeurons) -> Profile:
    """What neurons carry of their statistics. Raises OptionError where that is nothing."""
    if neurons.profile is None or not neurons.profile.languages:
        raise OptionError(
            "These neurons carry no activations: their sets were given by hand, read from a published .pth or saved by an older version. "
            'Give the statistics of the model as well: lape.steer(model, neurons, stats=stats, to="fr").'
        )
    return neurons.profile


def _rising(space: NeuronSpace, rise: float) -> Tensor | float:
    """What the strength is multiplied by: 1 in the first layer, `rise` in the last. A number, or (neurons,) float64."""
    if rise == 1:
        return 1.0
    span = max(space.layers[-1] - space.layers[0], 1)
    depth = torch.tensor([(stretch.layer - space.layers[0]) / span for stretch in space], dtype=torch.float64)
    return space.per_neuron(1 + (rise - 1) * depth)


def _within(chosen: NeuronSet, options: SteerOptions) -> NeuronSet:
    return chosen if options.layers is None else chosen.in_layers(options.layers)
