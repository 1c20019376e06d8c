"""Control neurons: the same measurement with others, so that a change can be told from what any neurons would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from lape.errors import OptionError
from lape.values.neurons import NeuronSet

NEAREST = 10
"""A control neuron is drawn among so many that are nearest in energy."""
LIKE = (0.8, 1.25)
"""A control resembles its set where their energies, set ÷ control, have such a ratio: above it the control is weaker, below it stronger."""
LESS_CONTROL = frozenset({"difference", "more", "weaker", "value", "others_value", "over_control", "below_control"})
"""Columns from which a control's figure is taken, in tables that have the column `energy_ratio`."""
LEADING = 0.05
"""Outside the pool `apart`: this share of all neurons in each language, those whose mean activation lies furthest above the other languages'."""
Energy: TypeAlias = Literal["written", "gate"]
"""written: E[(a·u)²]·‖w‖², what a neuron adds to the residual stream; gate: E[a²]·‖w‖², which leaves out the up projection u of a gated MLP. w is the
neuron's column of the down projection, and the mean is over the text of the language.
"""
Pool: TypeAlias = Literal["all", "apart"]
"""all: every neuron that is in no language's set; apart: of those, the ones that are outside `LEADING` in every language too."""


@dataclass(frozen=True)
class Control:
    """A kind of control neurons: as many in every layer as the set has, matched in an energy or not, drawn from a pool.

    Example:
        >>> from lape.measure.controls import MATCHED, RANDOM, Control
        >>> MATCHED.name, RANDOM.name, Control("gate", "apart").name
        ('matched', 'random', 'gate-apart')
    """

    energy: Energy | None = "written"
    """In which energy it is matched; None: in none."""
    pool: Pool = "all"
    """Where it is drawn from."""

    @property
    def name(self) -> str:
        """What tables call it."""
        if self.energy is None:
            return "random"
        own = "matched" if self.energy == "written" else self.energy
        return own if self.pool == "all" else f"{own}-{self.pool}"


RANDOM = Control(None)
MATCHED = Control()
"""The control that a claim has to beat."""
CONTROLS = {
    one.name: one for one in (RANDOM, MATCHED, Control(pool="apart"), Control("gate"), Control("gate", "apart"))
}
"""All kinds by name: random, matched (in written energy), matched-apart, gate, gate-apart."""


def kinds_of(names: Sequence[str]) -> list[Control]:
    """Kinds of control by name. Raises OptionError for another, and for one that is named twice.

    Example:
        >>> from lape.measure.controls import kinds_of
        >>> [one.energy for one in kinds_of(["random", "gate"])]
        [None, 'gate']
    """
    unknown = [name for name in names if name not in CONTROLS]
    if unknown or len(set(names)) < len(names):
        raise OptionError(f"controls are {', '.join(names)}. Expected some of {', '.join(CONTROLS)}, each once.")
    return [CONTROLS[name] for name in names]


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
        if energy is None:
            return random_like(chosen, excluded, generator), ""
        return matched_like(chosen, excluded, energy, generator), ""
    except OptionError as error:
        return None, str(error)


def random_like(chosen: NeuronSet, excluded: NeuronSet, generator: torch.Generator) -> NeuronSet:
    """As many random neurons in each stretch (layer, or expert of a layer) as in `chosen`, none of `chosen` or `excluded`.

    A weak control: most neurons write little. Raises OptionError where a stretch has too few neurons left.

    Example:
        >>> import torch
        >>> from lape.measure.controls import random_like
        >>> others = random_like(neurons["fr"], neurons.union, torch.Generator().manual_seed(0))
        >>> len(others), len(others & neurons.union)
        (8, 0)
    """
    return matched_like(chosen, excluded, torch.ones(len(chosen.space)), generator, nearest=len(chosen.space))


