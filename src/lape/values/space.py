"""`NeuronSpace`: one flat axis over all neurons of a model, and the only place that does its arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl
import torch
from torch import Tensor

from lape.errors import FileError, OptionError
from lape.store.documents import misfit

_MOST = 2**36
"""More neurons than any model has."""


@dataclass(frozen=True)
class Stretch:
    """The neurons of one (layer, expert): `width` neurons from flat index `start` on; `expert` is None in a dense MLP.

    Example:
        >>> stretch = stats.space.stretches[1]
        >>> stretch
        Stretch(layer=1, expert=None, start=1400, width=1400)
        >>> stats.mean("fr")[stretch.start : stretch.stop].shape
        torch.Size([1400])
    """

    layer: int
    expert: int | None
    start: int
    width: int

    @property
    def stop(self) -> int:
        """The flat index after the last neuron."""
        return self.start + self.width


@dataclass(frozen=True)
class NeuronSpace:
    """All neurons of a model in the order of layer, expert, index. Layers may differ in width.

    Two spaces are equal when their stretches are: sets and statistics of equal spaces can be combined.

    Example:
        >>> import torch
        >>> from lape.values.space import NeuronSpace
        >>> space = NeuronSpace.dense(layers=12, width=3072)
        >>> space
        NeuronSpace(36,864 neurons (12 × 3,072))
        >>> space.flat(layer=1, index=5)
        3077
        >>> space.addresses(torch.tensor([3077])).row(0)
        (1, None, 5)
        >>> len(space.layers)
        12
        >>> NeuronSpace.from_json(space.to_json()) == space
        True
    """

    stretches: tuple[Stretch, ...]

    @classmethod
    def of(cls, widths: Iterable[tuple[int, int | None, int]]) -> NeuronSpace:
        """Lay out stretches from (layer, expert or None, width), in the order given: layers must not go back.

        Example:
            >>> from lape.values.space import NeuronSpace
            >>> NeuronSpace.of((layer, expert, 512) for layer in range(4) for expert in range(8))
            NeuronSpace(16,384 neurons (4 layers × 8 experts × 512))
        """
        stretches: list[Stretch] = []
        start = 0
        for layer, expert, width in widths:
            stretches.append(Stretch(layer, expert, start, width))
            start += width
        return cls(tuple(stretches))

    @classmethod
    def dense(cls, layers: int, width: int) -> NeuronSpace:
        """The space of a dense model: `layers` layers of `width` neurons."""
        return cls.of((layer, None, width) for layer in range(layers))

    def __len__(self) -> int:
        """How many neurons there are."""
        return self.stretches[-1].stop if self.stretches else 0

    def __iter__(self) -> Iterator[Stretch]:
        return iter(self.stretches)

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """The layers that hold neurons, in order, each once."""
        return tuple(dict.fromkeys(stretch.layer for stretch in self.stretches))

    @cached_property
    def _starts(self) -> Tensor:
        return torch.tensor([stretch.start for stretch in self.stretches], dtype=torch.int64)

    def stretch_of(self, flat: Tensor) -> Tensor:
        """For flat indices (n,) int64: the position of each one's stretch in `stretches`, (n,) int64.

        Example:
            >>> import torch
            >>> stats.space.stretch_of(torch.tensor([7, 1399, 1400]))
            tensor([0, 0, 1])
        """
        return torch.searchsorted(self._starts, flat, right=True) - 1

    def split(self, flat: Tensor) -> dict[int, Tensor]:
        """Sorted flat indices by stretch: position in `stretches` -> indices within that stretch, (n,) int64.

        Example:
            >>> import torch
            >>> stats.space.split(torch.tensor([7, 1399, 1400]))
            {0: tensor([   7, 1399]), 1: tensor([0])}
        """
        owner = self.stretch_of(flat)
        local = flat - self._starts[owner] if len(flat) else flat
        return {int(k): local[owner == k] for k in torch.unique(owner)}

    def flat(self, layer: int, index: int, expert: int | None = None) -> int:
        """The flat index of one neuron's address; `index` goes on from one MLP of a layer to its next (see `addresses`).

        Raises OptionError for an address that is not in the space.
        """
        before, named = 0, f"layer {layer}" + (f", expert {expert}" if expert is not None else "")
        for stretch in self.stretches:
            if (stretch.layer, stretch.expert) == (layer, expert):
                if 0 <= index - before < stretch.width:
                    return stretch.start + index - before
                before += stretch.width
        if before:
            raise OptionError(f"{named} has neurons 0 to {before - 1}, not {index}.")
        raise OptionError(f"There is no {named}.")

    def addresses(self, flat: Tensor) -> pl.DataFrame:
        """One row per flat index (n,) int64, in their order: `layer`, `expert` (null in a dense MLP), `index` in that layer or expert.

        Where a layer has several dense MLPs, `index` goes on from one to the next: no two neurons share an address.
        """
        wide: dict[tuple[int, int | None], int] = {}
        before = []
        for stretch in self.stretches:
            owner = stretch.layer, stretch.expert
            before.append(wide.get(owner, 0))
            wide[owner] = before[-1] + stretch.width
        at = self.stretch_of(flat).tolist()
        columns = {
            "layer": [self.stretches[k].layer for k in at],
            "expert": [self.stretches[k].expert for k in at],
            "index": [j - self.stretches[k].start + before[k] for j, k in zip(flat.tolist(), at, strict=True)],
        }
        return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.Int64))

    def counts(self, flat: Tensor) -> Tensor:
        """How many of the given flat indices lie in each stretch, (stretches,) int64.

        Example:
            >>> stats.space.counts(neurons["fr"].flat)
            tensor([4, 4])
        """
        return torch.bincount(self.stretch_of(flat), minlength=len(self.stretches))

    def per_neuron(self, per_stretch: Tensor) -> Tensor:
        """Repeat one value per stretch (..., stretches) over its neurons: (..., neurons), of the same dtype.

        Example:
            >>> stats.space.per_neuron(stats.routed()).shape
            torch.Size([4, 2800])
        """
        widths = torch.tensor([stretch.width for stretch in self.stretches])
        return per_stretch.repeat_interleave(widths, dim=-1)

    def to_json(self) -> list[list[Any]]:
        """As plain lists: one [layer, expert or null, width] per stretch."""
        return [[stretch.layer, stretch.expert, stretch.width] for stretch in self.stretches]

    @classmethod
    def from_json(cls, data: Any) -> NeuronSpace:
        """Read what `to_json` wrote. Raises FileError for anything else, and for a space that no model has.

        A layer may hold several dense MLPs, and experts with a dense one, but experts are always numbered from 0, without a gap.
        """
        wrong = misfit(data, [[int | None]], "the space")
        if wrong or not data or any(len(one) != 3 or None in (one[0], one[2]) for one in data):
            raise FileError(f"The space is not a list of [layer, expert or null, width] ({wrong or f'{data!s:.80}'}).")
        layers = [layer for layer, _, _ in data]
        if layers != sorted(layers) or any(
            layer < 0 or (expert or 0) < 0 or width < 1 for layer, expert, width in data
        ):
            raise FileError("The space has layers in disorder, or numbers below 0.")
        if sum(width for _, _, width in data) > _MOST:
            raise FileError(f"The space has more neurons than {_MOST:,}.")
        before = (-1, -1)
        for layer, expert, _ in data:
            if expert is not None:
                if expert not in (0, before[1] + 1 if layer == before[0] else 0):
                    raise FileError(
                        f"The space has expert {expert} in layer {layer}, and not all before it: no model has."
                    )
                before = (layer, expert)
        return cls.of((layer, expert, width) for layer, expert, width in data)

    def __repr__(self) -> str:
        return f"NeuronSpace({self})"

    def __str__(self) -> str:
        widths, experts = ({getattr(one, name) for one in self.stretches} for name in ("width", "expert"))
        if len(widths) == 1 and experts == {None}:
            shape = f"{len(self.stretches)} × {widths.pop():,}"
        elif len(widths) == 1 and len(experts) * len(self.layers) == len(self.stretches):
            shape = f"{len(self.layers)} layers × {len(experts)} experts × {widths.pop():,}"
        else:
            shape = f"{len(self.stretches):,} stretches"
        return f"{len(self):,} neurons ({shape})"
