"""Find a model's neurons: discovered by structure, proven by running, and again where what runs there was changed."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakMethod, ref

import torch
from torch import nn

from lape.errors import ModelError, warn
from lape.model.body import each_row_alone, evaluating, is_shared_out, text_config, unwrapped
from lape.model.discover import by_hand, discover
from lape.model.editing import refuse_edited
from lape.model.scope import StandIn, Uncopied
from lape.model.site import SiteNames, Sites
from lape.model.verify import prove
from lape.model.weak_cache import WeakCache


@dataclass(frozen=True)
class _Found:
    """Sites that were proven, and of what."""

    sites: Sites
    names: SiteNames | None
    parts: tuple[str, ...]
    without: tuple[str, ...]
    """Modules of the blocks in which no site was found: one may have been taken out of work for a while."""
    proven_of: tuple[object, ...]


_FOUND: WeakCache[nn.Module, _Found] = WeakCache()


def find(model: nn.Module, names: SiteNames | None = None) -> Sites:
    """Find a model's neurons and prove them by running: once for each model, and again where a module of its MLPs was replaced, got
    another `forward` or a hook since.

    `names`: the sites by hand, for a model whose structure is not recognised; they are proven all the same.

    Raises ModelError, saying what was found and how to name the sites by hand, for a model that cannot be proven.

    Example:
        >>> from lape.model.find import find
        >>> found = find(model)
        >>> found.space
        NeuronSpace(2,800 neurons (2 × 1,400))
        >>> found.sites[1].activation, found.sites[1].down
        ('model.layers.1.mlp.act_fn', 'model.layers.1.mlp.down_proj')
    """
    model = unwrapped(model)
    known = _FOUND.get(model)
    if known is not None and names in (None, known.names):
        if known.proven_of == _ran(model, known.parts, known.without):
            return known.sites
        names = known.names
    if is_shared_out(model):
        raise ModelError(
            f"{type(model).__name__} is split among processes, where its neurons can only be recorded. Load it with device_map instead."
        )
    text_config(model)
    if "decoder_input_ids" in inspect.signature(model.forward).parameters:
        raise ModelError(f"{type(model).__name__} is an encoder-decoder. lape works on decoder-only language models.")
    refuse_edited(
        model,
        "the verification of its neurons"
        if known is None
        else "the verification of its neurons (its MLPs were changed)",
    )
    _FOUND.drop(model)
    with torch.inference_mode(), evaluating(model), each_row_alone(model):
        sites = prove(model, by_hand(model, names) if names else discover(model))
    if known is not None and known.sites.space != sites.space:
        warn(
            f"The model was changed: it has {len(sites.space):,} neurons that can be verified, and had {len(known.sites.space):,} before. "
            "Neurons and statistics from before do not fit it."
        )
    parts, without = tuple(_parts(sites)), tuple(_without(model, sites))
    _FOUND.set(model, _Found(sites, names, parts, without, _ran(model, parts, without)))
    return sites


def _parts(found: Sites) -> Iterator[str]:
    """The names of the decoder blocks, and of all modules on the way from them to what their sites are made of."""
    seen = set()
    for site in found.sites:
        branches = [branch.module for branch in (site.gate, site.up) if branch is not None]
        acting = [site.activation] if site.rule == "activation" else []
        for name in (site.block, *branches, *acting, site.down, *([site.norm] if site.norm else [])):
            keys = name.split(".")
            for depth in range(min(site.block.count(".") + 1, len(keys)), len(keys) + 1):
                part = ".".join(keys[:depth])
                if part not in seen:
                    seen.add(part)
                    yield part


def _without(model: nn.Module, found: Sites) -> Iterator[str]:
    """The names of all modules of blocks without sites, beside those that have some."""
    with_sites = {site.block for site in found.sites}
    for above in dict.fromkeys(block.rpartition(".")[0] for block in with_sites):
        for key, block in model.get_submodule(above).named_children():
            if (name := f"{above}.{key}") not in with_sites:
                yield from (f"{name}.{inner}".rstrip(".") for inner, _ in block.named_modules())


def _ran(model: nn.Module, parts: Iterable[str], without: Iterable[str]) -> tuple[object, ...]:
    return *running(model, parts), *running(model, without, hooks=False)


def running(model: nn.Module, names: Iterable[str], *, hooks: bool = True) -> tuple[object, ...]:
    """What runs at some modules, each named after those above it: the modules, what their forward is, and others' hooks below the first."""
    at: dict[str, Any] = {}
    result: list[object] = []
    for name in names:
        parent, _, own = name.rpartition(".")
        above = at[parent] if parent in at else model.get_submodule(parent)
        at[name] = module = getattr(above, own, None)
        if isinstance(module, nn.Module):
            # many look at what blocks give, and a hook there does not come between neurons and what they write
            result += [ref(module), type(module), type(module).forward, _weakly(StandIn.given(module))]
            result += others_hooks(module) if hooks and parent in at else ()
        else:
            result.append(None)
    return tuple(result)


def others_hooks(module: nn.Module) -> Iterator[int]:
    """The numbers of the hooks that are not ours."""
    for kind in (module._forward_pre_hooks, module._forward_hooks):
        yield from (number for number, hook in kind.items() if not isinstance(hook, Uncopied))


def _weakly(call: Any) -> object:
    """Something that stands for a function, as long as it is there, without keeping it."""
    try:
        return WeakMethod(call) if inspect.ismethod(call) else ref(call)
    except TypeError:
        return id(call)
