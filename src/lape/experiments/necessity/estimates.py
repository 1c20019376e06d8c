"""What switching neurons off would cost, estimated from gradients: a few backward passes for all neurons at once (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lape.data.corpus import Corpus, TextOptions
from lape.data.windows import Batch
from lape.edit.edit import Edit, Scale, edited
from lape.errors import OptionError
from lape.measure.controls import seeded
from lape.model.attribution import backward
from lape.model.find import find
from lape.model.loss import Head
from lape.values.neurons import NeuronSet


@dataclass(frozen=True)
class Estimator:
    """A model and the tokens whose loss is to be explained; every estimate is in nats a scored token."""

    model: Any
    head: Head
    corpus: Corpus
    options: TextOptions
    scored: NDArray[np.bool_] | None = None
    """(tokens of the corpus,) bool: whose loss counts; all are read. Default: all."""

    def first(self) -> Tensor:
        """(neurons,) float64: Σ −a · ∂NLL/∂a, the first term of the Taylor series (as `lape.model.attribution` records it)."""
        return self._mean_gradient(None)

    def along(self, points: int) -> Tensor:
        """(neurons,) float64: the same averaged over a path on which *all* neurons are scaled together from 0 to 1.

        The path has `points` midpoints, (k + ½) / points. As they grow the sum over neurons becomes the damage of switching
        everything off, but a share of that is not what one group costs: most of the path leads through a model that writes
        nothing any more.
        """
        every = NeuronSet(self._space, torch.arange(len(self._space)))
        return torch.stack([self._mean_gradient(every, factor) for factor in _midpoints(points)]).mean(0)

    def layerwise(self, points: int) -> Tensor:
        """(neurons,) float64: the same with one layer scaled at a time, at `points` backward passes a layer.

        As the points grow, a layer's sum becomes the damage of switching that layer off.
        """
        result = torch.zeros(len(self._space), dtype=torch.float64)
        for layer in self._space.layers:
            one = NeuronSet(self._space, torch.arange(len(self._space))).in_layers([layer])
            for factor in _midpoints(points):
                result += self._mean_gradient(one, factor) / points
        return result

    def path(self, group: NeuronSet, points: int) -> float:
        """The same for one group alone on its own path: as the points grow, the damage itself, though dearer than measuring it."""
        return float(np.mean([self._mean_gradient(group, t)[group.flat].sum() for t in _midpoints(points)]))

    def bend(self, groups: Sequence[NeuronSet], draws: int, seed: int) -> Tensor:
        """(groups,) float64: the second term, ½ E[(Σ a · ∂NLL/∂a)²], the sum being over a group's neurons and a document's tokens.

        The Gauss-Newton part of the second derivative is the mean square of the gradient of the loss of tokens that the model
        itself expects; they are drawn `draws` times, each time with a backward pass. That the network behind a group is not linear
        is left out. A group lies in one layer. Raises OptionError for a model with experts, whose tokens' documents are not known.
        """
        if any(stretch.expert is not None for stretch in self._space):
            raise OptionError("The second-order estimate is not available for models with experts. Set draws to 0.")
        squares = torch.zeros(len(groups), dtype=torch.float64)
        members = _members(groups)
        count = 0

        def add(k: int, product: Tensor, one: Batch) -> None:
            numbers, matrix = members[k]
            by_group = product.cpu().flatten(0, -2) @ matrix
            unit = _documents(one)
            sums = torch.zeros(int(unit.max()) + 1, len(numbers)).index_add_(0, unit, by_group)
            squares[numbers] += sums.double().square().sum(0)

        for draw in range(draws):
            count = self._backward(add, list(members), seeded(seed, draw))
        return squares / (2 * max(draws, 1) * max(count, 1))

    @property
    def _space(self) -> Any:
        return find(self.model).space

    def _mean_gradient(self, scaled: NeuronSet | None, factor: float = 1.0) -> Tensor:
        """(neurons,) −∂NLL / ∂(factor by which a neuron is scaled), in the layers of `scaled`, which are all scaled by `factor`."""
        space = self._space
        owed = torch.zeros(len(space), dtype=torch.float64)

        def add(k: int, product: Tensor, _one: Batch) -> None:
            stretch = space.stretches[k]
            owed[stretch.start : stretch.stop] -= product.flatten(0, -2).sum(0).cpu().double() / factor

        sites = None if scaled is None else list(space.split(scaled.flat))
        edits: list[Edit] = [] if scaled is None else [Scale(scaled, factor)]
        with edited(self.model, edits):
            count = self._backward(add, sites)
        return owed / max(count, 1)

    def _backward(self, see: Any, sites: Any, drawn: torch.Generator | None = None) -> int:
        return backward(
            self.model,
            self.head,
            self.corpus,
            self.options,
            see,
            scored=self.scored,
            drawn=drawn,
            sites=sites,
        )


def _midpoints(points: int) -> list[float]:
    return [(k + 0.5) / points for k in range(points)]


def _members(groups: Sequence[NeuronSet]) -> dict[int, tuple[list[int], Tensor]]:
    """Stretch -> the numbers of its groups, and the (width, those groups) matrix of who belongs to which."""
    parts: dict[int, list[tuple[int, Tensor]]] = {}
    for number, group in enumerate(groups):
        split = group.space.split(group.flat)
        if len(split) != 1:
            raise OptionError(f"Group {number} lies in {len(split)} layers. Expected all of its neurons in one layer.")
        k, local = next(iter(split.items()))
        parts.setdefault(k, []).append((number, local))
    result = {}
    for k, found in parts.items():
        matrix = torch.zeros(groups[0].space.stretches[k].width, len(found))
        for column, (_, local) in enumerate(found):
            matrix[local, column] = 1
        result[k] = ([number for number, _ in found], matrix)
    return result


def _documents(one: Batch) -> Tensor:
    """(rows · tokens,) a number for the document, or piece of one, that each position belongs to."""
    rows, length = one.input_ids.shape
    if one.position_ids is None:
        return torch.arange(rows).repeat_interleave(length)
    begins = (one.position_ids == 0).flatten()
    return begins.long().cumsum(0) - 1
