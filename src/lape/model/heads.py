"""A model's attention heads: where they write, found by structure and proven by running."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lape.errors import ModelError
from lape.model.body import evaluating, hidden_states, text_config, tiny_ids, unwrapped
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

    Proven by running: a change of the last value's last channel arrives in the last channel of the heads that share it, and in no other; a change of the
    first query arrives in whole heads. Layers where that does not hold, such as those without attention, have no heads here. Raises ModelError where
    no layer has.

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
    now = running(model, [one for name in parts for one in _above(name)])
    if known is not None and known[0] == now:
        return known[1]
    sites = find(model)
    refuse_edited(model, "the verification of its attention heads")
    with torch.inference_mode(), evaluating(model):
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
    """The output projection."""
    feeding: tuple[str, ...]
    """The linear layers that run before it, the last first."""


def _proven(model: nn.Module, sites: Sites) -> Sites:
    given = getattr(text_config(model), "num_attention_heads", None)
    count = given if isinstance(given, int) else 0
    kept = []
    if count:
        ids = tiny_ids(model)
        attentions = _attentions(model, sites, ids, count)
        inputs = _seen(model, [one.out for one in attentions], ids)
        shares = _shares(model, attentions, inputs, ids, count)
        for one in attentions:
            if one.out in shares:
                width = inputs[one.out].shape[-1]
                site = Site(one.layer, None, width, "down input", one.out, None, None, one.out, one.block)
                kept.append((site, shares[one.out]))
    if not kept:
        raise ModelError(
            f"The attention heads of {type(model).__name__} cannot be proven: expected output projections whose input holds one head after another. "
            "Edit neurons instead."
        )
    space = HeadSpace.laid_out((site.layer, count, site.width // count) for site, _ in kept)
    said = (
        f"values of {len(kept)} of {len(attentions)} attentions arrive in the heads that share them ({kept[0][1]} a value), queries in whole heads",
    )
    return Sites(space, tuple(site for site, _ in kept), sites.packs, said)


def _attentions(model: nn.Module, sites: Sites, ids: Tensor, count: int) -> list[_Attention]:
    """Of each block, the last linear layer outside of its MLPs that gives the residual stream's width, once a forward, from one that heads can share."""
    of_mlps = {
        name for site in sites.sites for name in (site.down, *(one.module for one in (site.gate, site.up) if one))
    }
    blocks = {site.layer: site.block for site in sites.sites}
    ran: dict[str, list[str]] = defaultdict(list)
    handles = []
    for block in dict.fromkeys(blocks.values()):
        for name, module in model.get_submodule(block).named_modules(prefix=block):
            if is_linear(module) and name not in of_mlps:
                handles.append(Put(module.register_forward_hook, _noting(ran[block], name)))
    with hooked(handles):
        wide = hidden_states(model, ids).shape[-1]
    found = []
    for layer, block in blocks.items():
        shapes = {name: _shape(model, name) for name in ran[block]}
        fits = [name for name in ran[block] if shapes[name][1] == wide and shapes[name][0] % count == 0]
        if fits and ran[block].count(fits[-1]) == 1:
            before = ran[block][: ran[block].index(fits[-1])]
            found.append(_Attention(layer, block, fits[-1], tuple(reversed(before))))
    return found


def _noting(ran: list[str], name: str) -> Any:
    return lambda *_: ran.append(name)


def _shape(model: nn.Module, name: str) -> tuple[int, int]:
    """Of a linear layer, (in, out)."""
    linear: Any = model.get_submodule(name)
    return (linear.nx, linear.nf) if hasattr(linear, "nx") else (linear.in_features, linear.out_features)


def _seen(model: nn.Module, names: Sequence[str], ids: Tensor) -> dict[str, Tensor]:
    """Module -> what goes into it, (rows, tokens, width)."""
    found: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        return lambda _module, args: found.__setitem__(name, args[0].detach().clone())

    with hooked([Put(model.get_submodule(name).register_forward_pre_hook, note(name)) for name in names]):
        hidden_states(model, ids)
    return found


def _shares(
    model: nn.Module, attentions: Sequence[_Attention], inputs: dict[str, Tensor], ids: Tensor, count: int
) -> dict[str, int]:
    """Output projection -> how many heads share one value, of those where both proofs hold.

    The layers that feed an attention are tried one after another: the last column of that which gives values, alone or beside queries and keys, is the last
    value's last channel; the first of that which gives queries is of the first query, which changes all that its head says. What arrives is taken out
    again, so that later layers see nothing of it.
    """
    shared: dict[str, int] = {}
    whole: set[str] = set()
    for turn in range(max((len(one.feeding) for one in attentions), default=0)):
        for column in (-1, 0):
            todo = [one for one in attentions if turn < len(one.feeding)]
            tried = {one.out: one.feeding[turn] for one in todo if one.out not in (whole if column == 0 else shared)}
            if not tried:
                continue
            arrived: dict[str, Tensor] = {}
            with _changed(model, tried.values(), column), _taken_out(model, tried, inputs, arrived):
                hidden_states(model, ids)
            for out, after in arrived.items():
                found = _moved(after - inputs[out], 1e-2 if column else 1e-5)
                if column and (sharing := _sharing(found, count)):
                    shared[out] = sharing
                elif not column and _whole(found, count):
                    whole.add(out)
    return {out: sharing for out, sharing in shared.items() if out in whole}


@contextmanager
def _changed(model: nn.Module, names: Iterable[str], column: int) -> Iterator[None]:
    """While inside, a column of what some linear layers give is another."""

    def put(_module: nn.Module, _args: Any, out: Tensor) -> Tensor:
        other = out.clone()
        other[..., column] += 1 + out.abs().amax()
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


def _moved(difference: Tensor, share: float) -> Tensor:
    """(width,) bool: the channels of a difference (..., width) that are larger than a share of the largest."""
    by_channel = difference.float().abs().flatten(0, -2).amax(0)
    return by_channel > share * by_channel.max()  # nothing is, where it is not a number


def _sharing(moved: Tensor, count: int) -> int:
    """How many heads share the value whose last channel was changed; 0 where it did not arrive in the last channel of each of the last heads alone."""
    where, width = moved.nonzero()[:, 0].tolist(), len(moved) // count
    expected = [(count - len(where) + k + 1) * width - 1 for k in range(len(where))]
    return len(where) if where and where == expected and count % len(where) == 0 else 0


def _whole(moved: Tensor, count: int) -> bool:
    """Whether all channels of some heads were changed, the first among them, and none of others."""
    by_head = moved.view(count, -1)
    return bool(by_head[0].all()) and bool((by_head.all(1) == by_head.any(1)).all())
