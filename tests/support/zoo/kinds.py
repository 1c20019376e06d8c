"""How a model type's MLPs are written down: by reading its source, never by asking `lape`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


def gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


def quick_gelu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-1.702 * x))


def relu(x: Tensor) -> Tensor:
    return x * (x > 0)


def relu_squared(x: Tensor) -> Tensor:
    return relu(x) ** 2


Function = Callable[[Tensor], Tensor]
"""What the gate projection gave -> the activation."""
Fire = Callable[[int | None, Tensor, Tensor, Function, Tensor], Tensor]
"""(expert or None, input (rows, hidden), what the gate projection gave (rows, width), its activation function, token numbers (rows,)) -> activation
(rows, width), with what a test does to both."""
Glu = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(what the gate projection gave, what the up projection gave) -> (the activation, what it is multiplied by)."""


@dataclass(frozen=True)
class Mlp:
    """A dense MLP. Names are dotted paths from the causal LM, `{}` the number of the decoder block."""

    gate: str
    """The linear layer (or Conv1D) whose output goes through the activation; fused with `up` where both names are the same."""
    down: str
    up: str | None = None
    """The linear layer whose output multiplies the activation; None in a plain MLP."""
    function: Function = silu
    glu: Glu | None = None
    """Where gate and up go through more than function(gate) · up."""
    layers: Sequence[int] | None = None
    """The blocks that have it; None: all."""


@dataclass(frozen=True)
class Own:
    """A dense MLP that the convention of `Mlp` does not cover, computed by a function of its own."""

    module: str
    """Its module, whose forward is replaced."""
    down: str
    """Its down projection."""
    by_hand: Callable[..., Tensor]
    """(module, fire, call arguments …) -> what the module returns. `fire(None, …)` must be called once for each call of the module."""
    layers: Sequence[int] | None = None


@dataclass(frozen=True)
class Experts:
    """Routed experts: one module, called as (hidden (tokens, hidden), index (tokens, k), weights (tokens, k)) -> (tokens, hidden)."""

    module: str
    function: Function = silu
    glu: Glu | None = None
    layers: Sequence[int] | None = None
    gate_up: str = "gate_up_proj"
    """(experts, 2 · width, hidden) parameter, gate half first; without up half where `gated` is False."""
    down: str = "down_proj"
    """(experts, hidden, width) parameter."""
    gated: bool = True
    transposed: bool = False
    """The parameters are (experts, hidden, 2 · width) and (experts, width, hidden)."""
    interleaved: bool = False
    """gate0, up0, gate1, up1, …"""
    biases: tuple[str, str] | None = None
    """(experts, 2 · width) and (experts, hidden) parameters."""
    number: str = ""
    """The attribute that says how many experts there are, where the down parameter has no such dimension."""
    by_hand: Callable[..., Tensor] | None = None
    """(module, fire, call arguments …) -> what the module returns, where the convention above does not hold. `fire(expert, …)` must be
    called for every expert's rows."""


@dataclass(frozen=True)
class Kind:
    """One model type: how its configuration is shrunk, and its MLPs; or why it has none."""

    config: dict[str, Any] = field(default_factory=dict)
    """Changes of and additions to `tiny.COMMON`; a value of ... leaves the common key out."""
    mlps: tuple[Mlp | Own | Experts, ...] = ()
    """In any order: in which they run is seen when they do."""
    blocks: int = 3
    """How many decoder blocks the shrunk model has."""
    not_applicable: str = ""
    """Why lape has nothing to find: no MLP neurons, or no decoder-only language model."""
    unsupported: str = ""
    """What in transformers' code keeps lape from it; it must then refuse the model."""
    dtype: torch.dtype = torch.float64
    """float32 where the model's own code cannot run in float64."""
    note: str = ""
    """What a reader should know (a part that only looks like an MLP, for instance)."""
