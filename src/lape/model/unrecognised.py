"""MLPs that a finder did not understand must not be passed over in silence: what a part of a decoder block does gives them away."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lape.errors import told
from lape.model.numerics import close
from lape.model.site import Site
from lape.model.trace import Call, Event, Part, first
from lape.model.weights import is_linear

_log = logging.getLogger("lape")
NONLINEARITIES = frozenset(
    {"silu", "gelu", "relu", "relu_", "leaky_relu", "sigmoid", "sigmoid_", "tanh", "tanh_", "mish", "softplus"}
    | {"elu", "selu", "celu", "glu", "hardswish", "relu6", "expm1"}
)
"""Nonlinearities of torch."""


def overlooked(call: Call, sites: Sequence[Site]) -> Part | None:
    """A part of a block that must be an MLP, by what it does, though no site was found in it."""
    known = {site.down for site in sites} | {b.module for site in sites for b in (site.gate, site.up) if b is not None}
    mixing: list[str] = []
    for part in sorted(call.parts, key=lambda part: part.name.count(".")):
        if any(part.name.startswith(f"{name}.") for name in mixing):
            continue
        if any(part.name == name or part.name.startswith(f"{name}.") for name in known):
            continue
        holds_sites = any(name.startswith(f"{part.name}.") for name in known)
        works = "unknown"
        if not holds_sites and sum(p.dim() > 1 for p in part.module.parameters()) > 1:
            inside = [event for event in call.events if event.name.startswith(f"{part.name}.")]
            works = _works(part, inside) if _bent(inside) else "unknown"
        given, out = first((*part.args, *part.kwargs.values())), first(part.out)
        if works == "mixing tokens":  # what is inside is part of that
            mixing.append(part.name)
        elif _stacks(part.module) or (works == "each token alone" and _width(given) == _width(out) == call.widths[0]):
            return part
    return None


def _stacks(module: nn.Module) -> bool:
    """Whether a module itself holds stacked matrices, as of experts."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d)):
        return False
    return any(p.dim() == 3 and min(p.shape) > 1 for p in module.parameters(recurse=False))


def _bent(events: Sequence[Event]) -> bool:
    """Whether something stands between a part's matrices: one reads neither what the first does nor another's output."""
    inside = [event for event in events if is_linear(event.module)]
    straight = [event.given for event in inside[:1]]
    for event in inside:
        if not any(event.given.numel() == x.numel() and close(event.given, x.view_as(event.given)) for x in straight):
            return True
        straight.append(event.out)
    return not inside


def _width(value: Tensor | None) -> int | None:
    return None if value is None else value.shape[-1]


def _works(part: Part, events: Sequence[Event]) -> Literal["each token alone", "mixing tokens", "unknown"]:
    """Whether other tokens change what a part gives for one. Only where something in it bends is it "each token alone"."""
    given = first((*part.args, *part.kwargs.values()))
    if given is None or not given.is_floating_point() or given.dim() < 2:
        return "unknown"
    axis, most = given.dim() - 2, given.shape[-2] - 1
    if most < 1:
        return "unknown"

    def altered(value: Any) -> Any:
        """With other values at all tokens but the last; keys and values may come beside the hidden states."""
        if not isinstance(value, Tensor) or value.shape != given.shape or not value.is_floating_point():
            return value
        other = value.clone()
        other.narrow(axis, 0, most).copy_(value.narrow(axis, 0, most).flip(-1) + 1)
        return other

    def run(change: Callable[[Any], Any]) -> Tensor | None:
        args = tuple(map(change, part.args))
        kwargs = {name: change(value) for name, value in part.kwargs.items()}
        out = first(part.module(*args, **kwargs))
        return None if out is None else out.flatten(0, -2)[-1]

    listening = _Listening()
    try:
        with listening:
            before = run(lambda value: value)
        after = run(altered)
    except Exception as error:  # whatever a part raises that is run alone
        _log.info("%s could not be run alone, so what it does is unknown: %s", part.name, told(error))
        return "unknown"
    if before is None or after is None:
        return "unknown"
    if not close(after, before):
        return "mixing tokens"
    bends = bool(listening.heard & NONLINEARITIES) or any(
        event.elementwise() for event in events if not is_linear(event.module)
    )
    return "each token alone" if bends else "unknown"


class _Listening(TorchFunctionMode):
    """Hears the names of the torch functions that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.heard.add(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))
