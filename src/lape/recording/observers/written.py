"""Sums of the written activation: activation × up, what the down projection reads; in a plain MLP the activation itself."""

from __future__ import annotations

from lape.model.hooks import at_product
from lape.recording.adding import moments_of
from lape.recording.observers.observer import Observer, Setting
from lape.recording.observers.sums import Sums
from lape.values.quantity import WRITTEN, Quantity


def _watch(setting: Setting) -> Sums:
    return Sums(setting, WRITTEN, moments_of, at_product)


OBSERVER = Observer(
    "written",
    "The sums of the written activation (activation × up, what the down projection reads) and of its square.",
    tuple(Quantity(name, ("neurons",)) for name in WRITTEN),
    option=None,
    watch=_watch,
)
