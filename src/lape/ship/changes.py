"""What edits are in weights: which columns of the down projection are scaled, and what the rows of the gate projection become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lape.edit.edit import Add, Edit, Scale, Set, affine, raised_gates
from lape.errors import ModelError, OptionError
from lape.model.site import Branch, Site, Sites
from lape.model.weights import check_gate, has_adapter, preactivation
from lape.ship.constant import Constant
from lape.values.neurons import NeuronSet

AT_RUN_TIME = "Use lape.edited(...) or lape.steer(...) at run time."


@dataclass(frozen=True, eq=False)
class Change:
    """What is done to the neurons of one site. All tensors (width,) float64, on the CPU."""

    site: Site
    keep: Tensor
    """What each activation is multiplied by."""
    held: Tensor
    """The pre-activation at which it is held; NaN where it is not."""
    raised: Tensor
    """What is added to the pre-activation."""
    value: Tensor
    """The activation at which it is held; NaN where it is not."""
    added: Tensor
    """What is added to the activation: only where the bias of the down projection can hold it."""

    @property
    def scales(self) -> bool:
        """Whether any activation is multiplied."""
        return bool((self.keep != 1).any())

    @property
    def at_gate(self) -> bool:
        """Whether anything is done to what the gate projection gives."""
        return bool(self.raised.any()) or not bool(self.held.isnan().all())

    def same(self, other: Change) -> bool:
        """Whether both do the same."""
        pairs = [(getattr(self, name), getattr(other, name)) for name in ("keep", "held", "raised", "added")]
        return all(torch.equal(a.nan_to_num(nan=torch.inf), b.nan_to_num(nan=torch.inf)) for a, b in pairs)


def changes(model: nn.Module, parts: Sequence[tuple[Sites, Sequence[Edit]]], *, biases: bool) -> list[Change]:
    """What edits, as `lape.edit.edit.by_unit` gives them, do to each site that they touch. `biases`: whether what is set or added in a plain MLP may go
    into the bias of its down projection.

    Raises OptionError for what no weights of the gate and down projections can do.
    """
    return [one for found, edits in parts for one in _changes(model, found, edits, biases)]


def _changes(model: nn.Module, found: Sites, edits: Sequence[Edit], biases: bool) -> list[Change]:
    at_activations = affine([edit for edit in edits if not (isinstance(edit, Add) and edit.at == "gate")], found.space)
    raised = raised_gates(model, edits, found)
    result = []
    for position, site in enumerate(found.sites):
        if position not in at_activations and position not in raised:
            continue
        ones = torch.ones(site.width, dtype=torch.float64)
        keep, shift = at_activations.get(position, (ones, torch.zeros_like(ones)))
        up = raised.get(position, torch.zeros_like(ones))
        change = (_biased if biases and _has_bias(model, site) else _change)(model, site, keep, shift, up, edits)
        if change.scales or change.at_gate or bool(change.added.any()):
            result.append(change)
    _refuse_one_depth(model, found, result)
    return result


def _change(model: nn.Module, site: Site, keep: Tensor, shift: Tensor, up: Tensor, edits: Sequence[Edit]) -> Change:
    held, value = torch.full_like(keep, torch.nan), torch.full_like(keep, torch.nan)
    setting = shift != 0
    if site.layout is not None and bool(setting.any()):
        raise OptionError(
            f"What is set or added cannot be written into weights in layer {site.layer}: its neurons are routed experts'. {AT_RUN_TIME}"
        )
    if site.activation == site.down and bool(setting.any()):
        raise OptionError(
            f"What is set or added at attention heads, here of layer {site.layer}, cannot be written into weights. Scale them, or switch them off. "
            f"{AT_RUN_TIME}"
        )
    if bool((setting & (keep != 0)).any()):
        raise OptionError(
            f"Add at the activation cannot be written into weights in layer {site.layer}. Add at the gate instead: "
            f'lape.Add(neurons, value, at="gate"). {AT_RUN_TIME}'
        )
    if bool(setting.any()):
        kind = " and ".join(sorted({type(one).__name__ for one in edits if isinstance(one, (Set, Add))}))
        value[setting] = shift[setting]
        try:
            held[setting] = preactivation(model, site, shift[setting])
        except ModelError as error:
            raise OptionError(
                f"{kind} cannot be written into weights in layer {site.layer}: {error} {AT_RUN_TIME}"
            ) from error
    return Change(
        site, torch.where(setting, 1.0, keep), held, torch.where(setting, 0.0, up), value, torch.zeros_like(keep)
    )


def _biased(_model: nn.Module, site: Site, keep: Tensor, shift: Tensor, up: Tensor, _edits: Sequence[Edit]) -> Change:
    none = torch.full_like(keep, torch.nan)
    return Change(site, keep, none, up, none, shift)


def _has_bias(model: nn.Module, site: Site) -> bool:
    """Whether what is added to an activation is a constant that a bias can hold."""
    plain = site.gate is not None and site.up is None and site.norm is None and site.layout is None
    return plain and getattr(model.get_submodule(site.down), "bias", None) is not None


def _refuse_one_depth(model: nn.Module, found: Sites, todo: Sequence[Change]) -> None:
    """Layers may share their weights: what is done to one of them is then done to all."""
    done = {change.site: change for change in todo}
    first: dict[tuple[int, int | None], Change | None] = {}
    for site in found.sites:
        linear: Any = model.get_submodule(site.down)
        weight = linear.weight if site.layout is None else linear.get_parameter(site.layout.down.parameter)
        here = done.get(site)
        before = first.setdefault((id(weight), site.expert), here)
        if (before is None) != (here is None) or (before and here and not before.same(here)):
            raise OptionError(
                f"Layer {site.layer} shares its weights with another layer, so an edit of one of them alone cannot be written into weights. "
                f"Edit both alike. {AT_RUN_TIME}"
            )


def canonical(parts: Sequence[tuple[Sites, Sequence[Edit]]], todo: Sequence[Change]) -> tuple[list[Edit], list[Edit]]:
    """The same as edits at run time: those that act everywhere, and those that spare the first position of a text."""
    found = [_canonical(sites, [one for one in todo if one.site in sites.sites], edits) for sites, edits in parts]
    return [one for everywhere, _ in found for one in everywhere], [one for _, sparing in found for one in sparing]


def _canonical(found: Sites, todo: Sequence[Change], edits: Sequence[Edit]) -> tuple[list[Edit], list[Edit]]:
    space = found.space
    whole = {name: torch.full((len(space),), one, dtype=torch.float64) for name, one in _NOTHING.items()}
    place = {site: stretch.start for site, stretch in zip(found.sites, space.stretches, strict=True)}
    for change in todo:
        start = place[change.site]
        for name, values in whole.items():
            values[start : start + change.site.width] = getattr(change, name)
    keep, value, added = whole["keep"], whole["value"], whole["added"]
    everywhere: list[Edit] = [
        Scale(NeuronSet(space, (keep == factor).nonzero()[:, 0]), factor)
        for factor in torch.unique(keep).tolist()
        if factor != 1
    ]
    if bool(added.any()):
        everywhere.append(Add(NeuronSet(space, added.nonzero()[:, 0]), added))
    pinned = (~value.isnan()).nonzero()[:, 0]
    sparing: list[Edit] = [Set(NeuronSet(space, pinned), value.nan_to_num())] if len(pinned) else []
    return everywhere, [*sparing, *(edit for edit in edits if isinstance(edit, Add) and edit.at == "gate")]


_NOTHING = {"keep": 1.0, "value": torch.nan, "added": 0.0}
"""What a `Change` does to a neuron that it leaves alone."""


@dataclass(frozen=True, eq=False)
class LowRank:
    """A change of one linear layer's weight: `b` @ `a` is added to it."""

    module: str
    a: Tensor
    """(rank, in) float64."""
    b: Tensor
    """(out, rank) float64."""
    transposed: bool
    """Whether the layer keeps its weight as (in, out)."""


