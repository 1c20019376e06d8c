"""What watches a model while it reads: counts and sums per neuron, added up where the activations are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from lape.data.corpus import FOLDS
from lape.errors import ModelError
from lape.model.body import blocks, text_config
from lape.model.hooks import Rows, hooked, watching
from lape.model.numerics import check_finite
from lape.model.site import Sites
from lape.model.weights import down_device

VALUES = ("sum", "square", "positive")
"""Of the activation, of its square and of its positive part, as `LanguageStats` names them."""


@dataclass(frozen=True)
class _Run:
    """Consecutive tokens of a forward that count in one fold, but for some that do not count."""

    start: int
    stop: int
    fold: int
    uncounted: Tensor | None
    """Positions within the run, on the site's device."""


def _split(fold: Tensor, longest: int, device: torch.device) -> Iterator[_Run]:
    """Runs of one fold of at most `longest` tokens; tokens that do not count go with those before them."""
    counted = torch.nonzero(fold >= 0)[:, 0]
    if not len(counted):
        return
    last = torch.searchsorted(counted, torch.arange(len(fold)), right=True).sub_(1).clamp_min_(0)
    filled = fold[counted[last]]
    changes = (torch.nonzero(filled[1:] != filled[:-1])[:, 0] + 1).tolist()
    for start, stop in pairwise([0, *changes, len(fold)]):
        for at in range(start, stop, longest):
            part = fold[at : min(at + longest, stop)]
            missing = torch.nonzero(part < 0)[:, 0]
            yield _Run(at, at + len(part), int(filled[at]), missing.to(device) if len(missing) else None)


