"""What a site's matrices hold."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lape.errors import ModelError
from lape.model.body import body, present, unwrapped
from lape.model.experts import activation_of
from lape.model.numerics import limited
from lape.model.site import FUNCTIONS, Branch, Site, Sites


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


def all_down_norms(model: nn.Module, found: Sites) -> Tensor:
    """`down_norms` of every site of a model, in order: float64 (neurons,), on the CPU."""
    return torch.cat([down_norms(model, site) for site in found.sites])


def keeps_sign(model: nn.Module, site: Site) -> bool:
    """Whether the activation is above 0 exactly where its input is. Fires means activation > 0 in any case."""
    parameter = next(unwrapped(model).get_submodule(site.down).parameters())
    line = torch.linspace(-4, 4, 801, dtype=parameter.dtype if parameter.is_floating_point() else None)
    return bool(((activations(model, site, line) > 0) == (line > 0)).all())


def activations(model: nn.Module, site: Site, z: Tensor) -> Tensor:
    """(n,) inputs of a site's activation function -> (n,) activations, on the CPU, in the number format of the inputs or the model's finer one."""
    module: Any = unwrapped(model).get_submodule(site.down)
    rows = nn.functional.pad(z, (0, -len(z) % site.width)).view(-1, site.width)  # it is the same for every neuron
    rows = rows.to(next(module.parameters()).device)
    if site.layout is not None:
        with present(module):
            a = activation_of(module, site.layout, rows)
    elif site.rule == "activation":
        function: Any = unwrapped(model).get_submodule(site.activation)
        a = function.forward(rows)  # without hooks: an edit may be acting
    else:
        a = FUNCTIONS[site.activation](limited(rows, site.limit, above_only=True))
    return a.detach().flatten()[: len(z)].cpu()


def check_gate(site: Site) -> Branch:
    """What gives the input of a dense site's activation function. Raises ModelError where that is not one projection as it is."""
    if site.gate is None:
        raise ModelError(
            "it is not known what goes into its activation function: more than one projection (an adapter: merge it first), or sites named by hand."
        )
    if not site.gate.plain:
        raise ModelError(f"{site.gate.module} is scaled or clamped before its activation function.")
    return site.gate


_GRID = torch.linspace(-8, 8, 4097, dtype=torch.float64)
_WIDEST = 2.0**20
"""Beyond any pre-activation."""


@torch.inference_mode()
def preactivation(model: nn.Module, site: Site, values: Tensor) -> Tensor:
    """(n,) activations of a site's neurons -> (n,) float64 what goes into the activation function there: where two inputs give a value, the larger.

    Found by bisection, for any activation function that rises from its lowest point on. Raises ModelError for a value that no such input gives.

    Example:
        >>> from lape.model.find import find
        >>> from lape.model.weights import preactivation
        >>> preactivation(model, find(model).sites[0], torch.tensor([0.0, 1.0])).round(decimals=3)
        tensor([0.0000, 1.2780], dtype=torch.float64)
    """
    values = values.double()
    curve = activations(model, site, _GRID)
    lowest = float(_GRID[int((curve == curve.min()).nonzero()[-1])])
    low, high = torch.full_like(values, lowest), torch.full_like(values, float(_GRID[-1]))
    while bool((short := activations(model, site, high) < values).any()) and float(high.max()) < _WIDEST:
        high = torch.where(short, high * 2, high)
    for _ in range(60):
        middle = (low + high) / 2
        below = activations(model, site, middle) < values
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    wrong = short | ((activations(model, site, high) - values).abs() > 1e-3 * values.abs() + 1e-6)
    if bool(wrong.any()):
        raise ModelError(f"no input of its activation function gives {float(values[wrong][0]):.4g}.")
    return high.where(values != 0, high.where(high.abs() > 1e-6, 0.0))


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
