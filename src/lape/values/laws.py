"""What holds of everything that was counted: impossible numbers are refused, wherever they come from."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lape.values.space import NeuronSpace

_NEVER_BELOW_0 = (
    *("tokens", "routed", "fires", "histogram", "attributed"),
    *("square", "positive", "written_square", "variation"),
)


def broken(
    name: str, tensor: Tensor, of: Mapping[str, Tensor], space: NeuronSpace, *, empty: bool = False
) -> str | None:
    """What is impossible in one tensor of a language's statistics, in words; `of`: the others, its axes are right; `empty`: it may be a shard without a token.

    Sums are finite; counts, squares and positive parts are not below 0; in every fold a neuron fires on no more tokens than reached its
    stretch, and no more reach an expert than were counted; an MLP without experts is reached by all.
    """
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        return f"{name} holds values that are infinite or not numbers"
    if name in _NEVER_BELOW_0 and bool((tensor < 0).any()):
        return f"{name} holds values below 0"
    if name == "tokens" and not empty and not bool(tensor.any()):
        return "no token was counted"
    if name == "routed":
        return _routed(tensor, of["tokens"], space)
    if name == "fires":
        more = any(
            bool((fires > space.per_neuron(routed)).any()) for fires, routed in zip(tensor, of["routed"], strict=True)
        )
        return "fires counts more tokens than reached the neuron" if more else None
    if name == "histogram":
        most = space.per_neuron(of["routed"].sum(0))
        return "histogram counts more tokens than reached the neuron" if bool((tensor.sum(1) > most).any()) else None
    return None


def _routed(routed: Tensor, tokens: Tensor, space: NeuronSpace) -> str | None:
    dense = torch.tensor([stretch.expert is None for stretch in space], dtype=torch.bool)
    if bool((routed > tokens[:, None]).any()):
        return "routed counts more tokens than there are"
    if bool((routed[:, dense] != tokens[:, None]).any()):
        return "routed is not the number of tokens where there are no experts"
    return None
