"""How a mixture of experts is laid out in its module: found by trying, and kept only where a run by the layout gives what the module gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import permutations
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lape.errors import passed_over
from lape.model.experts import Arguments, Called, Layout, Matrix, Product, Runner
from lape.model.numerics import close

_SMALL = 2.0**-8


def layout_of(module: nn.Module, given: Arguments) -> Layout | None:
    """The layout by which a run gives what the module itself gives, for every expert; None where none does."""
    for layout in _layouts(module, _called(given), given.hidden.shape[-1]):
        with passed_over(RuntimeError, IndexError, ValueError, TypeError):
            found = _settled(module, layout, given.hidden.device)
            if found is not None and _runs_the_same(module, found, given):
                return found
    return None


def _called(given: Arguments) -> Called:
    if given.index is None or given.weights is None:
        return "blocks"
    return "all" if given.index.stride(0) == 0 else "index"


def _layouts(module: nn.Module, called: Called, hidden: int) -> Iterator[Layout]:
    activations = [name for name, child in module.named_modules() if name and not any(True for _ in child.parameters())]
    ways = (["_apply_gate"] if hasattr(module, "_apply_gate") else []) + activations
    for gate, up, down, width in _projections(module, hidden):
        halves: list[Literal["plain", "concatenated", "interleaved", "apart"]] = ["concatenated", "interleaved"]
        if up is not None:
            halves = ["apart"]
        elif width == _outputs(module, gate):
            halves = ["plain"]
        for half in halves:
            for way in ways:
                if way == "_apply_gate" and half in ("plain", "apart"):
                    continue
                passing = called == "index" and gate.experts > down.experts
                yield Layout(called, down.experts, width, gate, up, down, half, way, passing)


def _outputs(module: nn.Module, one: Matrix) -> int:
    return one.weight(module, 0).shape[0]


def _projections(module: nn.Module, hidden: int) -> Iterator[tuple[Matrix, Matrix | None, Matrix, int]]:
    """(first projection, up where it is apart, down projection, width) that fit by their shapes."""
    stacked = {name: p for name, p in module.named_parameters() if p.dim() == 3 and p.is_floating_point()}
    flat = {name: p for name, p in module.named_parameters() if p.dim() == 2 and p.is_floating_point()}
    for first, last in permutations(stacked, 2):
        for gate in _oriented(first, stacked[first], hidden, inwards=True):
            for down in _oriented(last, stacked[last], hidden, inwards=False):
                width = down.weight(module, 0).shape[1]
                if _outputs(module, gate) in (width, 2 * width) and gate.experts >= down.experts:
                    yield from _biased(module, gate, down, flat, width)
    for names in permutations(stacked, 3):
        enter, lift, leave = (tuple(stacked[name].shape) for name in names)
        experts, width = enter[0], leave[2]
        if enter == lift == (experts, width, hidden) and leave[:2] == (experts, hidden):
            gate, up, down = (Matrix(name, experts, False) for name in names)
            yield gate, up, down, width
    numbers = {value for value in vars(module).values() if isinstance(value, int) and value > 1}
    for names in permutations(flat, 3):
        shapes = {flat[name].shape for name in names}
        if len(shapes) == 1 and (shape := shapes.pop())[1] == hidden:
            for experts in sorted(number for number in numbers if shape[0] % number == 0):
                gate, up = (Matrix(name, experts, False) for name in names[:2])
                yield gate, up, Matrix(names[2], experts, True), shape[0] // experts


def _oriented(name: str, parameter: Tensor, hidden: int, *, inwards: bool) -> Iterator[Matrix]:
    experts, rows, columns = parameter.shape
    if (columns if inwards else rows) == hidden:
        yield Matrix(name, experts, False)
    if (rows if inwards else columns) == hidden:
        yield Matrix(name, experts, True)


def _biased(
    module: nn.Module, gate: Matrix, down: Matrix, flat: Mapping[str, Tensor], width: int
) -> Iterator[tuple[Matrix, Matrix | None, Matrix, int]]:
    outputs, hidden = _outputs(module, gate), down.weight(module, 0).shape[0]
    firsts = [name for name, p in flat.items() if tuple(p.shape) == (gate.experts, outputs)]
    lasts = [name for name, p in flat.items() if tuple(p.shape) == (down.experts, hidden)]
    for first in [*firsts, None]:
        for last in [*(name for name in lasts if name != first), None]:
            yield replace(gate, bias=first), None, replace(down, bias=last), width


def gives_the_same(module: nn.Module, layout: Layout, given: Arguments) -> bool:
    """Whether made-up rows go through every expert by the layout as they go through the module itself, and what the layout says is
    the activation is one.
    """
    return _settled(module, layout, given.hidden.device) == layout and _runs_the_same(module, layout, given)


def _runs_the_same(module: nn.Module, layout: Layout, given: Arguments) -> bool:
    args = _made_up(layout, given)
    result: Tensor = module(*args)
    return close(Runner(module, layout).forward(*args).view(result.shape), result)


def _made_up(layout: Layout, given: Arguments) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(2023)
    number = max(layout.experts, layout.gate.experts)
    hidden = torch.randn(2 * number, given.hidden.shape[-1], generator=generator)
    hidden = (hidden * given.hidden.float().std().cpu()).to(given.hidden)
    if given.index is None or given.weights is None:
        return (hidden,)
    if layout.called == "all":
        return hidden, torch.rand(2 * number, given.index.shape[-1], generator=generator).to(given.weights)
    each = given.index.shape[-1]
    first = torch.arange(2 * number)[:, None]
    index = ((first + torch.arange(each)) % number).to(given.index)
    weights = torch.rand(index.shape, generator=generator).to(given.weights)
    return hidden, index, weights


def _settled(module: Any, layout: Layout, device: torch.device) -> Layout | None:
    """The layout itself; with `_apply_gate` the layout with its `neutral`, if that way is f(gate) · h(up) with f bent and h straight:
    then the activation is f(gate).
    """
    if layout.activation != "_apply_gate":
        return layout
    line = torch.linspace(-1, 1, 3, device=device)[:, None].expand(3, layout.width)

    def applied(gate: Tensor, up: Tensor) -> Tensor:
        result: Tensor = module._apply_gate(layout.join(gate, up)).float()
        return result

    def bend(out: Tensor) -> float:
        return float((out[0] - 2 * out[1] + out[2]).abs().max())

    one = torch.ones_like(line)
    if bend(applied(line, one)) < 1e-3 or bend(applied(one, line)) > 1e-4:
        return None
    if bool(applied(one, 0 * one).any()):
        layout = replace(layout, neutral=0.0)
    elif not torch.allclose(applied(one, one), 2 * applied(one, one / 2), rtol=1e-5):
        layout = replace(layout, neutral=_SMALL)
    else:
        layout = replace(layout, neutral=1.0)
    generator = torch.Generator().manual_seed(2024)
    gate, up = (torch.randn(16, layout.width, generator=generator).to(device) for _ in range(2))
    product = Product(module, layout, layout.join(gate, up), None)
    factor = product.factor()
    same = factor is not None and torch.allclose(product.activation() * factor, product.value(), rtol=1e-3, atol=1e-4)
    return layout if same else None
