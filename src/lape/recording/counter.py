"""What watches a model while it reads: counts and sums per neuron, added up where the activations are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from lape.data.corpus import FOLDS
from lape.errors import ModelError
from lape.model.hooks import Rows, watching
from lape.model.numerics import check_finite, summed_in
from lape.model.site import Sites

VALUES = ("sum", "square", "positive")
"""Of the activation, of its square and of its positive part, as `LanguageStats` names them."""


@dataclass(frozen=True)
class Span:
    """Consecutive tokens of a forward that count in one fold, but for some that do not count."""

    start: int
    stop: int
    fold: int
    uncounted: Tensor | None
    """Positions within the span, on the site's device."""

    def of(self, a: Tensor) -> Tensor:
        """A copy of these tokens' values (tokens, width) in the format that sums are made in, 0 where a token does not count."""
        x = a[self.start : self.stop].to(summed_in(a), copy=True)
        return x if self.uncounted is None else x.index_fill_(0, self.uncounted, 0)


def kept_on(a: Tensor) -> torch.device:
    """Where sums in float64 of what lies on a device are kept: there, but MPS has no float64."""
    return torch.device("cpu") if a.device.type == "mps" else a.device


def tokens_at_once(device: torch.device, width: int) -> int:
    """Tokens of so many numbers each that are worked on at once: on a CPU few enough to stay in its cache."""
    return max(16, 2**18 // width) if device.type == "cpu" else 2**13


class Spans:
    """All tokens of a forward, cut into spans for each site's device."""

    def __init__(self, fold: Tensor) -> None:
        self._fold = fold
        """(tokens,) int64 on the CPU: the fold that each counts in, -1 for none."""
        self._spans: dict[tuple[torch.device, int], list[Span]] = {}
        self._folds: dict[torch.device, Tensor] = {}

    def on(self, device: torch.device, width: int) -> list[Span]:
        """No longer than what is worked on at once."""
        key = (device, longest := tokens_at_once(device, width))
        if key not in self._spans:
            self._spans[key] = list(_split(self._fold, longest, device))
        return self._spans[key]

    def folds(self, device: torch.device) -> Tensor:
        """(tokens,) the fold that each token counts in."""
        if device not in self._folds:
            self._folds[device] = self._fold.to(device)
        return self._folds[device]


def _split(fold: Tensor, longest: int, device: torch.device) -> Iterator[Span]:
    """Spans of one fold of at most `longest` tokens; tokens that do not count go with those before them."""
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
            yield Span(at, at + len(part), int(filled[at]), missing.to(device) if len(missing) else None)


class Recorder:
    """Counts and sums on each site's own device. Memory does not grow with the text; nothing per token leaves a layer."""

    def __init__(self, model: nn.Module, found: Sites) -> None:
        self.model, self.found = model, found
        self._fires = [torch.zeros(FOLDS, site.width, dtype=torch.int64) for site in found.sites]
        self._sums = [torch.zeros(len(VALUES), site.width, dtype=torch.float64) for site in found.sites]
        self._fold = torch.empty(0, dtype=torch.int64)
        self._spans = Spans(self._fold)
        self._forwards = 0
        self._calls = torch.zeros(len(found.sites), dtype=torch.int64)
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
        self._spans = Spans(self._fold)
        self.tokens += torch.bincount(self._fold[self._fold >= 0], minlength=FOLDS)

    def _see(self, k: int, activation: Tensor, rows: Rows) -> None:
        a = activation.detach().flatten(0, -2)
        if rows is not None:
            self._see_some(k, a, rows)
            return
        if len(a) != len(self._fold):
            raise ModelError(
                f"Layer {self.found.sites[k].layer}: {self.found.sites[k].activation} gave activations of {len(a)} tokens in a forward of {len(self._fold)}. "
                "Expected one for each: the model does not run this MLP once on all of the text, so its neurons cannot be counted."
            )
        fires, sums = self._here(k, a)
        for span in self._spans.on(a.device, a.shape[1]):
            x = span.of(a)
            positive = x.clamp_min(0)
            sums[0] += x.sum(0).to(sums.device)
            sums[2] += positive.sum(0).to(sums.device)
            sums[1] += x.square_().sum(0).to(sums.device)
            fires[span.fold] += positive.sign_().sum(0).to(fires.device).long()  # 1 where the activation is above 0

    def _see_some(self, k: int, a: Tensor, rows: Tensor) -> None:
        """An expert's activations: of the tokens that were sent to it."""
        fires, sums = self._here(k, a)
        fold = self._spans.folds(a.device)[rows]
        counted = fold >= 0
        x = a[counted].to(summed_in(a))
        member = torch.nn.functional.one_hot(fold[counted], FOLDS).to(x.dtype)
        positive = x.clamp_min(0)
        sums += torch.stack([x.sum(0), x.square().sum(0), positive.sum(0)]).to(sums.device)
        fires += (member.T @ positive.sign()).to(fires.device).long()
        self._routed[:, k] += member.sum(0).long().cpu()

    def _here(self, k: int, a: Tensor) -> tuple[Tensor, Tensor]:
        """A site's counts and sums, on its own device, at the begin of a forward."""
        self._calls[k].add_(1)
        self._fires[k], self._sums[k] = self._fires[k].to(kept_on(a)), self._sums[k].to(kept_on(a))
        return self._fires[k], self._sums[k]

    def state(self) -> dict[str, Tensor]:
        """What was counted so far, as `LanguageStats` keeps it, on the CPU.

        Raises ModelError where a site missed a forward, or an activation was not finite.
        """
        refuse_missed(self.found, self._calls, self._forwards)
        sums = torch.cat([one.cpu() for one in self._sums], 1)
        check_finite(sums, "The activation")
        return {
            "tokens": self.tokens.clone(),
            "routed": self._all_routed(),
            "fires": torch.cat([one.cpu() for one in self._fires], 1),
            **{name: one.clone() for name, one in zip(VALUES, sums, strict=True)},
        }

    def _all_routed(self) -> Tensor:
        """(folds, stretches) int64: all counted tokens, or those sent to an expert."""
        dense = torch.tensor([stretch.expert is None for stretch in self.found.space])
        return torch.where(dense, self.tokens[:, None], self._routed)

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` gave; from an empty one, begin at nothing. Every tensor stays in its place."""
        self._forwards = 0
        for one in (self.tokens, self._routed, self._calls, *self._fires, *self._sums):
            one.zero_()
        if not state:
            return
        self.tokens.copy_(state["tokens"])
        self._routed.copy_(state["routed"])
        for stretch, fires, sums in zip(self.found.space, self._fires, self._sums, strict=True):
            part = slice(stretch.start, stretch.stop)
            fires.copy_(state["fires"][:, part])
            sums.copy_(torch.stack([state[name][part] for name in VALUES]))


def refuse_missed(found: Sites, seen: Tensor, forwards: int) -> None:
    """Refuse what was recorded where a site was not seen in every forward; `seen`: (sites,) in how many. Raises ModelError."""
    layers = [site.layer for site, times in zip(found.sites, seen.tolist(), strict=True) if times != forwards]
    if layers:
        raise ModelError(
            f"Layers {layers[:6]} were not seen in every forward: parts of the model seem to be compiled or replaced. "
            "Load the model again, and record before compiling it."
        )
