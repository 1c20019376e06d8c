"""What a site's matrices hold."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lape.model.body import body, present, unwrapped
from lape.model.experts import activation_of
from lape.model.site import FUNCTIONS, Site


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer: `nn.Linear` and what keeps its attributes (quantised layers), or a `Conv1D`."""
    return hasattr(module, "weight") and (
        (hasattr(module, "in_features") and hasattr(module, "out_features"))
        or (hasattr(module, "nf") and hasattr(module, "nx"))
    )


def has_adapter(linear: nn.Module) -> bool:
    """Whether a linear layer holds parts of its own, such as an adapter's, that add to what its weight gives."""
    return any(True for _ in linear.children())


def down_norms(model: nn.Module, site: Site) -> Tensor:
    """‖column of the down projection‖² of each neuron of a site: float64 (width,), on the CPU."""
    linear: Any = unwrapped(model).get_submodule(site.down)
    if site.layout is not None and site.expert is not None:
        with present(linear):
            return site.layout.down.weight(linear, site.expert).detach().cpu().double().square().sum(0)
    weight: Tensor = linear.weight
    if has_adapter(linear) or not torch.is_floating_point(
        weight
    ):  # 4- and 8-bit layers too: read the matrix by running it
        device = weight.device
        eye = torch.eye(site.width, device=device, dtype=next(body(model).parameters()).dtype)
        columns: Tensor = linear(eye) - linear(torch.zeros_like(eye[:1]))
        return columns.cpu().double().square().sum(1)
    with present(linear):
        weight = linear.weight
        by_column = weight.detach().cpu().double().square()
    return by_column.sum(1 if hasattr(linear, "nx") else 0)


def keeps_sign(model: nn.Module, site: Site) -> bool:
    """Whether the activation is above 0 exactly where its input is. Fires means activation > 0 in any case."""
    parameter = next(unwrapped(model).get_submodule(site.down).parameters())
    line = torch.linspace(-4, 4, 801, device=parameter.device)[:, None].expand(-1, site.width)
    line = line.to(parameter.dtype) if parameter.is_floating_point() else line
    if site.layout is not None:
        a = activation_of(unwrapped(model).get_submodule(site.down), site.layout, line)
    elif site.rule == "activation":
        a = unwrapped(model).get_submodule(site.activation)(line)
    else:
        a = FUNCTIONS[site.activation](line)
    return bool(((a > 0) == (line > 0)).all())


def no_number(model: nn.Module) -> str:
    """Which of the weights are not finite, in words."""
    bad = [
        name
        for name, one in model.named_parameters()
        if one.is_floating_point() and not one.is_meta and not bool(one.detach().float().isfinite().all())
    ]
    if not bad:
        return "its weights are all finite, so its number format may be too narrow (dtype='float32')"
    return (
        f"{len(bad)} of its weights hold NaN or infinite values ({', '.join(bad[:3])}{', …' if len(bad) > 3 else ''}), "
        "so its file is damaged, or its training failed. Load another copy of it, or an earlier one"
    )
