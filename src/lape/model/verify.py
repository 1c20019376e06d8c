"""One thought: prove the sites of a model by running it: what is not proven is refused."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lape.errors import LapeError, ModelError, certain
from lape.model.body import body, hidden_states, present, tiny_ids
from lape.model.expert_layouts import gives_the_same
from lape.model.experts import Arguments, Runner, activation_of
from lape.model.hooks import Rows, at_product, change, hooked, watching
from lape.model.numerics import close, gap, limited, tolerance
from lape.model.scope import Put
from lape.model.site import BY_HAND, FUNCTIONS, Branch, Site, Sites, space_of
from lape.model.weights import has_adapter, no_number


def prove(model: nn.Module, sites: Sequence[Site]) -> Sites:
    """Check by tiny forwards: the model is causal; every site fires once for each token that reaches it, with its width; a
    recomputation from the weights agrees; a changed activation arrives at the down projection; switching the neurons of any
    layer off changes the output; undoing restores it bit for bit.

    Raises ModelError naming what failed.
    """
    ids = tiny_ids(model)
    _causal(model, ids)
    dense = [site for site in sites if site.layout is None]
    routed = [site for site in sites if site.layout is not None]
    seen = _fires_once(model, dense, ids)
    _in_order(model, dense, ids, seen)
    recomputed = _recomputes(model, dense, ids, seen)
    _arrives(model, dense, ids)
    _experts(model, routed, ids)
    one_by_one = not any(
        parameter.is_meta for parameter in model.parameters()
    )  # else all weights are fetched for every forward
    _edits_and_undoes(model, sites, ids, one_by_one=one_by_one)
    which = "any layer" if one_by_one else "all layers at once (some weights are elsewhere until they are used)"
    checked = [
        "causal: a later token changes no earlier hidden state",
        "every activation runs once per forward pass, with its width and a row for each token in order",
        f"switching all neurons of {which} off changes the output; once undone, it is the same bit for bit",
    ]
    if dense:
        checked.insert(
            2, f"activations recomputed from the gate projections agree in {recomputed} of {len(dense)} MLPs"
        )
        checked.insert(3, "changed activations reach the down projection as they should")
    if routed:
        modules = len({site.down for site in routed})
        checked.insert(
            2, f"routed experts ({modules} modules): each row's token and expert, activations and outputs agree"
        )
    return Sites(space_of(sites), tuple(sites), _packs(model), tuple(checked))


def _causal(model: nn.Module, ids: Tensor) -> None:
    changed = ids.clone()
    changed[:, -1] = ids[:, 0]
    before, after = hidden_states(model, ids)[:, :-1], hidden_states(model, changed)[:, :-1]
    if not (before.isfinite().all() and after.isfinite().all()):
        raise ModelError(
            f"{type(model).__name__} gives hidden states that are infinite or not numbers: {no_number(model)}."
        )
    if not close(after, before):
        raise ModelError(
            f"{type(model).__name__} is not causal: changing the last token changed earlier hidden states, as in an encoder. "
            "lape works on decoder-only language models."
        )


def _fires_once(model: nn.Module, sites: Sequence[Site], ids: Tensor) -> list[Tensor]:
    seen: list[list[Tensor]] = [[] for _ in sites]
    with watching(model, sites, lambda k, a, _rows: seen[k].append(a.detach().clone()), isolated=True):
        hidden_states(model, ids)
    for site, activations in zip(sites, seen, strict=True):
        rows = [(a.numel() // a.shape[-1], a.shape[-1]) for a in activations]
        if rows != [(ids.numel(), site.width)]:
            raise ModelError(
                f"Layer {site.layer}: {site.activation} gave (rows, width) {rows} for {ids.numel()} tokens. "
                f"Expected it once, with {site.width} columns. {BY_HAND}"
            )
    return [activations[0].flatten(0, -2) for activations in seen]


def _in_order(model: nn.Module, sites: Sequence[Site], ids: Tensor, seen: Sequence[Tensor]) -> None:
    """The rows of an activation are the tokens in order: changing one sequence's last token changes its row and no other."""
    changed = ids.clone()
    changed[0, -1] = ids[0, 0]
    other = _fires_once(model, sites, changed)
    row = ids.shape[1] - 1
    for site, before, after in zip(sites, seen, other, strict=True):
        rest = torch.arange(len(before)) != row
        if not close(after[rest], before[rest]):
            raise ModelError(
                f"Layer {site.layer}: the rows of {site.activation} are not the tokens of the text in their order. {BY_HAND}"
            )


