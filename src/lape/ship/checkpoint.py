"""Edits in a model's own weights: a plain checkpoint that any engine serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lape.errors import ModelError, OptionError, certain
from lape.ship.changes import AT_RUN_TIME, Change, LowRank, low_rank, matrix, plain_linear, refuse_norm
from lape.ship.constant import Constant
from lape.ship.format import ExportFormat, Prepared


def updates(model: Any, todo: Sequence[Change], fitted: Mapping[str, Constant]) -> list[LowRank]:
    """The updates of dense layers. Raises OptionError for a model whose weights are not those that it was loaded with."""
    if any(getattr(module, "layers_are_rescaled", False) for module in model.modules()):
        raise OptionError(
            f"{type(model).__name__} divides some of its weights as it first runs, and would divide those of a checkpoint again. "
            f"Write an adapter: format='lora'. {AT_RUN_TIME}"
        )
    return low_rank(model, [change for change in todo if change.site.layout is None], fitted)


def write(prepared: Prepared, folder: Path) -> dict[str, Any]:
    """Write all weights, with those that are changed, and the tokenizer if there is one. The manifest says nothing more of them."""
    model = prepared.model
    type(model).save_pretrained(model, folder, state_dict={**model.state_dict(), **prepared.weights})
    if prepared.tokenizer is not None:
        prepared.tokenizer.save_pretrained(folder)
    return {}


def changed(model: Any, todo: Sequence[Change], found: Sequence[LowRank]) -> dict[str, Tensor]:
    """The parameters that differ, by name."""
    differing: dict[str, Tensor] = {}
    for one in found:
        linear = _unquantised(model, one.module)
        weight = matrix(linear) + one.b @ one.a
        differing[f"{one.module}.weight"] = _like(weight.T if one.transposed else weight, linear.weight)
    for change in todo:
        if bool(change.added.any()):
            refuse_norm(change.site)
            linear = _unquantised(model, change.site.down)
            bias = linear.bias.detach().cpu().double() + matrix(linear) @ change.added
            differing[f"{change.site.down}.bias"] = _like(bias, linear.bias)
    done = set()  # the same experts may run in several layers
    for change in todo:
        key = change.site.down, change.site.expert
        if change.site.layout is not None and change.scales and key not in done:
            done.add(key)
            _scale_expert(model, change, differing)
    return differing


def _scale_expert(model: Any, change: Change, differing: dict[str, Tensor]) -> None:
    """Scale one expert's columns in the stacked down projection."""
    site = change.site
    down, expert = certain(site.layout).down, certain(site.expert)
    name = f"{site.down}.{down.parameter}"
    if name not in differing:
        differing[name] = model.get_parameter(name).detach().clone()
    down.of(differing[name], expert).mul_(change.keep.to(differing[name]))


def _unquantised(model: Any, name: str) -> Any:
    linear = plain_linear(model, name)
    if not linear.weight.is_floating_point():
        raise ModelError(
            f"{name} is quantised; its weights cannot be changed exactly. Load the model unquantised to write a checkpoint, or write an adapter: "
            "format='lora'."
        )
    return linear


def _like(changed: Tensor, weight: Tensor) -> Tensor:
    return changed.to(weight.dtype).to(weight.device).contiguous()


def describe_use(_base: str, _manifest: Mapping[str, Any], name: str) -> str:
    """Say what serves the checkpoint."""
    return f"Any engine that serves the base model serves this folder, `{name}`, in its place."


FORMAT = ExportFormat("exported checkpoint", updates, write, describe_use, find_weights=changed)
