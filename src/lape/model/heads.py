"""A model's attention heads: where they write, found by structure and proven by running."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lape.errors import ModelError
from lape.model.body import each_row_alone, evaluating, hidden_states, text_config, tiny_ids, unwrapped
from lape.model.editing import refuse_edited
from lape.model.find import find, running
from lape.model.hooks import hooked
from lape.model.scope import Put
from lape.model.site import Site, Sites
from lape.model.weights import is_linear
from lape.values.heads import HeadSpace
from lape.values.neurons import NeuronSet

_FOUND: WeakKeyDictionary[nn.Module, tuple[tuple[object, ...], Sites]] = WeakKeyDictionary()


def heads(model: nn.Module, which: Iterable[tuple[int, int]]) -> NeuronSet:
    """Attention heads by (layer, head), as the set of their channels, which `Scale`, `Off`, `Set` and `Add` take as they take neurons.

    A head's contribution to the residual stream is its channels times their columns of the output projection, so what is scaled is exact as an adapter too.
    Raises OptionError for a head that is not there, ModelError where a model's heads cannot be proven.

    Example:
        >>> from lape.model.heads import heads
        >>> with lape.edited(model, lape.Scale(heads(model, [(1, 0)]), 2.0)):
        ...     logits = model(**tokenizer("fr02 fr03", return_tensors="pt")).logits
    """
    space = find_heads(model).space
    assert isinstance(space, HeadSpace)  # `find_heads` says so
    found = [space.channels(layer, head) for layer, head in which]
    return NeuronSet(space, torch.cat(found) if found else torch.empty(0, dtype=torch.int64))


def find_heads(model: nn.Module) -> Sites:
    """Where attention heads write: the input of each attention's output projection, its channels by head (`HeadSpace`).

    Proven by running: a change of the last value's last channel arrives in the last channel of the heads that share it, at later tokens too, and in no
    other; a change of the first query arrives in the first head alone, and not at the first token. Layers where that does not hold, such as those whose
    attention is linear, have no heads here, and neither has a block with two attentions. Raises ModelError where no layer has.

    Example:
        >>> from lape.model.heads import find_heads
        >>> found = find_heads(model)
        >>> found.space
        HeadSpace(8 attention heads (128 channels))
        >>> found.sites[1].down
        'model.layers.1.self_attn.o_proj'
    """
    model = unwrapped(model)
    parts = [name for name, module in model.named_modules() if is_linear(module)]
    known = _FOUND.get(model)
    now = running(model, dict.fromkeys(one for name in parts for one in _above(name)))
    if known is not None and known[0] == now:
        return known[1]
    sites = find(model)
    refuse_edited(model, "the verification of its attention heads")
    with torch.inference_mode(), evaluating(model), each_row_alone(model):
        found = _proven(model, sites)
    _FOUND[model] = now, found
    return found


def _above(name: str) -> Iterator[str]:
    keys = name.split(".")
    return (".".join(keys[: depth + 1]) for depth in range(len(keys)))


@dataclass(frozen=True)
class _Attention:
    """What may be the attention of a block, modules by name."""

    layer: int
    block: str
    out: str
    """What may be the output projection."""
    feeding: tuple[str, ...]
    """What runs before it in the block and gives a row for each token, the last first."""


@dataclass(frozen=True)
class _Proof:
    """What running a model showed of an attention."""

    shared: int = 0
    """How many heads share a value; 0 as long as no module was found that gives values."""
    queries: bool = False
    """Whether a module was found that gives queries."""


def _proven(model: nn.Module, sites: Sites) -> Sites:
    given = getattr(text_config(model), "num_attention_heads", None)
    count = given if isinstance(given, int) else 0
    by_layer: dict[int, list[tuple[_Attention, int, int]]] = defaultdict(list)
    if count:
        ids = tiny_ids(model)
        for some in _rounds(_attentions(model, sites, ids, count)):
            inputs = _seen(model, [one.out for one in some], ids)
            for one, proof in zip(some, _proofs(model, some, inputs, ids, count), strict=True):
                if proof.shared and proof.queries:
                    by_layer[one.layer].append((one, inputs[one.out].shape[-1], proof.shared))
    kept = [found[0] for found in by_layer.values() if len(found) == 1]  # of two it could not be said which is meant
    kept.sort(key=lambda one: one[0].layer)
    if not kept:
        raise ModelError(
            f"The attention heads of {type(model).__name__} cannot be proven: expected output projections whose input holds one head after another. "
            "Edit neurons instead."
        )
    space = HeadSpace.laid_out((one.layer, count, width // count) for one, width, _ in kept)
    layers = len({site.layer for site in sites.sites})
    said = (
        f"values arrive in the heads that share them ({kept[0][2]} a value), queries in their own head and not at the first token, in {len(kept)} of "
        f"{layers} layers",
    )
    found = tuple(
        Site(one.layer, None, width, "down input", one.out, None, None, one.out, one.block) for one, width, _ in kept
    )
    return Sites(space, found, sites.packs, said)


def _rounds(attentions: Sequence[_Attention]) -> Iterator[list[_Attention]]:
    """One attention of each block at a time, since what is changed in one is taken out before the next block alone."""
    left = list(attentions)
    while left:
        first = {one.block: one for one in reversed(left)}
        yield [one for one in left if first[one.block] is one]
        left = [one for one in left if first[one.block] is not one]


def _attentions(model: nn.Module, sites: Sites, ids: Tensor, count: int) -> list[_Attention]:
    """Of each block the linear layers outside of its MLPs that run once a forward, and give the residual stream's width from one that heads can share; the last
    first.
    """
    of_mlps = {
        name for site in sites.sites for name in (site.down, *(one.module for one in (site.gate, site.up) if one))
    }
    blocks = {site.layer: site.block for site in sites.sites}
    ran: dict[str, list[str]] = defaultdict(list)
    rows = ids.shape
    handles = []
    for block in dict.fromkeys(blocks.values()):
        for name, module in _whole(block, model.get_submodule(block)):
            if name not in of_mlps:
                handles.append(Put(module.register_forward_hook, _noting(ran[block], name, rows)))
    with hooked(handles):
        hidden_states(model, ids)
    wide = text_config(model).hidden_size
    found = []
    for layer, block in blocks.items():
        for at, name in reversed([*enumerate(ran[block])]):
            module = model.get_submodule(name)
            if is_linear(module) and ran[block].count(name) == 1:
                inner, outer = _shape(module)
                if outer == wide and inner % count == 0:
                    before = dict.fromkeys(reversed(ran[block][:at]))
                    found.append(_Attention(layer, block, name, tuple(before)))
    return found


def _whole(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The linear layers of a module, those with an adapter inside as one, and what else has no parts."""
    parts = [*module.named_children()]
    if is_linear(module) or not parts:
        yield name, module
    else:
        for own, part in parts:
            yield from _whole(f"{name}.{own}", part)