def _recomputes(model: nn.Module, sites: Sequence[Site], ids: Tensor, seen: list[Tensor]) -> int:
    """Recompute each activation from the gate projection's input and weight, or where they are quantised, elsewhere or have an adapter,
    from what it gives. Hand-named sites are passed over.
    """
    todo = [(site, site.gate, a) for site, a in zip(sites, seen, strict=True) if site.gate is not None]
    inputs: dict[str, list[Tensor]] = defaultdict(list)
    handles = [
        Put(
            model.get_submodule(name).register_forward_pre_hook,
            lambda _m, args, n=name: inputs[n].append(args[0].detach().clone()),
        )
        for name in {gate.module for _, gate, _ in todo}
    ]
    with hooked(model, handles, isolated=True):
        hidden_states(model, ids)
    agreed = 0
    for site, gate, a in todo:
        expected = _activation(model, site, gate, inputs[gate.module][site.turn].flatten(0, -2))
        if expected is None:
            continue
        if gap(expected, a) > 4 * tolerance(a.dtype):
            raise ModelError(
                f"Layer {site.layer}: {site.activation} does not agree with a recomputation from {gate.module}. {BY_HAND}"
            )
        agreed += 1
    return agreed


def _activation(model: nn.Module, site: Site, gate: Branch, x: Tensor) -> Tensor | None:
    if not gate.plain:
        return None
    linear: Any = model.get_submodule(gate.module)
    rows = slice(gate.offset, gate.offset + site.width)
    if _is_plain(linear):
        weight = linear.weight.T if hasattr(linear, "nx") else linear.weight  # Conv1D keeps (in, out)
        bias = linear.bias if isinstance(linear.bias, Tensor) else None
        z = F.linear(x.to(weight.device), weight[rows], None if bias is None else bias[rows])
    else:
        z = linear(x)[..., rows]
    if site.rule == "activation":
        result: Tensor = model.get_submodule(site.activation)(z)
        return result
    return FUNCTIONS[site.activation](limited(z, site.limit, above_only=True))


def _is_plain(linear: Any) -> bool:
    """Whether a linear layer gives what its weight says, and the weight is here."""
    weight = linear.weight
    return (
        isinstance(weight, Tensor)
        and weight.dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16)
        and weight.device.type != "meta"
        and not has_adapter(linear)
    )


def _arrives(model: nn.Module, sites: Sequence[Site], ids: Tensor) -> None:
    """Scale each neuron's activation by a factor of its own: the down projection's input must be scaled by it.

    Where it is known what the activation is multiplied by, one forward shows it for all sites; else one for each.
    """
    acting = [site for site in sites if site.rule == "activation"]
    known = [site for site in acting if site.gate is not None and (site.up is None or site.up.plain)]
    ups = {site.up.module for site in known if site.up is not None}
    outs: dict[str, list[Tensor]] = defaultdict(list)
    handles = [
        Put(model.get_submodule(name).register_forward_hook, lambda _m, _i, out, n=name: outs[n].append(out))
        for name in ups
    ]
    with hooked(model, handles, isolated=True):
        scaled, products = _scaled(model, known, ids)
    for site, a, x in zip(known, scaled, products, strict=True):
        if site.up is not None:
            a = a * outs[site.up.module][site.turn][..., site.up.offset : site.up.offset + site.width].reshape(a.shape)
        _refuse_other(site, a, x)
    for site in acting:
        if site not in known:
            _, (plain,) = _scaled(model, [site], ids, by=0.0)
            _, (product,) = _scaled(model, [site], ids)
            _refuse_other(site, plain * _factors(site).to(plain), product)


def _scaled(model: nn.Module, sites: Sequence[Site], ids: Tensor, by: float = 0.5) -> tuple[list[Tensor], list[Tensor]]:
    """Run with scaled activations: these, and what then enters the down projections, (tokens, width) each."""
    activations: list[Tensor] = [torch.empty(0)] * len(sites)
    products: list[Tensor] = [torch.empty(0)] * len(sites)

    def alter(k: int, a: Tensor, _rows: Rows) -> Tensor:
        changed = a * _factors(sites[k], by).to(a)
        activations[k] = changed.flatten(0, -2)
        return changed

    def keep(k: int, x: Tensor, _rows: Rows) -> None:
        products[k] = x.flatten(0, -2)

    handles = [handle for k, site in enumerate(sites) for handle in change(model, site, partial(alter, k))]
    handles += [handle for k, site in enumerate(sites) for handle in at_product(model, site, partial(keep, k))]
    with hooked(model, handles, isolated=True):
        hidden_states(model, ids)
    return activations, products


def _factors(site: Site, by: float = 0.5) -> Tensor:
    """(width,) a factor for each neuron, at most `by` away from 1."""
    return 1 + by * torch.sin(torch.arange(site.width, dtype=torch.float32))


def _refuse_other(site: Site, expected: Tensor, found: Tensor) -> None:
    if expected.shape != found.shape or gap(found, expected) > 4 * tolerance(expected.dtype):
        raise ModelError(
            f"Layer {site.layer}: what {site.activation} gives does not reach {site.down} as an activation of an MLP does. {BY_HAND}"
        )


