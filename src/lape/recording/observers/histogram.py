"""Histograms of every neuron's activations."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from lape.data.windows import Batch
from lape.model.hooks import Rows, watching
from lape.recording.adding import Folds, bin
from lape.recording.observers.observer import Observer, Setting, Watcher
from lape.values.histogram import BINS
from lape.values.quantity import Quantity


class HistogramRecorder(Watcher):
    """How many counted tokens (that reached the neuron) lie in each bin of `lape.values.histogram`, neuron by neuron, on each site's own device."""

    def __init__(self, setting: Setting) -> None:
        self.model, self.found = setting.model, setting.found
        self._counts = [torch.zeros(stretch.width, BINS, dtype=torch.int64) for stretch in self.found.space]
        self._folds = Folds(torch.empty(0, dtype=torch.int64))

    def attached(self) -> AbstractContextManager[None]:
        """While inside, every forward that follows `count` is recorded."""
        return watching(self.model, self.found.sites, self._see)

    def count(self, one: Batch) -> None:
        """Note which tokens of the next forward count."""
        self._folds = Folds(one.fold.reshape(-1))

    def _see(self, k: int, activation: Tensor, rows: Rows) -> None:
        a = activation.detach().flatten(0, -2)
        self._counts[k] = counts = self._counts[k].to(a.device)
        bin(a, self._folds if rows is None else self._folds.some(rows), counts)

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        self._counts = [state["histogram"][one.start : one.stop].clone() for one in self.found.space]

    def result(self) -> dict[str, Tensor]:
        """`histogram` (neurons, bins) int64."""
        return {"histogram": torch.cat([one.cpu() for one in self._counts])}


OBSERVER = Observer(
    "histogram",
    "How many tokens lie in each bin of a fixed grid of activations, neuron by neuron.",
    (Quantity("histogram", ("neurons", "bins"), torch.int64),),
    option="histogram",
    watch=HistogramRecorder,
)