class Recorder:
    """Counts and sums on each site's own device. Memory does not grow with the text; nothing per token leaves a layer."""

    def __init__(self, model: nn.Module, found: Sites) -> None:
        self.model, self.found = model, found
        self._fires: list[Tensor | None] = [None] * len(found.sites)
        self._sums: list[Tensor | None] = [None] * len(found.sites)
        self._fold = torch.empty(0, dtype=torch.int64)
        self._runs: dict[tuple[torch.device, int], list[_Run]] = {}
        self._folds: dict[torch.device, Tensor] = {}
        self._forwards = 0
        self._calls = [0] * len(found.sites)
        self._routed = torch.zeros(FOLDS, len(found.sites), dtype=torch.int64)
        """Tokens that reached each stretch of experts."""
        self.tokens = torch.zeros(FOLDS, dtype=torch.int64)

    @contextmanager
    def attached(self) -> Iterator[Recorder]:
        """While inside, every forward that follows `count` is counted."""
        with watching(self.model, self.found.sites, self._see):
            yield self

    def count(self, fold: Tensor) -> None:
        """Say which fold each token of the next forward counts in: (rows, tokens) int64, -1 for none."""
        self._forwards += 1
        self._fold = fold.reshape(-1)
        self._runs.clear()
        self._folds.clear()
        self.tokens += torch.bincount(self._fold[self._fold >= 0], minlength=FOLDS)

    def _runs_on(self, device: torch.device, width: int) -> list[_Run]:
        """The tokens of this forward in runs of one fold. On a CPU a run is short enough to stay in the cache for all sums."""
        longest = max(16, 2**18 // width) if device.type == "cpu" else 2**13
        key = (device, longest)
        if key not in self._runs:
            self._runs[key] = list(_split(self._fold, longest, device))
        return self._runs[key]

    def _see(self, k: int, activation: Tensor, rows: Rows) -> None:
        a = activation.detach().flatten(0, -2)
        if rows is not None:
            self._see_some(k, a, rows)
            return
        if len(a) != len(self._fold):
            raise RuntimeError(f"site {k} saw {len(a)} tokens, expected {len(self._fold)}")
        fires, sums = self._state(k, a)
        self._calls[k] += 1
        dtype = torch.float64 if a.dtype == torch.float64 else torch.float32
        for run in self._runs_on(a.device, a.shape[1]):
            x = a[run.start : run.stop].to(dtype, copy=True)
            if run.uncounted is not None:
                x.index_fill_(0, run.uncounted, 0)
            positive = x.clamp_min(0)
            sums[0] += x.sum(0).to(sums.device)
            sums[2] += positive.sum(0).to(sums.device)
            sums[1] += x.square_().sum(0).to(sums.device)
            fires[run.fold] += positive.sign_().sum(0).to(fires.device).long()  # 1 where the activation is above 0

    def _see_some(self, k: int, a: Tensor, rows: Tensor) -> None:
        """An expert's activations: of the tokens that were sent to it."""
        fires, sums = self._state(k, a)
        self._calls[k] += 1
        if a.device not in self._folds:
            self._folds[a.device] = self._fold.to(a.device)
        fold = self._folds[a.device][rows]
        counted = fold >= 0
        x = a[counted].to(torch.float64 if a.dtype == torch.float64 else torch.float32)
        member = torch.nn.functional.one_hot(fold[counted], FOLDS).to(x.dtype)
        positive = x.clamp_min(0)
        sums += torch.stack([x.sum(0), x.square().sum(0), positive.sum(0)]).to(sums.device)
        fires += (member.T @ positive.sign()).to(fires.device).long()
        self._routed[:, k] += member.sum(0).long().cpu()

    def _state(self, k: int, a: Tensor) -> tuple[Tensor, Tensor]:
        fires, sums = self._fires[k], self._sums[k]
        if fires is None or sums is None:
            device = torch.device("cpu") if a.device.type == "mps" else a.device  # MPS has no float64
            fires = torch.zeros(FOLDS, a.shape[1], dtype=torch.int64, device=device)
            sums = torch.zeros(3, a.shape[1], dtype=torch.float64, device=device)
            self._fires[k], self._sums[k] = fires, sums
        return fires, sums

    def state(self) -> dict[str, Tensor]:
        """What was counted so far, as `LanguageStats` keeps it, on the CPU.

        Raises ModelError where a site missed a forward, or an activation was not finite.
        """
        missed = self.missed()
        if missed:
            raise ModelError(
                f"Layers {missed[:6]} were not seen in every forward: parts of the model seem to be compiled or replaced. "
                "Load it anew and record before compiling."
            )
        space = self.found.space
        widths = [stretch.width for stretch in space]
        fires = [
            torch.zeros(FOLDS, w, dtype=torch.int64) if f is None else f.cpu()
            for f, w in zip(self._fires, widths, strict=True)
        ]
        sums = [
            torch.zeros(3, w, dtype=torch.float64) if s is None else s.cpu()
            for s, w in zip(self._sums, widths, strict=True)
        ]
        added = dict(zip(VALUES, torch.cat(sums, 1), strict=True))
        check_finite(added["square"], "The activation")
        return {
            "tokens": self.tokens.clone(),
            "routed": self._all_routed(),
            "fires": torch.cat(fires, 1),
            **{name: one.clone() for name, one in added.items()},
        }

    def missed(self) -> list[int]:
        """Layers that did not count in every forward."""
        return [
            site.layer for site, calls in zip(self.found.sites, self._calls, strict=True) if calls != self._forwards
        ]

    def _all_routed(self) -> Tensor:
        """(folds, stretches) int64: all counted tokens, or those sent to an expert."""
        dense = torch.tensor([site.layout is None for site in self.found.sites])
        return torch.where(dense, self.tokens[:, None], self._routed)

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        self.tokens = state["tokens"].clone()
        self._routed = state["routed"].clone()
        sums = torch.stack([state[name] for name in VALUES])
        for k, (site, stretch) in enumerate(zip(self.found.sites, self.found.space, strict=True)):
            part = slice(stretch.start, stretch.stop)
            device = down_device(self.model, site)
            device = torch.device("cpu") if device.type in ("mps", "meta") else device
            self._fires[k] = state["fires"][:, part].to(device, copy=True)
            self._sums[k] = sums[:, part].to(device, copy=True)


class ResidualRecorder:
    """Sums of the residual stream after every decoder block, over counted tokens."""

    def __init__(self, model: nn.Module, found: Sites) -> None:
        self._blocks, self._width = blocks(model, found), text_config(model).hidden_size
        self.sums: Tensor | None = None
        self.weights = torch.empty(0)

    def total(self) -> Tensor:
        """(layers, width) float64 on the CPU; zeros where nothing ran."""
        if self.sums is None:
            return torch.zeros(len(self._blocks), self._width, dtype=torch.float64)
        return self.sums

    @contextmanager
    def attached(self) -> Iterator[None]:
        """While inside, every forward adds."""
        with hooked([block.register_forward_hook(self._hook(k)) for k, block in enumerate(self._blocks)]):
            yield

    def _hook(self, k: int) -> Callable[[nn.Module, Any, Any], None]:
        def add(_module: nn.Module, _args: Any, out: Any) -> None:
            hidden = (out if isinstance(out, Tensor) else out[0]).flatten(0, -2)
            if self.sums is None:
                self.sums = torch.zeros(len(self._blocks), hidden.shape[1], dtype=torch.float64)
            dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
            self.sums[k] += (self.weights.to(hidden.device, dtype) @ hidden.to(dtype)).cpu()

        return add