def matched_like(
    chosen: NeuronSet, excluded: NeuronSet, energy: Tensor, generator: torch.Generator, *, nearest: int = NEAREST
) -> NeuronSet:
    """For each neuron of `chosen` one of the `nearest` in energy of its own stretch (layer, or expert of a layer), none of `chosen` or `excluded`, none twice.

    `energy`: (neurons,) float64, not negative, in the ablated language (`Energy`); near is what has a like ratio, to about one per cent. The strongest neuron
    chooses first, since it has fewest like it. A decile will not do instead: energies within the highest one differ by orders of magnitude, and a
    language's neurons are the highest of it. Raises OptionError where a stretch has too few neurons left.

    Example:
        >>> import torch
        >>> from lape.measure.controls import energy_ratio, matched_like
        >>> energy = stats.written_energy("fr")  # times ‖down column‖², which is alike in this small model
        >>> others = matched_like(neurons["fr"], neurons.union, energy, torch.Generator().manual_seed(0))
        >>> len(others), len(others & neurons.union)
        (8, 0)
    """
    space, own = chosen.space, int(torch.randint(2**31, (1,), generator=generator))
    free = torch.ones(len(space), dtype=torch.bool)
    free[excluded.flat] = False
    free[chosen.flat] = False
    drawn = [torch.empty(0, dtype=torch.int64)]
    for k, local in space.split(chosen.flat).items():
        stretch = space.stretches[k]
        part = slice(stretch.start, stretch.stop)
        if int(free[part].sum()) < len(local):
            raise OptionError(
                f"Only {int(free[part].sum())} neurons of a layer are left for a control of {len(local)}. Choose smaller sets."
            )
        drawn.append(
            stretch.start + _near(_level(energy[part]), local, free[part], nearest, stream(own, stretch.start))
        )
    return NeuronSet(space, torch.cat(drawn))


def _level(energy: Tensor) -> Tensor:
    """(neurons,) the logarithm of energies in steps of about one per cent, so that what a number format leaves open does not decide who is near."""
    return (energy.double().clamp_min(torch.finfo(torch.float64).tiny).log() * 100).round()


def _near(level: Tensor, chosen: Tensor, free: Tensor, nearest: int, seed: int) -> Tensor:
    """For each chosen neuron of a stretch, the highest level first, one of the nearest that are still free.

    Each has an order of its own in which it prefers the others, so that a neuron more or less in the set, or in the pool, moves the control of the few that
    it is near to, and leaves the others theirs.
    """
    left, taken = free.clone(), []
    for one in chosen[level[chosen].sort(descending=True, stable=True).indices].tolist():
        pool = torch.nonzero(left)[:, 0]
        near = pool[(level[pool] - level[one]).abs().sort(stable=True).indices[:nearest]]
        order = torch.rand(len(level), generator=torch.Generator().manual_seed(seed + one))
        picked = int(near[order[near].argmin()])
        left[picked] = False
        taken.append(picked)
    return torch.tensor(taken)


def energy_ratio(chosen: NeuronSet, drawn: NeuronSet, energy: Tensor) -> float:
    """The summed energy of a set over that of its control; infinite where the control has none.

    `energy`: (neurons,) float64, as for `matched_like`.

    Example:
        >>> from lape.measure.controls import energy_ratio
        >>> energy_ratio(neurons["fr"], neurons["fr"], stats.written_energy("fr"))
        1.0
    """
    own, other = (float(energy[one.flat].double().sum()) for one in (chosen, drawn))
    return own / other if other > 0 else 1.0 if own == other else float("inf")


def unlike(ratio: float) -> str:
    """Why a control is not as strong as its set, in words; empty where their ratio of energies lies within `LIKE`.

    Example:
        >>> from lape.measure.controls import unlike
        >>> unlike(1.1), unlike(2.0)
        ('', 'the nearest neurons of its layers, without replacement, have less energy')
    """
    if LIKE[0] <= ratio <= LIKE[1]:
        return ""
    return f"the nearest neurons of its layers, without replacement, have {'less' if ratio > 1 else 'more'} energy"
