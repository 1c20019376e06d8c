"""How far tuning on a language moved each neuron's weights: see `lape.recording.weight_change`, which compares the checkpoints first."""

from __future__ import annotations

import torch
from torch import Tensor

from lape.errors import certain
from lape.recording.observers.observer import Observer, Setting, unless
from lape.values.quantity import Quantity


def _moved(setting: Setting) -> dict[str, Tensor]:
    """Of the languages whose tuned checkpoints were given."""
    moved = setting.tuned.get(certain(setting.corpus).language)  # see what it is refused in
    return {} if moved is None else {"variation": moved.delta}


OBSERVER = Observer(
    "variation",
    "δ = ‖ΔW‖ / ‖W‖ of each neuron's weights, from a checkpoint that was tuned on the language.",
    (Quantity("variation", ("neurons",), torch.float64, "same"),),
    option="tuned",
    after=_moved,
    refused=unless("ray", "parallel"),
)