def _noting(ran: list[str], name: str, rows: torch.Size) -> Any:
    def note(_module: nn.Module, _args: Any, out: Any) -> None:
        # some flatten rows and tokens, or keep a place for heads
        lead = tuple(one for one in getattr(out, "shape", ())[:-1] if one > 1)
        if isinstance(out, Tensor) and (out.shape[:2] == rows or lead in (tuple(rows), (rows.numel(),))):
            ran.append(name)

    return note


def _shape(module: nn.Module) -> tuple[int, int]:
    """Of a linear layer, (in, out)."""
    linear: Any = module
    return (linear.nx, linear.nf) if hasattr(linear, "nx") else (linear.in_features, linear.out_features)


def _seen(model: nn.Module, names: Sequence[str], ids: Tensor) -> dict[str, Tensor]:
    """Module -> what goes into it, (rows, tokens, width)."""
    found: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        return lambda _module, args: found.__setitem__(name, args[0].detach().clone())

    with hooked([Put(model.get_submodule(name).register_forward_pre_hook, note(name)) for name in names]):
        hidden_states(model, ids)
    return found


def _proofs(
    model: nn.Module, attentions: Sequence[_Attention], inputs: dict[str, Tensor], ids: Tensor, count: int
) -> list[_Proof]:
    """What running shows of each attention.

    What feeds it is tried one module after another. Of that which gives values, alone or beside queries and keys, the last column is the last channel of the
    last value: changed at the first token, it arrives in the last channel of the heads that share it, at later tokens too, and in no other. Of that which
    gives queries the first column is of the first head: changed, it arrives there alone, and not at the first token, where softmax has one key to choose from
    (but for attention with sinks). What arrives is taken out again, so that later blocks see nothing of it.
    """
    found = [_Proof() for _ in attentions]
    for turn in range(max((len(one.feeding) for one in attentions), default=0)):
        for column in (-1, 0):
            tried = {}
            for one, proof in zip(attentions, found, strict=True):
                if turn < len(one.feeding) and not (proof.queries if column == 0 else proof.shared):
                    tried[one.out] = one.feeding[turn]
            if not tried:
                continue
            arrived: dict[str, Tensor] = {}
            first_only = column == -1
            with (
                _changed(model, tried.values(), ids.shape, column, first_only),
                _taken_out(model, tried, inputs, arrived),
            ):
                hidden_states(model, ids)
            for k, one in enumerate(attentions):
                if one.out in arrived:
                    moved = arrived[one.out] - inputs[one.out]
                    if column:
                        found[k] = replace(found[k], shared=_sharing(moved, count))
                    else:
                        sinks = _has_sinks(model.get_submodule(one.out.rpartition(".")[0]))
                        found[k] = replace(found[k], queries=_is_query(moved, count, sinks))
    return found


