"""What watches a model while it reads: counts and sums per neuron, added up where the activations are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lape.data.corpus import FOLDS
from lape.errors import ModelError
from lape.model.hooks import Rows, watching
from lape.model.numerics import check_finite
from lape.model.site import Sites
from lape.recording.adding import Folds, count

VALUES = ("sum", "square", "positive")
"""Of the activation, of its square and of its positive part, as `LanguageStats` names them."""


def kept_on(a: Tensor) -> torch.device:
    """Where sums in float64 of what lies on a device are kept: there, but MPS has no float64."""
    return torch.device("cpu") if a.device.type == "mps" else a.device


class Recorder:
    """Counts and sums on each site's own device. Memory does not grow with the text; nothing per token leaves a layer."""

    def __init__(self, model: nn.Module, found: Sites) -> None:
        self.model, self.found = model, found
        self._fires = [torch.zeros(FOLDS, site.width, dtype=torch.int64) for site in found.sites]
        self._sums = [torch.zeros(len(VALUES), site.width, dtype=torch.float64) for site in found.sites]
        self._fold = torch.empty(0, dtype=torch.int64)
        self._folds = Folds(self._fold)
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
        self._folds = Folds(self._fold)
        self.tokens += torch.bincount(self._fold[self._fold >= 0], minlength=FOLDS)

    def _see(self, k: int, activation: Tensor, rows: Rows) -> None:
        a = activation.detach().flatten(0, -2)
        if rows is None and len(a) != len(self._fold):
            raise ModelError(
                f"Layer {self.found.sites[k].layer}: {self.found.sites[k].activation} gave activations of {len(a)} tokens in a forward of {len(self._fold)}. "
                "Expected one for each: the model does not run this MLP once on all of the text, so its neurons cannot be counted."
            )
        fires, sums = self._here(k, a)
        if rows is None:
            count(a, self._folds, sums, fires)
            return
        folds = self._folds.some(rows)  # of the tokens that were sent to an expert
        count(a, folds, sums, fires)
        self._routed[:, k] += folds.sizes()

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
        """Go on from what `state` gave."""
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
