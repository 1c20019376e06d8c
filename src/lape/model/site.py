"""Where a model's neurons can be seen and changed: found by structure (`discover.py`), proven by running (`verify.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from lape.model.experts import Layout
from lape.values.space import NeuronSpace

Rule: TypeAlias = Literal["activation", "down input", "gate output", "experts"]
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "relu_squared": lambda x: F.relu(x).square(),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "mish": F.mish,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
"""Functional activations that are tried where a model has no activation module; the one that fits best is taken."""


@dataclass(frozen=True)
class Branch:
    """`width` outputs of a linear layer, from `offset` on (a fused gate-and-up projection has two branches).

    Example:
        >>> from lape.model.find import find
        >>> find(model).sites[1].up
        Branch(module='model.layers.1.mlp.up_proj', offset=0, plain=True)
    """

    module: str
    offset: int
    plain: bool = True
    """Whether they are used as they are; False where the model scales or clamps them first."""


@dataclass(frozen=True)
class Site:
    """The place where the activations of one stretch of neurons are seen and changed. Modules are dotted names.

    Example:
        >>> from lape.model.find import find
        >>> site = find(model).sites[1]
        >>> site.layer, site.width, site.rule
        (1, 1400, 'activation')
        >>> model.get_submodule(site.reader)
        Linear(in_features=1400, out_features=64, bias=False)
    """

    layer: int
    """The decoder blocks are numbered in the order in which they run."""
    expert: int | None
    """None in a dense MLP."""
    width: int
    """Neurons."""
    rule: Rule
    """What is hooked: an activation module's output, the down projection's input, the gate projection's output, or routed experts."""
    activation: str
    """The activation module, the name of one of `FUNCTIONS`, or the experts' module."""
    gate: Branch | None
    """What goes into the activation; None where it is not known, at experts and sites named by hand."""
    up: Branch | None
    """What the activation is multiplied by; None too in a plain MLP."""
    down: str
    """The down projection, or the experts' module."""
    block: str
    """The decoder block."""
    turn: int = 0
    runs: int = 1
    """Of the `runs` times that the down projection runs in a forward (blocks may share it), the one this site is, from 0 on."""
    activation_turn: int = 0
    activation_runs: int = 1
    """The same for the activation module."""
    layout: Layout | None = None
    """How the experts' module holds them."""
    limit: float | None = None
    """Of an activation computed by a function: the gate is clamped from above by it, up on both sides."""
    plus: float = 0.0
    """And what is added to up."""
    norm: str | None = None
    """The module between the activation (times up) and the down projection, if there is one."""

    @property
    def reader(self) -> str:
        """The module whose input is the activation (times up)."""
        return self.norm or self.down


@dataclass(frozen=True)
class Sites:
    """All sites of a model, in layer order, and what running it proved.

    Example:
        >>> from lape.model.find import find
        >>> found = find(model)
        >>> len(found.sites) == len(found.space.stretches)
        True
        >>> found.checked[0]
        'causal: a later token changes no earlier hidden state'
    """

    space: NeuronSpace
    sites: tuple[Site, ...]
    packs: bool
    """Whether position ids that restart keep documents in one row apart."""
    checked: tuple[str, ...] = ()
    """What was proven, in words, for `lape doctor`."""


@dataclass(frozen=True)
class SiteNames:
    """Sites named by hand, for a model whose structure is not recognised: `*` stands for the layer number.

    Example:
        >>> from lape.model.find import find
        >>> from lape.model.site import SiteNames
        >>> model, tokenizer = lape.load("model", device="cpu")
        >>> find(model, SiteNames("model.layers.*.mlp.act_fn", "model.layers.*.mlp.down_proj")).space
        NeuronSpace(2,800 neurons (2 × 1,400))
    """

    activation: str
    """Module whose output is the activation, such as `model.layers.*.mlp.act_fn`."""
    down: str
    """Linear layer that reads it, such as `model.layers.*.mlp.down_proj`."""


BY_HAND = (
    "If it has such neurons, name them: sites=('model.layers.*.mlp.act_fn', 'model.layers.*.mlp.down_proj'), "
    "or lape.model.find.find(model, SiteNames(activation, down))."
)


def space_of(sites: Iterable[Site]) -> NeuronSpace:
    """The axis over all neurons of some sites, in their order."""
    return NeuronSpace.of((site.layer, site.expert, site.width) for site in sites)
