"""Control neurons: the same measurement with others, so that a change can be told from what any neurons would do."""

from __future__ import annotations

import torch
from torch import Tensor

from lape.errors import OptionError
from lape.values.neurons import NeuronSet

DECILES = 10


def random_like(chosen: NeuronSet, excluded: NeuronSet, generator: torch.Generator) -> NeuronSet:
    """Control (a): as many random neurons in each stretch as in `chosen`, none of `excluded`."""
    return matched_like(chosen, excluded, None, generator)


def matched_like(
    chosen: NeuronSet, excluded: NeuronSet, energy: Tensor | None, generator: torch.Generator
) -> NeuronSet:
    """Control (b): as many neurons in each stretch and in each decile of its neurons' energy as in `chosen`.

    `energy` (neurons,): E[a²]·‖down column‖² in the ablated language. Where a decile has too few free neurons, the
    nearest deciles give the rest. Raises OptionError where a stretch has too few neurons left.
    """
    space = chosen.space
    free = torch.ones(len(space), dtype=torch.bool)
    free[excluded.flat] = False
    free[chosen.flat] = False
    drawn = []
    for k, local in space.split(chosen.flat).items():
        stretch = space.stretches[k]
        part = slice(stretch.start, stretch.stop)
        decile = torch.zeros(stretch.width, dtype=torch.int64) if energy is None else deciles(energy[part])
        drawn.append(stretch.start + _draw(decile, local, free[part], generator))
    return NeuronSet(space, torch.cat([torch.empty(0, dtype=torch.int64), *drawn]))


def deciles(energy: Tensor) -> Tensor:
    """The decile (0 to 9) of each neuron's energy within its stretch."""
    rank = energy.argsort(stable=True).argsort(stable=True)
    return rank * DECILES // len(energy)


def _draw(decile: Tensor, chosen: Tensor, free: Tensor, generator: torch.Generator) -> Tensor:
    left = free.clone()
    result = []
    for wanted, count in zip(*torch.unique(decile[chosen], return_counts=True), strict=True):
        pool = torch.nonzero(left)[:, 0]
        if len(pool) < int(count):
            raise OptionError(
                f"Only {len(pool)} neurons of a layer are left for a control of {len(chosen)}. Choose smaller sets."
            )
        distance = (decile[pool] - wanted).abs()
        shuffled = torch.randperm(len(pool), generator=generator)
        nearest = shuffled[distance[shuffled].argsort(stable=True)][: int(count)]
        result.append(pool[nearest])
        left[pool[nearest]] = False
    return torch.cat(result)
