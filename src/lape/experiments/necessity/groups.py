"""The neurons that are switched off together: drawn from every layer and level of energy, so that they stand for all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lape.errors import OptionError
from lape.values.neurons import NeuronSet
from lape.values.space import NeuronSpace

DECILES = 10


@dataclass(frozen=True)
class Group:
    """Neurons that are switched off together, all of one stretch."""

    neurons: NeuronSet
    stretch: int
    decile: int | None
    """Of energy within the stretch; None for the language's own neurons."""
    among: str
    """`sample`, spread over all neurons, or `own`, from the language's set."""


def deciles(energy: Tensor) -> Tensor:
    """The decile (0 to 9) of each neuron's energy within its stretch."""
    rank = energy.argsort(stable=True).argsort(stable=True)
    return rank * DECILES // len(energy)


def strata(space: NeuronSpace, energy: Tensor) -> dict[tuple[int, int], Tensor]:
    """(stretch, decile of energy within it) -> flat indices; `energy` (neurons,)."""
    result = {}
    for k, stretch in enumerate(space):
        decile = deciles(energy[stretch.start : stretch.stop])
        for wanted in range(DECILES):
            result[k, wanted] = stretch.start + torch.nonzero(decile == wanted)[:, 0]
    return result


def sample(space: NeuronSpace, energy: Tensor, count: int, size: int, generator: torch.Generator) -> list[Group]:
    """`count` groups of `size` neurons, no neuron in two, as evenly over layers and deciles of energy as can be."""
    dealt = []
    for (k, decile), flat in strata(space, energy).items():
        for turn, part in enumerate(_chunks(flat, size, generator)):
            dealt.append((turn, Group(NeuronSet(space, part), k, decile, "sample")))
    order = torch.randperm(len(dealt), generator=generator).tolist()
    taken = sorted((dealt[k] for k in order), key=lambda one: one[0])[:count]  # stable: within a turn at random
    if len(taken) < count:
        raise OptionError(
            f"Only {len(taken)} groups of {size} neurons fit into the layers and deciles of {space}. Ask for fewer or smaller ones."
        )
    return [group for _, group in taken]


def own_groups(neurons: NeuronSet, count: int, size: int, generator: torch.Generator) -> list[Group]:
    """At most `count` groups of `size` neurons of a language's set, each of one stretch."""
    space = neurons.space
    parts = [
        Group(NeuronSet(space, part), k, None, "own")
        for k, local in space.split(neurons.flat).items()
        for part in _chunks(local + space.stretches[k].start, size, generator)
    ]
    return [parts[k] for k in torch.randperm(len(parts), generator=generator)[:count].tolist()]


def _chunks(flat: Tensor, size: int, generator: torch.Generator) -> list[Tensor]:
    shuffled = flat[torch.randperm(len(flat), generator=generator)]
    return [shuffled[at : at + size] for at in range(0, len(flat) - size + 1, size)]
