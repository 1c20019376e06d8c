"""Find a model's neurons: discovered by structure, proven by running, once for each model."""

from __future__ import annotations

import inspect
from weakref import WeakKeyDictionary

import torch
from torch import nn

from lape.errors import ModelError
from lape.model.body import each_row_alone, evaluating, is_shared_out, text_config, unwrapped
from lape.model.discover import by_hand, discover
from lape.model.site import SiteNames, Sites
from lape.model.verify import prove

_FOUND: WeakKeyDictionary[nn.Module, Sites] = WeakKeyDictionary()


def find(model: nn.Module, names: SiteNames | None = None) -> Sites:
    """Find a model's neurons and prove them by running. Cached per model.

    Raises ModelError, saying what was found and how to name the sites by hand, for a model that cannot be proven.
    """
    model = unwrapped(model)
    if names is None and model in _FOUND:
        return _FOUND[model]
    if is_shared_out(model):
        raise ModelError(
            f"{type(model).__name__} is shared out among processes, where its neurons can be recorded only. Load it with device_map instead."
        )
    text_config(model)
    if "decoder_input_ids" in inspect.signature(model.forward).parameters:
        raise ModelError(f"{type(model).__name__} is an encoder-decoder. lape works on decoder-only language models.")
    with torch.inference_mode(), evaluating(model), each_row_alone(model):
        found = prove(model, by_hand(model, names) if names else discover(model))
    _FOUND[model] = found
    return found
