"""Prove the sites of a model by running it: what is not proven is refused."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lape.errors import ModelError
from lape.sites import (
    BY_HAND,
    FUNCTIONS,
    Branch,
    Site,
    Sites,
    body,
    change,
    close,
    gap,
    hidden_states,
    tiny_ids,
    tolerance,
    watching,
)
from lape.space import NeuronSpace


def prove(model: nn.Module, sites: Sequence[Site]) -> Sites:
    """Check by tiny forwards: the model is causal; every site fires once per layer with its width; a recomputation from
    the weights agrees; switching all neurons off changes the output; undoing restores it bit for bit.

    Raises ModelError naming what failed.
    """
    ids = tiny_ids(model)
    _causal(model, ids)
    seen = _fires_once(model, sites, ids)
    recomputed = _recomputes(model, sites, ids, seen)
    _edits_and_undoes(model, sites, ids)
    checked = (
        "causal: a later token changes no earlier hidden state",
        "every site fires once per forward, with its width",
        f"activations recomputed from the weights agree in {recomputed} of {len(sites)} layers",
        "all neurons off changes the output; undone, it is the same bit for bit",
    )
    space = NeuronSpace.of((site.layer, site.expert, site.width) for site in sites)
    return Sites(space, tuple(sites), _packs(model), checked)


def _causal(model: nn.Module, ids: Tensor) -> None:
    changed = ids.clone()
    changed[:, -1] = ids[:, 0]
    before, after = hidden_states(model, ids)[:, :-1], hidden_states(model, changed)[:, :-1]
    if not close(after, before):
        raise ModelError(
            f"{type(model).__name__} is not causal: changing the last token changed earlier hidden states, as in an encoder. "
            "lape works on decoder-only language models."
        )


def _fires_once(model: nn.Module, sites: Sequence[Site], ids: Tensor) -> list[Tensor]:
    seen: list[list[Tensor]] = [[] for _ in sites]
    with watching(model, sites, lambda k, a: seen[k].append(a.detach().clone())):
        hidden_states(model, ids)
    for site, activations in zip(sites, seen, strict=True):
        rows = [(a.numel() // a.shape[-1], a.shape[-1]) for a in activations]
        if rows != [(ids.numel(), site.width)]:
            raise ModelError(
                f"Layer {site.layer}: {site.activation} gave (rows, width) {rows} for {ids.numel()} tokens. "
                f"Expected it once, with {site.width} columns. {BY_HAND}"
            )
    return [activations[0].flatten(0, -2) for activations in seen]


def _recomputes(model: nn.Module, sites: Sequence[Site], ids: Tensor, seen: list[Tensor]) -> int:
    """Recompute each activation from the gate projection's input and weight. Quantised weights and hand-named sites are passed over."""
    todo = [(site, site.gate, a) for site, a in zip(sites, seen, strict=True) if site.gate is not None]
    inputs: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(gate.module).register_forward_pre_hook(
            lambda _m, args, n=gate.module: inputs.__setitem__(n, args[0].detach().clone())
        )
        for _, gate, _ in todo
    ]
    try:
        hidden_states(model, ids)
    finally:
        for handle in handles:
            handle.remove()
    agreed = 0
    for site, gate, a in todo:
        expected = _activation(model, site, gate, inputs[gate.module].flatten(0, -2))
        if expected is None:
            continue
        if gap(expected, a) > 4 * tolerance(a.dtype):
            raise ModelError(
                f"Layer {site.layer}: {site.activation} does not agree with a recomputation from {gate.module}. {BY_HAND}"
            )
        agreed += 1
    return agreed


def _activation(model: nn.Module, site: Site, gate: Branch, x: Tensor) -> Tensor | None:
    linear = model.get_submodule(gate.module)
    weight = linear.weight
    if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.device.type == "meta":
        return None
    if hasattr(linear, "nx"):  # Conv1D keeps (in, out)
        weight = weight.T
    rows = slice(gate.offset, gate.offset + site.width)
    bias = linear.bias if isinstance(linear.bias, Tensor) else None
    z = F.linear(x.to(weight.device), weight[rows], None if bias is None else bias[rows])
    if site.rule == "activation":
        result: Tensor = model.get_submodule(site.activation)(z)
        return result
    return FUNCTIONS[site.activation](z)


def _edits_and_undoes(model: nn.Module, sites: Sequence[Site], ids: Tensor) -> None:
    before = hidden_states(model, ids)
    handles = [handle for site in sites for handle in change(model, site, torch.zeros_like)]
    try:
        off = hidden_states(model, ids)
    finally:
        for handle in handles:
            handle.remove()
    if torch.equal(off, before):
        raise ModelError(
            f"Switching all neurons of {type(model).__name__} off changed nothing, so these sites have no effect. {BY_HAND}"
        )
    if not torch.equal(hidden_states(model, ids), before):
        raise ModelError(
            f"{type(model).__name__} gives other outputs after an edit was undone; lape needs a model that repeats itself."
        )


def _packs(model: nn.Module) -> bool:
    """Whether a second document in a row, its position ids starting again, reads as if it were alone."""
    if "position_ids" not in inspect.signature(body(model).forward).parameters:
        return False
    ids = tiny_ids(model, 2, 48)
    cuts = (20, 28)  # two rows that are cut at different places
    positions = torch.stack([torch.cat([torch.arange(cut), torch.arange(48 - cut)]) for cut in cuts]).to(ids.device)
    packed = hidden_states(model, ids, position_ids=positions)
    joined = hidden_states(model, ids)
    apart, leaking = 0.0, torch.inf
    for row, cut in enumerate(cuts):
        first, second = hidden_states(model, ids[row : row + 1, :cut]), hidden_states(model, ids[row : row + 1, cut:])
        apart = max(apart, gap(packed[row : row + 1, :cut], first), gap(packed[row : row + 1, cut:], second))
        leaking = min(leaking, gap(joined[row : row + 1, cut:], second))
    return apart < 0.1 * leaking
