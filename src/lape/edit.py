"""Edits: changes of activations while a model runs. `with edited(model, edits):` is the only way to change a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from lape.errors import MismatchError, OptionError
from lape.languages import tag
from lape.neurons import LanguageNeurons, NeuronSet
from lape.sites import change, find, forget_compiled
from lape.space import NeuronSpace
from lape.stats import ActivationStats


@dataclass(frozen=True, eq=False)
class Off:
    """Activation 0: the neuron adds nothing."""

    neurons: NeuronSet


@dataclass(frozen=True, eq=False)
class Set:
    """Activation `value`: one number, or (all neurons of the model,) of which the set's own are taken."""

    neurons: NeuronSet
    value: float | Tensor


@dataclass(frozen=True, eq=False)
class Add:
    """Activation + `strength` · `value`; `value` as in `Set`."""

    neurons: NeuronSet
    value: float | Tensor
    strength: float = 1.0


@dataclass(frozen=True, eq=False)
class Scale:
    """Activation · `factor`."""

    neurons: NeuronSet
    factor: float


Edit: TypeAlias = Off | Set | Add | Scale
_Step: TypeAlias = Callable[[Tensor], None]


@contextmanager
def edited(model: nn.Module, edits: Edit | Sequence[Edit]) -> Iterator[nn.Module]:
    """While inside, the model runs with the edits, applied in order; on leaving, exceptions included, it is what it was.

    Nests, and works in `generate` with cache and padding, over `device_map`, and with 4- or 8-bit weights. Where torch has
    compiled anything, its compiled code is dropped on entering and leaving, since it would ignore the change.

    Raises MismatchError for neurons of another model, OptionError for a value that does not fit.
    """
    todo = list(edits) if isinstance(edits, Iterable) else [edits]
    found = find(model)
    for one in todo:
        check(one, found.space)
    handles = []
    try:
        for position, site in enumerate(found.sites):
            alter = _alteration(todo, found.space, position)
            if alter is not None:
                handles += change(model, site, alter)
        forget_compiled()
        yield model
    finally:
        for handle in handles:
            handle.remove()
        forget_compiled()


def check(edit: Edit, space: NeuronSpace) -> None:
    """Refuse an edit that does not fit a model's neurons."""
    if not isinstance(edit, (Off, Set, Add, Scale)):
        raise OptionError(f"{edit!r:.80} is no edit. Expected Off, Set, Add or Scale.")
    if edit.neurons.space != space:
        raise MismatchError(f"The neurons belong to a model with {edit.neurons.space}, but this one has {space}.")
    amount = edit.factor if isinstance(edit, Scale) else edit.strength if isinstance(edit, Add) else 1.0
    if not math.isfinite(amount):
        raise OptionError(f"{amount} is not a finite number. Expected a factor or strength such as 0.5.")
    if isinstance(edit, (Set, Add)):
        value = torch.as_tensor(edit.value)
        if value.dim() and value.shape != (len(space),):
            raise OptionError(
                f"The value has shape {tuple(value.shape)}. Expected one number, or ({len(space)},): one for each neuron of the model."
            )
        chosen = value[edit.neurons.flat] if value.dim() else value
        if not bool(torch.isfinite(chosen).all()):
            raise OptionError("The value is not finite for some of the neurons.")


def _alteration(edits: Sequence[Edit], space: NeuronSpace, position: int) -> Callable[[Tensor], Tensor] | None:
    """What one site's activations go through, or None where no neuron of it is touched."""
    steps = [step for one in edits if (step := _step(one, space, position)) is not None]
    if not steps:
        return None

    def alter(activation: Tensor) -> Tensor:
        out = activation.clone()
        for step in steps:
            step(out)
        return out

    return alter


def _step(edit: Edit, space: NeuronSpace, position: int) -> _Step | None:
    stretch = space.stretches[position]
    flat = edit.neurons.flat
    flat = flat[(flat >= stretch.start) & (flat < stretch.stop)]
    if not len(flat):
        return None
    index = _Resident(flat - stretch.start)
    if isinstance(edit, Off):
        return lambda a: _put(a, index, torch.zeros((), dtype=a.dtype, device=a.device))
    if isinstance(edit, Scale):
        factor = edit.factor
        return lambda a: _put(a, index, a[..., index.on(a.device)] * factor)
    full = torch.as_tensor(edit.value, dtype=torch.float64)
    value = _Resident(full[flat] if full.dim() else full)
    if isinstance(edit, Set):
        return lambda a: _put(a, index, value.on(a.device, a.dtype))
    amount = _Resident(value.tensor * edit.strength)
    return lambda a: _put(a, index, a[..., index.on(a.device)] + amount.on(a.device, a.dtype))


def _put(activation: Tensor, index: _Resident, value: Tensor) -> None:
    activation[..., index.on(activation.device)] = value


class _Resident:
    """A small tensor, kept on each device where it was needed."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self._copies: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def on(self, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
        key = (device, dtype or self.tensor.dtype)
        if key not in self._copies:
            self._copies[key] = self.tensor.to(*key)
        return self._copies[key]


def steering(
    neurons: LanguageNeurons,
    stats: ActivationStats,
    *,
    source: str | None,
    target: str,
    how: Literal["add", "set"] = "add",
    strength: float = 1.0,
) -> list[Edit]:
    """The edits that steer from a source language to a target: source neurons that are not the target's off, and the
    target's mean activation in its own language added to (or set on) the target's neurons.
    """
    if how not in ("add", "set"):
        raise OptionError(f"how is {how!r}. Expected add or set.")
    own, mean = neurons[target], stats.mean(target)
    if not len(own):
        raise OptionError(
            f"{tag(target)} has no neurons here, so nothing can be switched on. Identify with a higher --rate or --per-language."
        )
    on: Edit = Add(own, mean, strength) if how == "add" else Set(own, mean * strength)
    return [on] if source is None else [Off(neurons[source] - own), on]


@contextmanager
def steer(
    model: nn.Module,
    neurons: LanguageNeurons,
    stats: ActivationStats,
    *,
    source: str | None = None,
    target: str,
    how: Literal["add", "set"] = "add",
    strength: float = 1.0,
) -> Iterator[nn.Module]:
    """While inside, the model leans towards writing `target`: see `steering` for what is edited."""
    with edited(model, steering(neurons, stats, source=source, target=target, how=how, strength=strength)):
        yield model
