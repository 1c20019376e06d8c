"""Control neurons: the same measurement with others, so that a change can be told from what any neurons would do."""

from __future__ import annotations

import torch
from torch import Tensor

from lape.errors import OptionError
from lape.values.neurons import NeuronSet

DECILES = 10


def stream(seed: int, number: int) -> int:
    """The seed of one of many streams of random numbers, so that what one of them draws does not move the others."""
    return seed * 1_000_003 + number


def seeded(seed: int, number: int, draw: int | None = None) -> torch.Generator:
    """The random numbers of the language of a number, or of one of its draws."""
    return torch.Generator().manual_seed(stream(seed, number if draw is None else number * 1009 + draw))


def control(
    chosen: NeuronSet, excluded: NeuronSet, energy: Tensor | None, generator: torch.Generator
) -> tuple[NeuronSet | None, str]:
    """A control of a set, `matched_like` or without energies `random_like`; None, and why, where too few other neurons are left.

    Example:
        >>> import torch
        >>> from lape.measure.controls import control
        >>> others, why = control(neurons["fr"], neurons.union, None, torch.Generator().manual_seed(0))
        >>> len(others) == len(neurons["fr"]), why
        (True, '')
    """
    try:
        return matched_like(chosen, excluded, energy, generator), ""
    except OptionError as error:
        return None, str(error)


def random_like(chosen: NeuronSet, excluded: NeuronSet, generator: torch.Generator) -> NeuronSet:
    """Control (a): as many random neurons in each stretch (layer, or expert of a layer) as in `chosen`, none of `chosen` or `excluded`.

    Raises OptionError where a stretch has too few neurons left.

    Example:
        >>> import torch
        >>> from lape.measure.controls import random_like
        >>> others = random_like(neurons["fr"], neurons.union, torch.Generator().manual_seed(0))
        >>> len(others), len(others & neurons.union)
        (8, 0)
    """
    return matched_like(chosen, excluded, None, generator)


def matched_like(
    chosen: NeuronSet, excluded: NeuronSet, energy: Tensor | None, generator: torch.Generator
) -> NeuronSet:
    """Control (b): as many random neurons in each stretch and in each decile of its neurons' energy as in `chosen`, none of `chosen` or `excluded`.

    `energy` (neurons,): E[a²]·‖down column‖² in the ablated language; None: `random_like`. Where a decile has too few free neurons, the
    nearest deciles give the rest. Raises OptionError where a stretch has too few neurons left.

    Example:
        >>> import torch
        >>> from lape.measure.controls import matched_like
        >>> energy = stats.written_energy("fr")
        >>> others = matched_like(neurons["fr"], neurons.union, energy, torch.Generator().manual_seed(0))
        >>> len(others), len(others & neurons.union)
        (8, 0)
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
