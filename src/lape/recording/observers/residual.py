"""Sums of the residual stream after every decoder block, over counted tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lape.data.windows import Batch
from lape.model.body import blocks, text_config
from lape.model.hooks import hooked
from lape.model.numerics import summed_in
from lape.model.scope import Put
from lape.recording.observers.observer import Observer, Setting, Watcher
from lape.values.quantity import Quantity


class ResidualRecorder(Watcher):
    """(layers, width) float64 on the CPU."""

    def __init__(self, setting: Setting) -> None:
        self._model, self._blocks = setting.model, blocks(setting.model, setting.found)
        self._width: int = text_config(setting.model).hidden_size
        self._sums: Tensor | None = None
        self._weights = torch.empty(0)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """While inside, every forward adds."""
        handles = [Put(block.register_forward_hook, self._hook(k)) for k, block in enumerate(self._blocks)]
        with hooked(self._model, handles):
            yield

    def count(self, one: Batch) -> None:
        """Note which tokens of the next forward count."""
        self._weights = (one.fold.reshape(-1) >= 0).double()

    def _hook(self, k: int) -> Callable[[nn.Module, Any, Any], None]:
        def add(_module: nn.Module, _args: Any, out: Any) -> None:
            hidden = (out if isinstance(out, Tensor) else out[0]).flatten(0, -2)
            if self._sums is None:
                self._sums = torch.zeros(len(self._blocks), hidden.shape[1], dtype=torch.float64)
            dtype = summed_in(hidden)
            self._sums[k] += (self._weights.to(hidden.device, dtype) @ hidden.to(dtype)).cpu()

        return add

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        self._sums = state["residual"].clone()

    def result(self) -> dict[str, Tensor]:
        """`residual` (layers, width) float64; zeros where nothing ran."""
        if self._sums is None:
            return {"residual": torch.zeros(len(self._blocks), self._width, dtype=torch.float64)}
        return {"residual": self._sums.clone()}


OBSERVER = Observer(
    "residual",
    "The sum of the residual stream after every layer.",
    (Quantity("residual", ("layers", "width")),),
    option="residual",
    watch=ResidualRecorder,
)
