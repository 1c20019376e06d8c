"""Bake edits into weights: a plain checkpoint that any engine can serve."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lape import files
from lape.edit import Edit, Off, Scale, check
from lape.errors import ModelError, OptionError
from lape.sites import Site, Sites, find, unwrapped


def export(
    model: Any, edits: Edit | Sequence[Edit], out: str | Path, *, tokenizer: Any = None, overwrite: bool = False
) -> Path:
    """Write the model with `Off` and `Scale` edits baked into its down projections; the model itself is not changed.

    A neuron's contribution is its activation times its column of the down projection, so scaling the column is exact up to
    the rounding of the weights. `Set` and `Add` have no exact weights and are refused. With `tokenizer`, it is saved too.
    """
    out = Path(out)
    files.refuse_existing(out, overwrite)
    todo = list(edits) if isinstance(edits, Sequence) else [edits]
    found = find(model)
    for one in todo:
        check(one, found.space)
        if not isinstance(one, (Off, Scale)):
            raise OptionError(
                f"{type(one).__name__} cannot be baked into weights; only Off and Scale can. Use lape.edited(...) at run time."
            )
    working = files.partial(out)
    files.fresh(working)
    try:
        with files.writing(working):
            _save(unwrapped(model), found, todo, working)
            if tokenizer is not None:
                tokenizer.save_pretrained(working)
        files.finish(working, out)
    finally:
        shutil.rmtree(working, ignore_errors=True)
    return out


def _save(model: Any, found: Sites, edits: Sequence[Edit], out: Path) -> None:
    state = dict(model.state_dict())
    for position, site in enumerate(found.sites):
        factors = _factors(found, edits, position)
        if bool((factors != 1).any()):
            name = f"{site.down}.weight"
            state[name] = _scaled(model.get_submodule(site.down), site, state[name], factors)
    model.save_pretrained(out, state_dict=state)


def _factors(found: Sites, edits: Sequence[Edit], position: int) -> torch.Tensor:
    """What each neuron of a site is multiplied by."""
    stretch = found.space.stretches[position]
    factors = torch.ones(stretch.width, dtype=torch.float64)
    for one in edits:
        local = found.space.split(one.neurons.flat).get(position)
        if local is not None:
            factors[local] *= one.factor if isinstance(one, Scale) else 0.0
    return factors


def _scaled(linear: nn.Module, site: Site, weight: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    if not weight.is_floating_point():
        raise ModelError(
            f"{site.down} is quantised; its weights cannot be changed exactly. Load the model unquantised to export it."
        )
    by = factors.to(weight.device, weight.dtype)
    return weight * (by[:, None] if hasattr(linear, "nx") else by)
