"""One thought, routed experts: where the weights of each lie in their module's parameters, and a run of them in which every row's token is known.

A mixture-of-experts layer keeps its experts as stacked parameters behind one call, and hands rows to its activation sorted by
expert. What the stack looks like is found by trying and kept only where a run by that layout gives what the module gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from threading import RLock
from typing import Any, ClassVar, Literal, TypeAlias
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lape.model.scope import eagerly

Point: TypeAlias = Literal["gate", "activation", "product", "output"]
"""What goes into the activation function, the activation, the input of the expert's down projection, or its output before it is weighed."""
Callback: TypeAlias = Callable[[Tensor, Tensor], "Tensor | None"]
"""(rows (n, …), flat token number of each row (n,) int64) -> what takes their place, or None to leave them."""
Called: TypeAlias = Literal["index", "all", "blocks"]


@dataclass(frozen=True)
class Matrix:
    """One projection of every expert: a stacked parameter, (experts, out, in) or, `transposed`, (experts, in, out)."""

    parameter: str
    experts: int
    transposed: bool
    bias: str | None = None

    def weight(self, module: nn.Module, expert: int) -> Tensor:
        """(out, in) weight of one expert, a view."""
        return self.of(module.get_parameter(self.parameter), expert)

    def of(self, stacked: Tensor, expert: int) -> Tensor:
        """The same of a tensor that stands in for the parameter."""
        one = stacked.view(self.experts, -1, stacked.shape[-1])[expert]
        return one.T if self.transposed else one

    def offset(self, module: nn.Module, expert: int) -> Tensor | None:
        """(out,) bias of one expert."""
        return None if self.bias is None else module.get_parameter(self.bias)[expert]

    def run(self, module: nn.Module, expert: int, x: Tensor) -> Tensor:
        """(n, in) -> (n, out)."""
        return F.linear(x, self.weight(module, expert), self.offset(module, expert))


@dataclass(frozen=True)
class Layout:
    """How a module holds its experts and is called."""

    called: Called
    """With (hidden, index of experts, their weights), with (hidden, weights of all experts), or with as many rows for each expert, one
    block after the other.
    """
    experts: int
    width: int
    gate: Matrix
    """The first projection; holds the up projection too unless that is apart or the experts are plain."""
    up: Matrix | None
    down: Matrix
    halves: Literal["plain", "concatenated", "interleaved", "apart"]
    activation: str
    """The activation module within the experts' module, or "_apply_gate", the module's own way from both halves to their product."""
    passing: bool = False
    """Whether experts beyond the last pass on what they are given."""
    neutral: float = 1.0
    """For `_apply_gate`: an up at which the product is the activation (times up, unless that is 0): 1; 0 where 1 is added to up; a
    small number where large ups are capped."""

    @property
    def gated(self) -> bool:
        """Whether the activation is multiplied by an up projection."""
        return self.halves != "plain"

    def split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """What the first projection gave, as gate and up."""
        if self.halves == "interleaved":
            return z[..., ::2], z[..., 1::2]
        return z[..., : self.width], z[..., self.width :]

    def join(self, gate: Tensor, up: Tensor) -> Tensor:
        """The opposite of `split`."""
        if self.halves == "interleaved":
            return torch.stack([gate, up], -1).flatten(-2)
        return torch.cat([gate, up], -1)

    def gate_rows(self, module: nn.Module, expert: int) -> Tensor:
        """(width, hidden) rows of the gate projection of one expert."""
        whole = self.gate.weight(module, expert)
        return whole if self.halves in ("plain", "apart") else self.split(whole.T)[0].T

    def up_rows(self, module: nn.Module, expert: int) -> Tensor | None:
        """(width, hidden) rows of the up projection of one expert, if there is one."""
        if self.up is not None:
            return self.up.weight(module, expert)
        return self.split(self.gate.weight(module, expert).T)[1].T if self.gated else None


