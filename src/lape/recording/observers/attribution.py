"""First-order attribution of the loss to each neuron (activation × gradient), by a backward pass over some of the text once it is counted."""

from __future__ import annotations

import torch
from torch import Tensor

from lape.errors import certain
from lape.model.attribution import attribute, check_gradients
from lape.model.loss import find_head
from lape.recording.engine import part_of
from lape.recording.observers.observer import Observer, Setting, unless
from lape.values.quantity import Quantity


def _attributed(setting: Setting) -> dict[str, Tensor]:
    """Begun anew where a run was killed in it, since it takes few tokens. The first shard does it for all."""
    corpus, options = certain(setting.corpus), setting.options  # see what it is refused in
    if part_of(options).number > 1:
        nothing = torch.zeros(len(setting.found.space), dtype=torch.float64)
        return {"attribution": nothing, "attributed": torch.tensor([0])}
    owed, scored = attribute(
        setting.model,
        find_head(setting.model),
        corpus,
        options,
        certain(options.attribution),
        progress=lambda done, of: setting.progress(f"attributing {corpus.language}", done, of),
    )
    return {"attribution": owed, "attributed": torch.tensor([scored])}


OBSERVER = Observer(
    "attribution",
    "The first-order damage to the loss of zeroing each neuron: the sum of −a · ∂NLL/∂a, and over how many tokens.",
    (Quantity("attribution", ("neurons",)), Quantity("attributed", ("one",), torch.int64)),
    option="attribution",
    after=_attributed,
    check=check_gradients,
    refused=unless("ray", "parallel"),
)
