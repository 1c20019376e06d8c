"""The sets that are switched off: random groups over all layers, and random subsets of a language's own set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lape.errors import OptionError
from lape.values.neurons import NeuronSet
from lape.values.space import NeuronSpace


@dataclass(frozen=True)
class Group:
    """Neurons that are switched off together, of any layers."""

    neurons: NeuronSet
    among: str
    """`sample`, of all neurons of the model, or `own`, of the language's set."""

    @property
    def stratum(self) -> tuple[str, int]:
        """Groups that are alike: of one kind and size."""
        return self.among, len(self.neurons)


def sample(space: NeuronSpace, count: int, size: int, generator: torch.Generator) -> list[Group]:
    """`count` groups of `size` neurons drawn from all layers alike, no neuron in two. Raises OptionError where there are too few."""
    if count * size > len(space):
        raise OptionError(f"{count} groups of {size} neurons do not fit into {space}. Ask for fewer or smaller ones.")
    drawn = torch.randperm(len(space), generator=generator)[: count * size]
    return [Group(NeuronSet(space, part), "sample") for part in drawn.view(count, size)] if count else []


def own_subsets(neurons: NeuronSet, count: int, sizes: Sequence[int], generator: torch.Generator) -> list[Group]:
    """`count` random subsets of a language's set, of each size in turn, no two the same; a size that the set does not exceed is left out."""
    fitting = [size for size in sizes if size < len(neurons)]
    found: dict[tuple[int, ...], Group] = {}
    for turn in range(4 * count if fitting else 0):  # of a small set some come twice
        size = fitting[turn % len(fitting)]
        drawn = neurons.flat[torch.randperm(len(neurons), generator=generator)[:size]]
        group = Group(NeuronSet(neurons.space, drawn), "own")
        found.setdefault(tuple(group.neurons), group)
        if len(found) == count:
            break
    return list(found.values())


def split(groups: Sequence[Group], known: int, generator: torch.Generator) -> list[bool]:
    """Which groups links are fitted on, `known` of them, as many of each kind and within it of each size as can be; the others are judged."""
    order = torch.randperm(len(groups), generator=generator).tolist()
    by_size = _turns(order, [group.stratum for group in groups])
    by_kind = _turns(by_size, [group.among for group in groups])
    taken = set(by_kind[:known])
    return [k in taken for k in range(len(groups))]


def _turns(order: Sequence[int], kinds: Sequence[object]) -> list[int]:
    """The same numbers dealt out in turns, one of each kind in each; those of a kind keep their order."""
    counts: dict[object, int] = {}
    turns = []
    for k in order:
        counts[kinds[k]] = counts.get(kinds[k], 0) + 1
        turns.append((counts[kinds[k]], k))
    return [k for _, k in sorted(turns, key=lambda one: one[0])]
