"""What switching sets of neurons off would cost, estimated from gradients: a few backward passes for all sets at once (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lape.data.corpus import Corpus, TextOptions
from lape.edit.edit import Scale, edited
from lape.measure.bootstrap import Floats
from lape.model.attribution import Pass, backward
from lape.model.hooks import Rows
from lape.model.loss import Head
from lape.progress import Progress, each, shown
from lape.values.neurons import NeuronSet

_NEARLY_OFF = 1e-3
"""The factor at which the slope of a set that is off is read: at 0 its activations, and so their products with gradients, are 0."""
_STEPS = 200
"""Of the path along which it is asked which sets have passed a stage."""
_WIDTH = 0.2
"""How far apart documents and tokens are in when they pass a stage, as a share of the path: chosen on French and Chinese neurons of Gemma 3 270M."""


@dataclass(frozen=True)
class Expansion:
    """The loss of each document as a set of neurons is turned down, to the second order."""

    first: Floats
    """(sets, documents) nats: Σ −a · ∂NLL/∂a over a set's neurons in all layers and a document's tokens, the slope along the set's path."""
    second: Floats
    """(sets, documents) nats: ½ E[(Σ a · ∂NLL/∂a)²] under tokens that the model itself expects, the Gauss-Newton part of the bend; 0 where nothing
    was drawn. That the network behind a set is not linear is left out.
    """

    def along(self, slopes: Floats, where: NDArray[np.bool_]) -> Floats:
        """(sets, documents) nats: the first two terms, and of what the last set's damage has beyond its own two, what each of the others reaches.

        Many neurons that are switched off together may do far more than the two terms say, in stages: the loss rises steeply once the last set is
        turned down far enough. `slopes` (points, sets, documents), see `Estimator.slopes`, tell where on that path the rise is and which neurons it
        is by. A set that has the share u of the slope where the last one is turned down by τ stands, all off, as far along as the last
        one turned down by u, as if the loss there were a function of a weighted sum of what is turned down: it has passed that stage if u ≥ τ,
        though not in all documents at once.
        Shares are over the (documents,) of `where`. For the last set it is the trapezoid rule of integrated gradients.
        """
        points = len(slopes)
        every = np.concatenate([self.first[None], slopes])
        way = (np.arange(_STEPS) + 0.5) / _STEPS
        hats = np.clip(
            1 - np.abs(way[:, None] * points - np.arange(points + 1)), 0, 1
        )  # straight lines between the points
        totals = hats @ every[:, :, where].sum(2)
        shares = np.divide(totals, totals[:, -1:], out=np.zeros_like(totals), where=totals[:, -1:] > 0)
        passed = np.clip((shares - way[:, None]) / _WIDTH + 0.5, 0, 1)
        passed[:, -1] = 1
        weights = passed.T @ hats / _STEPS
        beyond = every[:, -1] - self.first[-1] - 2 * np.arange(points + 1)[:, None] / points * self.second[-1]
        damage: Floats = self.first + self.second + weights @ beyond
        return damage


