"""Running a model in float32 for a while, without a second copy of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lape.errors import ModelError
from lape.model.identity import loaded_from, remember

_HALF = (torch.bfloat16, torch.float16)


@contextmanager
def in_float32(model: Any) -> Iterator[None]:
    """While inside, all half-precision weights and buffers are float32; afterwards the very same tensors are back.

    For what is smaller than half precision's rounding, such as the damage of a single neuron. A weight shared by two modules
    stays shared, and the model is still the one that was loaded, in another number format. Takes twice the model's memory on top.
    Raises ModelError for weights that are not there to be converted (quantised, or offloaded).
    """
    loaded = loaded_from(model)
    kept: list[tuple[str, dict[str, Any], Any]] = []
    wide: dict[int, Any] = {}
    for module in model.modules():
        for store in (module._parameters, module._buffers):
            for name, tensor in store.items():
                if tensor is None or not (tensor.dtype in _HALF or tensor.is_meta):
                    continue
                if tensor.is_meta or getattr(model, "is_quantized", False):
                    raise ModelError(
                        "The model's weights are quantised or offloaded, so it cannot run in float32. Load it whole, or leave that part out."
                    )
                kept.append((name, store, tensor))
    try:
        for name, store, tensor in kept:
            if id(tensor) not in wide:
                made = tensor.detach().float()
                is_weight = isinstance(tensor, torch.nn.Parameter)
                wide[id(tensor)] = torch.nn.Parameter(made, requires_grad=tensor.requires_grad) if is_weight else made
            store[name] = wide[id(tensor)]
        if loaded is not None:
            remember(model, *loaded)
        yield
    finally:
        for name, store, tensor in kept:
            store[name] = tensor
        if loaded is not None:
            remember(model, *loaded)