def low_rank(model: nn.Module, todo: Sequence[Change], fitted: Mapping[str, Constant]) -> list[LowRank]:
    """The changes of dense layers as updates of low rank: exact for what is scaled, with the constants that were fitted for the rest.

    Raises OptionError and ModelError for layers that cannot be changed so.
    """
    result: list[LowRank] = []
    seen: set[str] = set()
    for change in todo:
        site = change.site
        if site.down in seen:
            continue  # the same module runs in several layers
        seen.add(site.down)
        if change.at_gate:
            gate = _gate_of(site)
            holds = not bool(change.held.isnan().all())
            linear = (plain_linear if holds else without_adapter)(model, gate.module)
            result.append(_gate(linear, gate, change, fitted[gate.module]))
        if change.scales:
            refuse_norm(site)
            result.append(_columns(plain_linear(model, site.down), site, change))
    return _merged(result)


def _columns(linear: Any, site: Site, change: Change) -> LowRank:
    which = (change.keep != 1).nonzero()[:, 0]
    one_hot = torch.zeros(len(which), site.width, dtype=torch.float64)
    one_hot[torch.arange(len(which)), which] = 1
    return LowRank(site.down, one_hot, matrix(linear)[:, which] * (change.keep[which] - 1), hasattr(linear, "nx"))


