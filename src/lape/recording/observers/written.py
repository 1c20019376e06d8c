"""Sums of the written activation: activation × up, what the down projection reads; in a plain MLP the activation itself."""

from __future__ import annotations

import torch
from torch import Tensor

from lape.model.hooks import at_product
from lape.recording.observers.observer import Observer, Setting
from lape.recording.observers.sums import Sums
from lape.values.quantity import WRITTEN, Quantity


def _sums(x: Tensor) -> Tensor:
    return torch.stack([x.sum(0), x.square().sum(0)])


def _watch(setting: Setting) -> Sums:
    return Sums(setting, WRITTEN, _sums, at_product)


OBSERVER = Observer(
    "written",
    "The sums of the written activation (activation × up, what the down projection reads) and of its square.",
    tuple(Quantity(name, ("neurons",)) for name in WRITTEN),
    option=None,
    watch=_watch,
)
