"""One thought: find a model's MLP neurons by structure: which tensors do the modules of a decoder block exchange in a tiny forward?

No rule here knows a model by its name. An MLP is the place where the input of a linear layer equals an activation of another
linear layer's output (plain), or that times a third one's output (gated), or a call with routed experts. Whatever else in a block
works on each token alone, bends and holds two matrices is an MLP that was not understood, and the model is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn

from lape.errors import ModelError
from lape.model.body import unwrapped
from lape.model.expert_layouts import layout_of
from lape.model.experts import Arguments
from lape.model.numerics import close, gap, limited
from lape.model.site import BY_HAND, FUNCTIONS, Branch, Site, SiteNames
from lape.model.trace import Call, Event, Part, Trace, called, traced
from lape.model.unrecognised import overlooked
from lape.model.weights import is_linear


def discover(model: nn.Module) -> tuple[Site, ...]:
    """Every site of every decoder block, in the order in which they run. Raises ModelError for a model that is not understood."""
    trace = traced(model)
    ran = [(call, _sites_of(model, call)) for call in trace.calls]
    owners = {call.owner for call, sites in ran if sites}
    kept = [(call, sites) for call, sites in ran if call.owner in owners]
    for layer, (call, sites) in enumerate(kept or ran):
        unknown = overlooked(call, sites)
        if unknown:
            raise ModelError(
                f"Layer {layer} of {type(model).__name__}: {unknown.name} ({type(unknown.module).__name__}) works on each token alone and holds several "
                f"matrices, as an MLP does, but lape does not see where its neurons are. {BY_HAND}"
            )
    if not kept:
        raise ModelError(_nothing_found(model, trace.calls))
    return tuple(_placed(site, layer, trace) for layer, (_, sites) in enumerate(kept) for site in sites)


def _nothing_found(model: nn.Module, ran: Sequence[Call]) -> str:
    if not ran:
        return f"{type(model).__name__} has no list of decoder blocks that run when it reads text, so no MLP neurons were found. {BY_HAND}"
    kinds = sorted({type(event.module).__name__ for call in ran for event in call.events})
    return (
        f"No MLP neurons were found in {type(model).__name__} ({len(ran)} layers); modules that ran there: {', '.join(kinds)}. "
        f"Expected a linear layer whose input is an activation of another linear layer's output. {BY_HAND}"
    )


def _placed(site: Site, layer: int, trace: Trace) -> Site:
    """A site with its layer, and with how often its modules run in a forward."""
    if site.layout is not None:
        return replace(site, layer=layer, runs=trace.runs[called(site.down)])
    runs, activation_runs = trace.runs[site.down], trace.runs.get(site.activation, 1)
    return replace(site, layer=layer, runs=runs, activation_runs=activation_runs)


def _sites_of(model: nn.Module, call: Call) -> list[Site]:
    """The MLPs of one run of a block, in the order in which they run."""
    found: list[tuple[int, list[Site]]] = []
    for position, down in enumerate(call.events):
        if is_linear(down.module) and down.out.shape[-1] in call.widths and down.given.dim() > 1:
            site = _mlp(call.block, down, call.events[:position], _numbers(model, down.name))
            if site is not None:
                found.append((down.when, [site]))
    found += [(part.when, _experts(call.block, part)) for part in call.parts if _holds_experts(part.module)]
    return [site for _, sites in sorted(found, key=lambda item: item[0]) for site in sites]


def _numbers(model: nn.Module, name: str) -> list[float]:
    """The numbers that the module around a linear layer holds: a limit may be among them."""
    around = unwrapped(model).get_submodule(name.rpartition(".")[0])
    values = (value for value in vars(around).values() if isinstance(value, (int, float)))
    return sorted({float(value) for value in values if not isinstance(value, bool) and value > 0})


def _holds_experts(module: nn.Module) -> bool:
    """Whether a module could hold routed experts: stacked parameters and no linear layers."""
    matrices = [p for p in module.parameters() if p.dim() > 1]
    return len(matrices) > 1 and not any(is_linear(part) or isinstance(part, nn.Embedding) for part in module.modules())


def _experts(block: str, part: Part) -> list[Site]:
    name = part.name
    with suppress(IndexError):
        layout = layout_of(part.module, Arguments.of(part.args, part.kwargs))
        if layout is not None:
            return [
                Site(0, k, layout.width, "experts", name, None, None, name, block, turn=part.turn, layout=layout)
                for k in range(layout.experts)
            ]
    return []


def _mlp(block: str, down: Event, earlier: list[Event], numbers: Sequence[float]) -> Site | None:
    """The MLP that ends in a linear layer, if one does: directly, or with a norm before it."""
    site = _explain(block, down, down.given, earlier, numbers)
    if site is not None:
        return site
    for position, event in enumerate(earlier):
        if not is_linear(event.module) and event.out.shape == down.given.shape and close(event.out, down.given):
            site = _explain(block, down, event.given, earlier[:position], numbers)
            if site is not None:
                return replace(site, norm=event.name)
    return None


def _explain(block: str, down: Event, given: Tensor, earlier: list[Event], numbers: Sequence[float]) -> Site | None:
    """What makes `given`: an activation (times up) of an activation module, or of a function, or one whose gate is more than a projection."""
    x = given.flatten(0, -2)
    width = x.shape[-1]
    branches = list(_branches(earlier, width, len(x)))
    acting = [
        event
        for event in earlier
        if not is_linear(event.module)
        and event.out.shape[-1] == width
        and event.out.numel() == x.numel()
        and event.given.shape == event.out.shape
    ]

    def site(event: Event, gate: Branch | None, up: Branch | None) -> Site:
        found = Site(0, None, width, "activation", event.name, gate, up, down.name, block, turn=down.turn)
        return replace(found, activation_turn=event.turn)

    for event in acting:
        gate = _source(event.given.flatten(0, -2), branches, numbers)
        if gate is not None and event.elementwise():
            up = _product(event.out.flatten(0, -2), x, _without(branches, gate), numbers)
            if up is not None:
                return site(event, gate, up or None)
    functional = _explain_by_function(block, down, x, branches, numbers)
    if functional is not None:
        return functional
    sums = _with_adapters(branches)
    for event in acting:
        a = event.out.flatten(0, -2)
        if event.elementwise() and (
            _product(a, x, [*branches, *sums], numbers)
            or (_source(event.given.flatten(0, -2), sums, ()) and close(a, x))
        ):
            return site(event, None, None)
    return None


def _without(branches: Sequence[tuple[Branch, Tensor]], one: Branch) -> list[tuple[Branch, Tensor]]:
    return [(branch, u) for branch, u in branches if (branch.module, branch.offset) != (one.module, one.offset)]


def _source(value: Tensor, branches: Sequence[tuple[Branch, Tensor]], numbers: Sequence[float]) -> Branch | None:
    """The projection that gave a value, as it is, with each column scaled, or clamped by one of the numbers."""
    for branch, z in branches:
        if close(value, z):
            return branch
    for branch, z in branches:
        if close(value, z * _scale(value, z)) or any(close(value, z.clamp(max=limit)) for limit in numbers):
            return replace(branch, plain=False)
    return None


def _scale(value: Tensor, z: Tensor) -> Tensor:
    """(columns,) the factor of each column that brings z nearest to a value."""
    return (value * z).sum(0) / z.square().sum(0).clamp_min(torch.finfo(z.dtype).tiny)


def _product(
    a: Tensor, x: Tensor, ups: Sequence[tuple[Branch, Tensor]], numbers: Sequence[float]
) -> Branch | Literal[False] | None:
    """What the activation is multiplied by to give x: a projection as it is, scaled or clamped; False where nothing is; None where
    none of that does.
    """
    if close(a, x):
        return False
    for branch, u in ups:
        if close(a * u.to(a.dtype), x):
            return branch
    for branch, u in ups:
        product = a * u.to(a.dtype)
        clamped = (a * u.clamp(-limit, limit).to(a.dtype) for limit in numbers)
        if close(product * _scale(x.to(a.dtype), product), x) or any(close(one, x) for one in clamped):
            return replace(branch, plain=False)
    return None


def _explain_by_function(
    block: str, down: Event, x: Tensor, branches: Sequence[tuple[Branch, Tensor]], numbers: Sequence[float]
) -> Site | None:
    """No activation module fits: try `x == f(gate)` and `x == f(gate) · up`, also with both clamped and 1 added to up, and keep the closest."""
    tried: list[tuple[float, Site]] = []
    width = x.shape[-1]
    for name, function in FUNCTIONS.items():
        for gate, value in branches:
            a = function(value)
            if close(a, x):
                site = Site(0, None, width, "down input", name, gate, None, down.name, block, turn=down.turn)
                tried.append((gap(a, x), site))
    ways = [(None, 0.0), *((limit, plus) for limit in numbers for plus in (0.0, 1.0)), (None, 1.0)]
    for limit, plus in ways:
        for name, function in FUNCTIONS.items():
            for gate, value in branches:
                a = function(limited(value, limit, above_only=True))
                for up, u in _without(branches, gate):
                    product = a * (limited(u, limit) + plus)
                    if close(product, x):
                        site = Site(0, None, width, "gate output", name, gate, up, down.name, block, turn=down.turn)
                        tried.append((gap(product, x), replace(site, limit=limit, plus=plus)))
        if tried:
            break
    return min(tried, key=lambda item: item[0])[1] if tried else None


def _with_adapters(branches: Sequence[tuple[Branch, Tensor]]) -> list[tuple[Branch, Tensor]]:
    """The sums of two projections of the same columns, such as of a projection and its adapter."""
    return [
        (first, one + other)
        for (first, one), (second, other) in combinations(branches, 2)
        if first.offset == second.offset and first.module != second.module
    ]


def _branches(events: list[Event], width: int, rows: int) -> Iterator[tuple[Branch, Tensor]]:
    for event in events:
        if is_linear(event.module) and event.out.shape[-1] in (width, 2 * width):
            out = event.out.flatten(0, -2)
            for offset in range(0, out.shape[-1], width):
                if len(out) == rows:
                    yield Branch(event.name, offset), out[:, offset : offset + width]


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
            _block_of(activation, names.activation),
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


def _block_of(name: str, pattern: str) -> str:
    """The part of a name up to the number that `*` stands for."""
    return ".".join(name.split(".")[: pattern.split(".").index("*") + 1]) if "*" in pattern.split(".") else name