def _experts(model: nn.Module, sites: Sequence[Site], ids: Tensor) -> None:
    """A run by each module's layout gives what the module gives; the rows shown for each expert are those of the tokens sent to it,
    and their activations agree with a recomputation from the weights.
    """
    if not sites:
        return
    names = dict.fromkeys(site.down for site in sites)
    layouts = {site.down: site.layout for site in sites}
    for (name, _), (args, kwargs, out) in _experts_calls(model, names, ids).items():
        layout, module = certain(layouts[name]), model.get_submodule(name)
        if not close(Runner(module, layout).forward(*args, **kwargs), out) or not gives_the_same(
            module, layout, Arguments.of(args, kwargs)
        ):
            raise ModelError(f"{name}, its experts run one by one, gives something else. {BY_HAND}")
    shown: dict[int, tuple[Tensor, Tensor]] = {}

    def see(k: int, a: Tensor, rows: Rows) -> None:
        shown[k] = a.detach().clone(), certain(rows)  # experts always say which

    with watching(model, sites, see, isolated=True):
        given = _experts_calls(model, names, ids)
    for k, site in enumerate(sites):
        args, kwargs, _ = given[site.down, site.turn]
        _refuse_expert(model, site, Arguments.of(args, kwargs), *shown[k])


def _experts_calls(
    model: nn.Module, names: Iterable[str], ids: Tensor
) -> dict[tuple[str, int], tuple[Any, Any, Tensor]]:
    """(module, which of its runs) -> its arguments, by position and by name, and what it gave."""
    calls: dict[tuple[str, int], tuple[Any, Any, Tensor]] = {}
    turns: dict[str, int] = defaultdict(int)

    def keep(name: str, _module: nn.Module, args: Any, kwargs: Any, out: Tensor) -> None:
        calls[name, turns[name]] = args, kwargs, out.detach().clone()
        turns[name] += 1

    handles = [
        Put(model.get_submodule(name).register_forward_hook, partial(keep, name), with_kwargs=True) for name in names
    ]
    with hooked(model, handles, isolated=True):
        hidden_states(model, ids)
    return calls


def _refuse_expert(model: nn.Module, site: Site, given: Arguments, a: Tensor, rows: Tensor) -> None:
    layout, expert = certain(site.layout), certain(site.expert)
    hidden = given.hidden.reshape(-1, given.hidden.shape[-1])
    if given.index is not None:
        sent = (given.index == expert).nonzero()[:, 0]
    else:
        hidden = hidden.view(layout.experts, -1, hidden.shape[-1])[expert]
        sent = hidden.any(-1).nonzero()[:, 0]
    if not torch.equal(rows.sort().values, sent.to(rows)):
        raise ModelError(
            f"Layer {site.layer}, expert {expert}: rows of tokens {rows.tolist()[:8]} were shown, but {sent.tolist()[:8]} were sent to it. {BY_HAND}"
        )
    module = model.get_submodule(site.down)
    with present(module):
        z = hidden[rows] @ layout.gate_rows(module, expert).T
        bias = layout.gate.offset(module, expert)
        if bias is not None:
            z = z + (bias if len(bias) == site.width else layout.split(bias)[0])
        expected = activation_of(module, layout, z)
    if len(rows) and gap(expected, a) > 4 * tolerance(a.dtype):
        raise ModelError(
            f"Layer {site.layer}, expert {expert}: its activations do not follow from its rows and weights. {BY_HAND}"
        )


def _edits_and_undoes(model: nn.Module, sites: Sequence[Site], ids: Tensor, *, one_by_one: bool) -> None:
    before = hidden_states(model, ids)
    layers = tuple(dict.fromkeys(site.layer for site in sites))
    for off in ((layer,) for layer in layers) if one_by_one else (layers,):
        here = [site for site in sites if site.layer in off]
        handles = [handle for site in here for handle in change(model, site, lambda a, _rows: torch.zeros_like(a))]
        with hooked(model, handles, isolated=True):
            changed = not torch.equal(hidden_states(model, ids), before)
        if not changed:
            which = f"layer {off[0]}" if one_by_one else "all layers"
            raise ModelError(
                f"Switching all neurons of {which} of {type(model).__name__} off changed nothing, so its sites have no effect. {BY_HAND}"
            )
    if not torch.equal(hidden_states(model, ids), before):
        raise ModelError(
            f"{type(model).__name__} gives other outputs after an edit was undone; lape needs a model that gives the same outputs every time."
        )


def _packs(model: nn.Module) -> bool:
    """Whether a second document in a row, its position ids starting again, reads as if it were alone."""
    if "position_ids" not in inspect.signature(body(model).forward).parameters:
        return False
    try:
        return _apart(model)
    except LapeError:
        raise
    except (TypeError, ValueError, RuntimeError, IndexError):  # position ids of another shape or meaning
        return False


def _apart(model: nn.Module) -> bool:
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
