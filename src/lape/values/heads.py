"""`HeadSpace`: one flat axis over what all attention heads of a model write, so that edits of heads are edits of channels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lape.errors import OptionError
from lape.values.space import NeuronSpace


def head_of(name: str) -> tuple[int, int]:
    """The (layer, head) of a head's name, with a point between. Raises ValueError for any other.

    Example:
        >>> from lape.values.heads import head_of
        >>> head_of("17.2")
        (17, 2)
    """
    layer, head = name.split(".")
    return int(layer), int(head)


@dataclass(frozen=True)
class HeadSpace(NeuronSpace):
    """The channels of all attention heads, in the order of layer, head, channel: what goes into the output projections of attention.

    It is no space of neurons: sets of it are equal to none of neurons, and an edit is of either.

    Example:
        >>> from lape.values.heads import HeadSpace
        >>> space = HeadSpace.laid_out([(0, 4, 16), (1, 4, 16)])
        >>> space
        HeadSpace(8 attention heads (128 channels))
        >>> space.channels(1, 2).tolist() == [*range(96, 112)]
        True
        >>> space.heads(space.channels(1, 2))
        [(1, 2)]
    """

    widths: tuple[int, ...] = ()
    """Channels of a head, by stretch."""

    @classmethod
    def laid_out(cls, counts: Iterable[tuple[int, int, int]]) -> HeadSpace:
        """From (layer, heads, channels of a head)."""
        listed = list(counts)
        space = NeuronSpace.of((layer, None, count * width) for layer, count, width in listed)
        return cls(space.stretches, tuple(width for _, _, width in listed))

    def channels(self, layer: int, head: int) -> Tensor:
        """(channels of a head,) int64: the flat indices of one head. Raises OptionError for one that is not there."""
        for stretch, width in zip(self.stretches, self.widths, strict=True):
            if stretch.layer == layer:
                count = stretch.width // width
                if not 0 <= head < count:
                    raise OptionError(f"Layer {layer} has attention heads 0 to {count - 1}, not {head}.")
                return stretch.start + width * head + torch.arange(width)
        raise OptionError(
            f"There is no layer {layer} with attention heads. Expected one of {', '.join(map(str, self.layers))}."
        )

    def heads(self, flat: Tensor) -> list[tuple[int, int]]:
        """The (layer, head) that hold some channels, (n,) int64 flat indices, in order, each once."""
        found = dict.fromkeys(
            (self.stretches[k].layer, (int(one) - self.stretches[k].start) // self.widths[k])
            for one, k in zip(flat.tolist(), self.stretch_of(flat).tolist(), strict=True)
        )
        return sorted(found)

    def to_json(self) -> list[list[Any]]:
        """Refused: files of neurons and statistics hold neurons, and would be read as such. Heads are kept as (layer, head)."""
        raise OptionError(
            "Attention heads cannot be kept as neurons are. Keep them as (layer, head), as lape.export does."
        )

    def __repr__(self) -> str:
        return f"HeadSpace({self})"

    def __str__(self) -> str:
        count = sum(stretch.width // width for stretch, width in zip(self.stretches, self.widths, strict=True))
        return f"{count:,} attention heads ({len(self):,} channels)"