def _gate(linear: Any, gate: Branch, change: Change, one: Constant) -> LowRank:
    rows, columns = [], []
    out = linear.nf if hasattr(linear, "nf") else linear.out_features
    if bool(change.raised.any()):
        column = torch.zeros(out, dtype=torch.float64)
        column[gate.offset : gate.offset + len(change.raised)] = change.raised
        rows.append(one.direction[None])
        columns.append(column[:, None])
    which = (~change.held.isnan()).nonzero()[:, 0]
    if len(which):
        at = which + gate.offset
        bias = getattr(linear, "bias", None)
        offset = torch.zeros(len(which), dtype=torch.float64) if bias is None else bias.detach().cpu().double()[at]
        rows.append((change.held[which] - offset)[:, None] * one.direction - matrix(linear)[at] @ one.kept)
        column = torch.zeros(out, len(which), dtype=torch.float64)
        column[at, torch.arange(len(which))] = 1
        columns.append(column)
    return LowRank(gate.module, torch.cat(rows), torch.cat(columns, 1), hasattr(linear, "nx"))


def _merged(parts: Sequence[LowRank]) -> list[LowRank]:
    """One update for each layer, should a layer have several."""
    found: dict[str, LowRank] = {}
    for one in parts:
        before = found.get(one.module)
        both = (
            one
            if before is None
            else LowRank(one.module, torch.cat([before.a, one.a]), torch.cat([before.b, one.b], 1), one.transposed)
        )
        found[one.module] = both
    return list(found.values())


def gates(todo: Sequence[Change]) -> list[str]:
    """The gate projections whose input stands for a constant in some change. Raises OptionError where there is none."""
    return list(dict.fromkeys(_gate_of(change.site).module for change in todo if change.at_gate))


def _gate_of(site: Site) -> Branch:
    why = "its neurons are routed experts'."
    if site.layout is None:
        try:
            return check_gate(site)
        except ModelError as error:
            why = str(error)
    raise OptionError(
        f"What is set, or added at the gate, cannot be written into weights in layer {site.layer}: {why} {AT_RUN_TIME}"
    )


def matrix(linear: Any) -> Tensor:
    """(out, in) float64 weight of a linear layer, on the CPU; of a 4-bit layer, as it computes."""
    weight: Tensor = linear.weight.detach()
    if not weight.is_floating_point():
        eye = torch.eye(
            linear.in_features, device=weight.device, dtype=getattr(linear, "compute_dtype", None) or torch.float32
        )
        bias = getattr(linear, "bias", None)
        with torch.inference_mode():
            columns: Tensor = linear(eye) - (0 if bias is None else bias)
        return columns.detach().cpu().double().T
    weight = weight.cpu().double()
    return weight.T if hasattr(linear, "nx") else weight


def without_adapter(model: nn.Module, name: str) -> Any:
    """A linear layer, whatever its weights. Raises ModelError where it has an adapter."""
    linear: Any = model.get_submodule(name)
    if has_adapter(linear):
        raise ModelError(f"{name} has an adapter. Merge it first: model = model.merge_and_unload().")
    return linear


def plain_linear(model: nn.Module, name: str) -> Any:
    """A linear layer whose weights can be read. Raises ModelError where it has an adapter, lies elsewhere, or is quantised to 8 bits."""
    linear = without_adapter(model, name)
    if linear.weight.device.type == "meta":
        raise ModelError(
            f"{name} is kept on disk or in main memory until it is used. Load the model without offloading to export it."
        )
    if linear.weight.dtype == torch.int8:
        raise ModelError(
            f"{name} is quantised to 8 bits, where what it gives depends on the whole row, so no adapter has the same effect. Load the model "
            "unquantised to export it."
        )
    return linear


def refuse_norm(site: Site) -> None:
    """Raises OptionError where a norm comes between the neurons and their down projection."""
    if site.norm is not None:
        raise OptionError(
            f"{site.norm} stands between the neurons of layer {site.layer} and {site.down}, so no edit of the weights has the same effect. {AT_RUN_TIME}"
        )
