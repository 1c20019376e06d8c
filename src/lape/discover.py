"""Find a model's MLP neurons by structure: which tensors do the modules of a decoder block exchange in a tiny forward?

No rule here knows a model by its name. The MLP is the place where the input of a linear layer equals an activation of
another linear layer's output (plain), or that times a third one's output (gated).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lape.errors import ModelError
from lape.sites import (
    BY_HAND,
    FUNCTIONS,
    Branch,
    Site,
    SiteNames,
    body,
    close,
    gap,
    hidden_states,
    is_linear,
    text_config,
    tiny_ids,
    unwrapped,
)


@dataclass
class _Event:
    """One call of a module in the tiny forward."""

    name: str
    module: nn.Module
    given: Tensor
    out: Tensor


def discover(model: nn.Module) -> tuple[Site, ...]:
    """The site of every decoder block. Raises ModelError naming the layers without one."""
    blocks = _blocks(model)
    sites, missing = [], []
    for layer, events in enumerate(blocks):
        site = _site_of(layer, events)
        if site is None:
            missing.append(layer)
        else:
            sites.append(site)
    if missing:
        kinds = sorted({type(event.module).__name__ for layer in missing for event in blocks[layer]})
        raise ModelError(
            f"No MLP neurons were found in layers {_few(missing)} of {type(model).__name__} ({len(blocks)} layers); modules that ran "
            f"there: {', '.join(kinds)}. Expected a linear layer whose input is an activation of another linear layer's output. "
            + BY_HAND
        )
    return tuple(sites)


def _few(layers: Sequence[int]) -> str:
    shown = ", ".join(map(str, layers[:6]))
    return shown + (" …" if len(layers) > 6 else "")


def _blocks(model: nn.Module) -> list[list[_Event]]:
    """The calls of the leaf modules of each decoder block, in order of running."""
    depth = getattr(text_config(model), "num_hidden_layers", None)
    lists = [
        (name, module)
        for name, module in body(model).named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    lists.sort(key=lambda item: item[0].count("."))
    prefix = _prefix(model)
    for name, blocks in lists:
        leaves = {
            f"{prefix}{name}.{i}.{inner}": (i, module)
            for i, block in enumerate(blocks)
            for inner, module in block.named_modules()
            if inner and not any(True for _ in module.children())
        }
        calls = _run_tiny(model, {leaf: module for leaf, (_, module) in leaves.items()})
        grouped: list[list[_Event]] = [[] for _ in blocks]
        for event in calls:
            grouped[leaves[event.name][0]].append(event)
        if all(grouped):
            return grouped
    raise ModelError(
        f"{type(model).__name__} has no list of {depth} decoder blocks that run when it reads text, so no MLP neurons were found. "
        + BY_HAND
    )


def _prefix(model: nn.Module) -> str:
    """The dotted path from the model to its body."""
    inner = body(model)
    return next(
        (f"{name}." if name else "" for name, module in unwrapped(model).named_modules() if module is inner), ""
    )


def _run_tiny(model: nn.Module, modules: dict[str, nn.Module]) -> list[_Event]:
    events: list[_Event] = []

    def note(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        given = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), None)
        if given is not None and isinstance(out, Tensor) and given.is_floating_point():
            events.append(_Event(name, module, given.detach().clone(), out.detach().clone()))

    handles = [module.register_forward_hook(partial(note, name), with_kwargs=True) for name, module in modules.items()]
    try:
        hidden_states(model, tiny_ids(model))
    finally:
        for handle in handles:
            handle.remove()
    return events


def _site_of(layer: int, events: list[_Event]) -> Site | None:
    """The MLP of one block: the last linear layer whose input is explained by one of the three rules."""
    for position in range(len(events) - 1, -1, -1):
        down = events[position]
        if is_linear(down.module):
            site = _explain(layer, down, events[:position])
            if site is not None:
                return site
    return None


def _explain(layer: int, down: _Event, earlier: list[_Event]) -> Site | None:
    x = down.given.flatten(0, -2)
    width = x.shape[-1]
    branches = list(_branches(earlier, width, len(x)))
    by_module = [
        (event, branch)
        for event in earlier
        if not is_linear(event.module) and event.out.shape[-1] == width
        for branch, value in branches
        if close(event.given.flatten(0, -2), value) and _elementwise(event)
    ]
    for event, gate in by_module:
        a = event.out.flatten(0, -2)
        if close(a, x):
            return Site(layer, None, width, "activation", event.name, gate, None, down.name)
        for up, u in branches:
            if up != gate and close(a * u, x):
                return Site(layer, None, width, "activation", event.name, gate, up, down.name)
    return _explain_by_function(layer, down.name, x, branches)


def _explain_by_function(layer: int, down: str, x: Tensor, branches: list[tuple[Branch, Tensor]]) -> Site | None:
    """No activation module fits: try `x == f(gate)` and `x == f(gate) · up`, and keep the closest."""
    tried: list[tuple[float, Site]] = []
    width = x.shape[-1]
    for name, function in FUNCTIONS.items():
        for gate, value in branches:
            a = function(value)
            if close(a, x):
                tried.append((gap(a, x), Site(layer, None, width, "down input", name, gate, None, down)))
            tried += [
                (gap(a * u, x), Site(layer, None, width, "gate output", name, gate, up, down))
                for up, u in branches
                if up != gate and close(a * u, x)
            ]
    return min(tried, key=lambda item: item[0])[1] if tried else None


def _branches(events: list[_Event], width: int, rows: int) -> Iterator[tuple[Branch, Tensor]]:
    for event in events:
        if is_linear(event.module) and event.out.shape[-1] in (width, 2 * width):
            out = event.out.flatten(0, -2)
            for offset in range(0, out.shape[-1], width):
                if len(out) == rows:
                    yield Branch(event.name, offset), out[:, offset : offset + width]


def _elementwise(event: _Event) -> bool:
    """Whether a module acts on each number alone, and does something: true of activations, not of norms or dropout."""
    if event.given.shape != event.out.shape or torch.equal(event.given, event.out):
        return False
    with suppress(RuntimeError, ValueError, TypeError):
        part = event.module(event.given[..., :1])
        return isinstance(part, Tensor) and part.shape == event.out[..., :1].shape and close(part, event.out[..., :1])
    return False


def by_hand(model: nn.Module, names: SiteNames) -> tuple[Site, ...]:
    """The sites that a user named."""
    modules = dict(unwrapped(model).named_modules())
    activations = [name for name in modules if fnmatchcase(name, names.activation)]
    downs = [name for name in modules if fnmatchcase(name, names.down)]
    if not activations or len(activations) != len(downs):
        raise ModelError(
            f"{names.activation!r} names {len(activations)} modules and {names.down!r} names {len(downs)}; expected as many of each, one per layer."
        )
    return tuple(
        Site(
            _layer(activation, names.activation),
            None,
            _width_in(modules[down]),
            "activation",
            activation,
            None,
            None,
            down,
        )
        for activation, down in zip(activations, downs, strict=True)
    )


def _layer(name: str, pattern: str) -> int:
    """The number that `*` stands for."""
    part = next((a for a, b in zip(name.split("."), pattern.split("."), strict=False) if a != b), "")
    if not part.isdigit():
        raise ModelError(
            f"{name} shows no layer number where {pattern} has *. Expected names such as model.layers.*.mlp.act_fn."
        )
    return int(part)


def _width_in(linear: nn.Module) -> int:
    if not is_linear(linear):
        raise ModelError(
            f"{type(linear).__name__} is not a linear layer; expected the down projection that reads the activation."
        )
    return int(getattr(linear, "in_features", None) or linear.nx)  # type: ignore[arg-type]
