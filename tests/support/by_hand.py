"""Edits by their definition, neuron by neuron, on the models written out in `brute.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lape.edit.edit import Add, Edit, Off, Scale, Set
from lape.values.neurons import NeuronSet
from lape.values.space import NeuronSpace
from support.brute import rewritten, width_of
from support.tiny import LAYERS


def chosen(kind: str, seed: int = 0, share: float = 0.3) -> NeuronSet:
    """Random neurons of every layer."""
    generator = torch.Generator().manual_seed(seed)
    space = NeuronSpace.dense(LAYERS, width_of(kind))
    return NeuronSet(space, torch.nonzero(torch.rand(len(space), generator=generator) < share)[:, 0])


def values(kind: str, seed: int = 9) -> Tensor:
    """A random number for every neuron."""
    return torch.randn(LAYERS * width_of(kind), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_of_each(kind: str) -> list[Edit]:
    return [
        Off(chosen(kind, 1)),
        Set(chosen(kind, 2), 0.7),
        Set(chosen(kind, 3), values(kind)),
        Add(chosen(kind, 4), values(kind), -1.5),
        Add(chosen(kind, 5), 0.4),
        Scale(chosen(kind, 6), -2.0),
    ]


def apply_to(edit: Edit, a: Tensor, start: int, stop: int) -> Tensor:
    """The definition of an edit, neuron by neuron, on activations (..., width) of the neurons from `start` to `stop`; changes `a`."""
    for flat in edit.neurons:
        if start <= flat < stop:
            column = flat - start
            value: Any = getattr(edit, "value", None)
            value = value[flat] if torch.is_tensor(value) and value.dim() else value
            match edit:
                case Off():
                    a[..., column] = 0
                case Set():
                    a[..., column] = value
                case Add():
                    a[..., column] += edit.strength * value
                case Scale():
                    a[..., column] *= edit.factor
    return a


def apply(edit: Edit, layer: int, a: Tensor, width: int) -> Tensor:
    """The same on the activations of one layer of a model whose layers are all `width` wide."""
    return apply_to(edit, a, layer * width, (layer + 1) * width)


@contextmanager
def edited_where(model: Any, kind: str, edits: Sequence[Edit], where: Callable[[int], bool]) -> Iterator[None]:
    """While inside, the MLPs are computed by hand, with the edits in those columns of the ids for which `where` holds.

    Every forward must see the whole text: nothing here knows of a cache.
    """
    shape = [0, 0]

    def look(_module: Any, _args: Any, given: dict[str, Any]) -> None:
        shape[:] = given["input_ids"].shape

    def change(layer: int, a: Tensor) -> Tensor:
        before = a.reshape(*shape, -1)
        after = before.clone()
        for edit in edits:
            apply(edit, layer, after, width_of(kind))
        columns = torch.tensor([where(column) for column in range(shape[1])])
        return torch.where(columns[:, None], after, before).reshape(a.shape)

    handle = model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        with rewritten(model, kind, change):
            yield
    finally:
        handle.remove()