class Product:
    """One expert's rows between its projections: the activation, what multiplies it, and their product as the module computes it."""

    def __init__(self, module: Any, layout: Layout, z: Tensor, up: Tensor | None) -> None:
        self._module, self._layout, self._z = module, layout, z
        self._gate, self._up = layout.split(z) if layout.halves in ("concatenated", "interleaved") else (z, up)
        self._activation: Tensor | None = None

    def value(self) -> Tensor:
        """(n, width) input of the down projection."""
        if self._layout.activation == "_apply_gate":
            result: Tensor = self._module._apply_gate(self._z)
            return result
        return self.activation() if self._up is None else self.activation() * self._up

    def activation(self) -> Tensor:
        """(n, width) activation: of the gate alone."""
        if self._activation is None:
            self._activation = activation_of(self._module, self._layout, self._gate)
        return self._activation

    def factor(self) -> Tensor | None:
        """(n, width) what the activation is multiplied by; None in plain experts."""
        if self._layout.activation != "_apply_gate":
            return self._up
        assert self._up is not None  # only gated experts have such a method
        up = self._up.float() if self._up.dtype in (torch.bfloat16, torch.float16) else self._up
        one = torch.ones_like(up)
        return (self._applied(one, up) / activation_of(self._module, self._layout, one)).to(self._up.dtype)

    def _applied(self, gate: Tensor, up: Tensor) -> Tensor:
        result: Tensor = self._module._apply_gate(self._layout.join(gate, up))
        return result


def activation_of(module: Any, layout: Layout, gate: Tensor) -> Tensor:
    """(n, width) what the gate projection gave -> the activation."""
    if layout.activation == "_apply_gate":
        result: Tensor = module._apply_gate(layout.join(gate, torch.full_like(gate, layout.neutral)))
        result = result / layout.neutral if layout.neutral not in (0.0, 1.0) else result
    else:
        result = module.get_submodule(layout.activation)(gate)
    return result


