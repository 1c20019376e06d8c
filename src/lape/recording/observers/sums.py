"""A watcher for quantities that are sums over counted tokens of what passes a point of every site."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeAlias

import torch
from torch import Tensor

from lape.data.windows import Batch
from lape.model.hooks import At, Rows, watching
from lape.model.numerics import check_finite
from lape.recording.adding import Folds, moments, moments_of
from lape.recording.counter import kept_on, refuse_missed
from lape.recording.observers.observer import Setting, Watcher

Of: TypeAlias = Callable[[Tensor], Tensor]
"""(tokens, width) float32, or float64 -> (names, width): the sums of these tokens."""


class Sums(Watcher):
    """(names, neurons) float64, added up where the values are: in float32 within some tokens, in float64 beyond. Uncounted tokens are 0."""

    def __init__(self, setting: Setting, names: Sequence[str], of: Of, at: At) -> None:
        self._setting, self._names, self._of, self._at = setting, names, of, at
        sites = setting.found.sites
        self._totals = [torch.zeros(len(names), site.width, dtype=torch.float64) for site in sites]
        self._folds = Folds(torch.empty(0, dtype=torch.int64))
        self._forwards = 0
        self._seen = torch.zeros(len(sites), dtype=torch.int64)
        """Forwards that each site was seen in."""

    def attached(self) -> AbstractContextManager[None]:
        """While inside, every forward that follows `count` is added."""
        return watching(self._setting.model, self._setting.found.sites, self._add, self._at)

    def count(self, one: Batch) -> None:
        """Note which tokens of the next forward count."""
        self._forwards += 1
        self._folds = Folds(one.fold.reshape(-1))

    def _add(self, k: int, x: Tensor, rows: Rows) -> None:
        x = x.detach().flatten(0, -2)
        self._seen[k] += 1
        self._totals[k] = total = self._totals[k].to(kept_on(x))
        folds = self._folds if rows is None else self._folds.some(rows)
        if self._of is moments_of:
            moments(x, folds, total)
            return
        for block in folds.blocks(x.device, x.shape[1]):
            total += self._of(block.copy_values(x)).to(total.device)

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        for total, part in zip(self._totals, self._setting.found.space, strict=True):
            total.copy_(torch.stack([state[name][part.start : part.stop] for name in self._names]))

    def result(self) -> dict[str, Tensor]:
        """(neurons,) of each name. Raises ModelError where a site missed a forward, or something was not finite."""
        refuse_missed(self._setting.found, self._seen, self._forwards)
        sums = torch.cat([total.cpu() for total in self._totals], 1)
        check_finite(sums, f"The sum {self._names[0]}")
        return {name: one.clone() for name, one in zip(self._names, sums, strict=True)}