@dataclass(frozen=True)
class Estimator:
    """A model and the text whose loss is to be explained; every estimate is in nats, summed over a document's tokens."""

    model: Any
    head: Head
    corpus: Corpus
    options: TextOptions

    def expand(
        self, sets: Sequence[NeuronSet], draws: int, seed: int, progress: Progress = shown, *, what: str = "estimating"
    ) -> Expansion:
        """The first two terms of the loss's Taylor series along the path of each set: one pass forwards and 1 + `draws` backwards for all sets."""
        sums = _Sums(self.corpus, sets)
        backward(
            self.model,
            self.head,
            self.corpus,
            self.options,
            sums.see,
            draws=draws,
            seed=seed,
            sites=list(sums.members),
            progress=lambda done, of: progress(what, done, of),
        )
        sums.close()
        return Expansion(-sums.slopes, sums.squares / (2 * max(draws, 1)))

    def slopes(self, sets: Sequence[NeuronSet], points: int, progress: Progress = shown, *, what: str = "") -> Floats:
        """(points, sets, documents) the slope along each set's path while the last one is turned down to 1 − 1/points, …, 1/points and (all but) off:
        one pass forwards and backwards a point for all sets.
        """
        factors = [1 - k / points if k < points else _NEARLY_OFF for k in range(1, points + 1)]
        slopes = [self._slope(sets, factor) for factor in each(factors, what, progress)]
        return np.array(slopes).reshape(points, len(sets), self.corpus.documents)

    def _slope(self, sets: Sequence[NeuronSet], factor: float) -> Floats:
        """(sets, documents) −∂NLL / ∂(factor by which a set's neurons are multiplied), while those of the last one are multiplied by `factor`, not 0."""
        whole = sets[-1]
        parts = [*(one & whole for one in sets), *(one - whole for one in sets)]
        with edited(self.model, Scale(whole, factor)):
            inside, outside = np.split(self.expand(parts, 0, 0).first, 2)
        slopes: Floats = inside / factor + outside
        return slopes

    def path(self, neurons: NeuronSet, points: int) -> Floats:
        """(documents,) the slope averaged over `points` midpoints of the set's own path from off to on: integrated gradients. As the points grow,
        the damage itself, though dearer than measuring it.
        """
        slopes: Floats = np.mean([self._slope([neurons], (k + 0.5) / points)[0] for k in range(points)], axis=0)
        return slopes

    def trapezoid(self, neurons: NeuronSet) -> Floats:
        """(documents,) the mean of the slopes at the two ends of the set's own path: on, and (all but) off."""
        slopes: Floats = (self._slope([neurons], 1.0)[0] + self._slope([neurons], _NEARLY_OFF)[0]) / 2
        return slopes


class _Sums:
    """a · ∂NLL/∂a summed over the neurons of each set and the tokens of each document, as backward passes go by."""

    def __init__(self, corpus: Corpus, sets: Sequence[NeuronSet]) -> None:
        self._corpus = corpus
        self.members = _members(sets)
        shape = (len(sets), corpus.documents)
        self.slopes, self.squares = np.zeros(shape), np.zeros(shape)
        self._now: Pass | None = None
        self._open = torch.zeros(0)
        """(pieces of the batch, sets): the sums of the pass that is running, to which every layer adds."""

    def see(self, k: int, product: Tensor, rows: Rows, now: Pass) -> None:
        """Add what one site shows of one pass."""
        pieces = now.pieces
        if now is not self._now:
            self.close()
            self._now = now
            self._open = torch.zeros(int(pieces.max()) + 1, self.slopes.shape[0], dtype=torch.float64)
        columns, matrix = self.members[k]
        by_set = (product.flatten(0, -2) @ matrix.to(product.device)).cpu().double()
        of = pieces if rows is None else pieces[rows.cpu()]
        self._open[:, columns] = self._open[:, columns].index_add_(0, of, by_set)

    def close(self) -> None:
        """The pass that was running is over: only now are the sums over all layers known, and can be squared."""
        if self._now is None:
            return
        document = _documents(self._corpus, self._now)
        kept = document >= 0
        values = self._open.numpy()[kept].T
        if self._now.draw is None:
            np.add.at(self.slopes.T, document[kept], values.T)
        else:
            np.add.at(self.squares.T, document[kept], values.T**2)
        self._now = None


def _documents(corpus: Corpus, now: Pass) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(pieces,) the document that each piece of a batch is of; -1 for padding."""
    source, pieces = now.batch.source.flatten().numpy(), now.pieces.numpy()
    result = np.full(int(pieces.max()) + 1, -1)
    text = source >= 0
    result[pieces[text]] = np.searchsorted(corpus.starts, source[text], side="right") - 1
    return result


def _members(sets: Sequence[NeuronSet]) -> dict[int, tuple[list[int], Tensor]]:
    """Site -> the numbers of the sets that have neurons there, and the (width, those sets) matrix of who belongs to which."""
    parts: dict[int, list[tuple[int, Tensor]]] = {}
    for number, one in enumerate(sets):
        for k, local in one.space.split(one.flat).items():
            parts.setdefault(k, []).append((number, local))
    result = {}
    for k, found in parts.items():
        matrix = torch.zeros(sets[0].space.stretches[k].width, len(found))
        for column, (_, local) in enumerate(found):
            matrix[local, column] = 1
        result[k] = ([number for number, _ in found], matrix)
    return result