class Runner:
    """Takes the place of a module's forward while something watches or changes its experts; one for each module."""

    _all: ClassVar[WeakKeyDictionary[nn.Module, Runner]] = WeakKeyDictionary()
    _lock: ClassVar[RLock] = RLock()

    def __init__(self, module: nn.Module, layout: Layout) -> None:
        self._module, self.layout = ref(module), layout
        self._callbacks: dict[Point, dict[int, dict[int, Callback]]] = {
            "gate": {},
            "activation": {},
            "product": {},
            "output": {},
        }
        self._attached = 0
        self._before: Any = None
        """A forward that the module itself was given, by what offloads its weights for instance."""

    @classmethod
    def of(cls, module: nn.Module, layout: Layout) -> Runner:
        """The runner of a module."""
        found = cls._all.get(module)
        if found is None or found.layout != layout:
            found = cls._all[module] = cls(module, layout)
        return found

    @classmethod
    def own_forward(cls, module: nn.Module) -> Any:
        """The forward that a module was given in place of its class's, if any, whether or not a runner stands in for it."""
        runner = cls._all.get(module)
        if runner is not None and any(runner._callbacks.values()):
            return runner._before
        return module.__dict__.get("forward")

    def attach(self, point: Point, expert: int, callback: Callback) -> Attached:
        """Call back at every forward, with no rows where no token reached the expert; in order of attaching."""
        module = self._module()
        assert module is not None
        with self._lock:
            if not any(self._callbacks.values()):
                self._before = module.__dict__.get("forward")
                # One expert after the other cannot be one graph; a compiled model calls this as it is.
                module.__dict__["forward"] = eagerly(self.forward)
            self._attached += 1
            self._callbacks[point].setdefault(expert, {})[self._attached] = callback
            return Attached(self, point, expert, self._attached)

    def detach(self, point: Point, expert: int, number: int) -> None:
        """Undo one `attach`."""
        with self._lock:
            here = self._callbacks[point]
            here.get(expert, {}).pop(number, None)
            if not here.get(expert, True):
                del here[expert]
            module = self._module()
            if module is not None and not any(self._callbacks.values()):
                module.__dict__.pop("forward", None)
                if self._before is not None:
                    module.__dict__["forward"] = self._before

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """What the module's own forward gives, up to rounding, with the callbacks' changes."""
        module = self._module()
        assert module is not None
        offload = getattr(module, "_hf_hook", None)  # accelerate's: brings the weights, and takes them away
        if offload is not None:
            args, kwargs = offload.pre_forward(module, *args, **kwargs)
        out = self.run(Arguments.of(args, kwargs))
        return out if offload is None else offload.post_forward(module, out)

    def run(self, given: Arguments) -> Tensor:
        """The module's output, of the shape of the hidden states."""
        module = self._module()
        assert module is not None
        hidden = given.hidden.reshape(-1, given.hidden.shape[-1])
        out = torch.zeros_like(hidden)
        for expert, place, token, weight in self._rows(hidden, given):
            rows = hidden[place]
            if expert < self.layout.experts:
                result = self._expert(module, expert, rows, token)
            elif self.layout.passing:
                result = rows
            else:
                continue
            if weight is not None:
                result = result * weight[:, None]
            out.index_add_(0, place, result.to(out.dtype))
        return out.view(given.hidden.shape)

    def _rows(self, hidden: Tensor, given: Arguments) -> Iterator[tuple[int, Tensor, Tensor, Tensor | None]]:
        """For every expert that has rows or is watched: its rows in `hidden`, their tokens, their weights."""
        watched = {expert for here in self._callbacks.values() for expert in tuple(here)}
        if given.index is None or given.weights is None:
            block = len(hidden) // self.layout.experts
            for expert in range(self.layout.experts):
                part = hidden[expert * block : (expert + 1) * block]
                token = torch.nonzero(part.any(-1))[:, 0]  # what is not for this expert was multiplied by 0
                if len(token) or expert in watched:
                    yield expert, token + expert * block, token, None
            return
        index, weights = given.index.reshape(-1), given.weights.reshape(-1)
        each = given.index.shape[-1]
        order = index.sort(stable=True).indices
        sizes = torch.bincount(index, minlength=self.layout.experts).tolist()
        for expert, part in enumerate(torch.split(order, sizes)):
            if len(part) or expert in watched:
                token = part // each
                yield expert, token, token, weights[part]

    def _expert(self, module: nn.Module, expert: int, rows: Tensor, token: Tensor) -> Tensor:
        layout = self.layout
        up = layout.up.run(module, expert, rows) if layout.up is not None else None
        z = layout.gate.run(module, expert, rows)
        raising = self._callbacks["gate"].get(expert)
        if raising:
            fused = layout.halves in ("concatenated", "interleaved")
            gate, other = layout.split(z) if fused else (z, z)
            gate = _through(raising, gate, token)
            z = layout.join(gate, other) if fused else gate
        product = Product(module, layout, z, up)
        x = product.value()
        watching = self._callbacks["activation"].get(expert)
        if watching:
            before = a = product.activation()
            a = _through(watching, a, token)
            if a is not before:
                factor = product.factor()
                x = torch.where(a == before, x, a if factor is None else a * factor)
        x = _through(self._callbacks["product"].get(expert), x, token)
        return _through(self._callbacks["output"].get(expert), layout.down.run(module, expert, x), token)


def _through(callbacks: Mapping[int, Callback] | None, rows: Tensor, token: Tensor) -> Tensor:
    for callback in tuple((callbacks or {}).values()):
        changed = callback(rows, token)
        rows = rows if changed is None else changed
    return rows


@dataclass(frozen=True)
class Attached:
    """A callback that can be taken away again."""

    runner: Runner
    point: Point
    expert: int
    number: int

    def remove(self) -> None:
        """Take it away."""
        self.runner.detach(self.point, self.expert, self.number)


@dataclass(frozen=True)
class Arguments:
    """What an experts' module is called with."""

    hidden: Tensor
    index: Tensor | None
    weights: Tensor | None

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
        """Told apart by their kinds: the first numbers are the hidden states, the whole numbers the index."""
        tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        floats = [x for x in tensors if x.is_floating_point()]
        index = next((x for x in tensors if x.dtype in (torch.int32, torch.int64) and x.dim() == 2), None)
        if index is not None:
            return cls(floats[0], index, next((x for x in floats[1:] if x.shape == index.shape), None))
        if (
            len(floats) == 2 and floats[1].shape[:-1].numel() == floats[0].shape[:-1].numel()
        ):  # every expert sees every token
            weights = floats[1].reshape(-1, floats[1].shape[-1])
            return cls(floats[0], torch.arange(weights.shape[1], device=weights.device).expand(weights.shape), weights)
        return cls(floats[0], None, None)
