"""A watcher for quantities that are sums over counted tokens of what passes a point of every site."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeAlias

import torch
from torch import Tensor

from lape.data.windows import Batch
from lape.model.body import device_of
from lape.model.hooks import At, Rows, held, watching
from lape.model.numerics import check_finite, summed_in
from lape.recording.adding import Folds, moments, moments_of
from lape.recording.counter import kept_on, refuse_missed
from lape.recording.observers.observer import Setting, Watcher

Of: TypeAlias = Callable[[Tensor], Tensor]
"""(tokens, width) float32, or float64 -> (names, width): the sums of these tokens."""


class Sums(Watcher):
    """(names, neurons) float64, added up where the values are: in float32 within some tokens, in float64 beyond. Uncounted tokens are 0."""

    def __init__(self, setting: Setting, names: Sequence[str], of: Of, at: At) -> None:
        self._setting, self._names, self._of, self._at = setting, names, of, at
        sites, rows = setting.found.sites, setting.graph
        device = torch.device("cpu") if rows is None else device_of(setting.model)
        self._totals = [torch.zeros(len(names), one.width, dtype=torch.float64, device=device) for one in sites]
        self._folds = Folds(torch.empty(0, dtype=torch.int64))
        self._forwards = 0
        self._seen = torch.zeros(len(sites), dtype=torch.int64, device=device)
        """Forwards that each site was seen in."""
        tokens = 0 if rows is None else rows[0] * rows[1]
        self._counted = torch.zeros(tokens, 1, dtype=torch.bool, device=device)
        """Of a graph's batch, which tokens count."""

    def attached(self) -> AbstractContextManager[None]:
        """While inside, every forward that follows `count` is added."""
        model, sites = self._setting.model, self._setting.found.sites
        if self._setting.graph is None:
            return watching(model, sites, self._add, self._at)
        return held(
            [h for k, site in enumerate(sites) for h in self._at(model, site, self._adder_in_graph(k))], in_graph=True
        )

    def count(self, one: Batch) -> None:
        """Note which tokens of the next forward count."""
        self._forwards += 1
        if self._setting.graph is None:
            self._folds = Folds(one.fold.reshape(-1))
        else:
            self._counted.copy_(one.fold.reshape(-1, 1) >= 0, non_blocking=True)

    def _add(self, k: int, x: Tensor, rows: Rows) -> None:
        x = x.detach().flatten(0, -2)
        self._seen[k] += 1
        self._totals[k] = total = self._totals[k].to(kept_on(x))
        folds = self._folds if rows is None else self._folds.some(rows)
        if self._of is moments_of:
            moments(x, folds, total)
            return
        for block in folds.blocks(x.device, x.shape[1]):
            total += self._of(block.of(x)).to(total.device)

    def _adder_in_graph(self, k: int) -> Callable[[Tensor, Rows], None]:
        total, seen, counted, of = self._totals[k], self._seen[k : k + 1], self._counted, self._of

        def add(x: Tensor, _rows: Rows) -> None:
            x = x.detach().reshape(len(counted), -1)
            total.add_(of(torch.where(counted, x.to(summed_in(x)), 0)))
            seen.add_(1)

        return add

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` gave; from an empty one, begin at nothing."""
        self._forwards = 0
        self._seen.zero_()
        for total, part in zip(self._totals, self._setting.found.space, strict=True):
            total.zero_()
            if state:
                total.copy_(torch.stack([state[name][part.start : part.stop] for name in self._names]))

    def result(self) -> dict[str, Tensor]:
        """(neurons,) of each name. Raises ModelError where a site missed a forward, or something was not finite."""
        refuse_missed(self._setting.found, self._seen, self._forwards)
        sums = torch.cat([total.cpu() for total in self._totals], 1)
        check_finite(sums, f"The sum {self._names[0]}")
        return {name: one.clone() for name, one in zip(self._names, sums, strict=True)}