def _has_sinks(attention: nn.Module) -> bool:
    """Whether an attention may attend to nothing, so that even the first token has a choice."""
    return any("sink" in name for name, _ in attention.named_parameters(recurse=False))


@contextmanager
def _changed(model: nn.Module, names: Iterable[str], rows: torch.Size, column: int, first_only: bool) -> Iterator[None]:
    """While inside, a column of what some modules give is another, at the first token alone or at all."""

    def put(_module: nn.Module, _args: Any, out: Tensor) -> Tensor:
        other = out.clone(memory_format=torch.contiguous_format)
        where = slice(0, 1) if first_only else slice(None)
        other.view(*rows, -1)[:, where, column] += 1 + out.abs().amax()
        return other

    with hooked([Put(model.get_submodule(name).register_forward_hook, put) for name in names]):
        yield


@contextmanager
def _taken_out(
    model: nn.Module, names: Iterable[str], inputs: dict[str, Tensor], arrived: dict[str, Tensor]
) -> Iterator[None]:
    """While inside, what comes to some modules is kept, and they get what they got before."""

    def swap(name: str) -> Any:
        def put(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            arrived[name] = args[0].detach().clone()
            return (inputs[name], *args[1:])

        return put

    with hooked([Put(model.get_submodule(name).register_forward_pre_hook, swap(name)) for name in names]):
        yield


def _sharing(difference: Tensor, count: int) -> int:
    """How many heads share the value whose last channel was changed at the first token; 0 where that did not arrive in the last channel of each of the last
    heads alone, or not at later tokens.
    """
    later = difference[:, 1:].float().abs().amax((0, 1))
    every = difference.float().abs().amax((0, 1))
    where = (every > 1e-2 * every.max()).nonzero()[:, 0].tolist()  # nothing is, where it is not a number
    width, shared = len(every) // count, len(where)
    expected = [(count - shared + k + 1) * width - 1 for k in range(shared)]
    right = bool(where) and where == expected and count % shared == 0
    return shared if right and bool((later[where] > 1e-5 * every.max()).all()) else 0


def _is_query(difference: Tensor, count: int, sinks: bool) -> bool:
    """Whether the first head alone was changed, most of its channels (others may be dead), and, but for sinks, not at the first token."""
    every, first = difference.float().abs().amax((0, 1)), difference[:, :1].float().abs().max()
    moved = (every > 1e-5 * every.max()).view(count, -1)
    alone = count == 1 or not bool(moved[1:].any())
    return alone and float(moved[0].float().mean()) > 0.5 and (sinks or bool(first <= 1e-5 * every.max()))
