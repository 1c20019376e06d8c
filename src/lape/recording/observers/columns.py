"""The length of each neuron's column of the down projection: what a written activation of 1 adds to the residual stream."""

from __future__ import annotations

import torch
from torch import Tensor

from lape.model.weights import all_down_norms
from lape.recording.observers.observer import Observer, Setting, unless
from lape.values.quantity import Quantity


def _lengths(setting: Setting) -> dict[str, Tensor]:
    """The same in every language."""
    return {"columns": all_down_norms(setting.model, setting.found).sqrt()}


OBSERVER = Observer(
    "columns",
    "‖w‖ of each neuron's column of the down projection, by which written activations of different layers can be compared.",
    (Quantity("columns", ("neurons",), torch.float64, "same"),),
    after=_lengths,
    refused=unless("ray", "parallel"),
)
