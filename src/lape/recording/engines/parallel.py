"""The engine of a model that tensor parallelism shares out: every process holds some neurons of each layer, and all run the same batches.

What was counted is put together in the order of the processes, as the neurons lie in the whole model; nothing is added.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

from lape.data.windows import batch
from lape.errors import LapeError, ModelError
from lape.model.body import evaluating, hidden_states, is_shared_out, text_config, tiny_ids
from lape.model.find import find
from lape.model.hooks import Rows, at_product, watching
from lape.model.identity import describe
from lape.model.site import Branch, Site, Sites, space_of
from lape.model.skeleton import skeleton_of
from lape.progress import Progress
from lape.recording.engine import RECORDED, Engine, RecordOptions, Work, check_texts
from lape.recording.observers import quantities
from lape.recording.partials import kept
from lape.recording.reader import Reader


def follows(model: nn.Module) -> bool:
    """Whether another process than this is the first of those that share a model."""
    return is_shared_out(model) and distributed.get_rank() > 0


class Parallel(Engine):
    """Counts in all processes at once; the first has the run's folder, and says which languages are done already."""

    def __init__(self, model: Any, tokenizer: Any, options: RecordOptions, *, folder: Path, progress: Progress) -> None:
        self.model, self.options, self._folder, self._progress = model, options, folder, progress
        whole = _told(lambda: _sites_of_whole(model))
        self.space, self.packs = whole.space, whole.packs
        self._found = _own(model, whole)
        self.manifest = describe(model, tokenizer, options.bos)
        self.about = {"engine": {"name": "parallel", "processes": distributed.get_world_size()}}
        self._known: dict[str, dict[str, Tensor]] = {}

    def begin(self, every: Mapping[str, Work]) -> None:
        """Refuse what does not fit the model; hear from the first process what a stopped run had finished."""
        check_texts(self.model, self.options, every)
        for language, work in every.items():
            found = _told(partial(self._finished, work))
            if found is not None:
                self._known[language] = found

    def _finished(self, work: Work) -> dict[str, Tensor] | None:
        """All that is kept of a language but its fingerprints, which every process knows."""
        known = quantities(self.options)
        found = kept(self._folder / f"{work.corpus.language}.recorded", RECORDED, work, self.space, known, known)
        return {name: tensor for name, tensor in found[1].items() if name != "fingerprints"} if found else None

    def count(self, work: Work) -> dict[str, Tensor]:
        """Counts and sums of some batches, of all neurons, in every process."""
        corpus = work.corpus
        if corpus.language in self._known:  # the first process does not ask: it has the file
            return self._known[corpus.language]
        reader = Reader(self.model, self._found, self.options, corpus)
        with reader.attached():
            for some in work.batches:
                reader.read(batch(corpus, some))
                self._progress(f"recording {corpus.language}", reader.tokens, work.tokens)
        self._progress(f"recording {corpus.language}", work.tokens, work.tokens)
        return self._together(reader.result())

    def _together(self, own: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of all processes' neurons, layer by layer in the order of the processes; what has no axis of neurons is the same in all."""
        if self._found.space == self.space:  # each sees all
            return own
        axes = {name: one.axes for name, one in quantities(self.options).items() if "neurons" in one.axes}
        parts = _gathered({name: own[name] for name in axes if name in own})
        spaces = _gathered([stretch.width for stretch in self._found.space])
        result = dict(own)
        for name in parts[0]:
            axis = axes[name].index("neurons")
            pieces = [part[name].split(widths, axis) for part, widths in zip(parts, spaces, strict=True)]
            layers = zip(*pieces, strict=True)
            result[name] = torch.cat([torch.cat(of_layer, axis) for of_layer in layers], axis)
        return result


def _gathered(value: Any) -> list[Any]:
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, value)
    return found


def _told(ask: Callable[[], Any]) -> Any:
    """What the first process finds, in all of them; what it cannot find is raised in all of them."""
    held: list[Any] = [None]
    if distributed.get_rank() == 0:
        try:
            held = [ask()]
        except LapeError as error:
            held = [error]
    distributed.broadcast_object_list(held)
    if isinstance(held[0], Exception):
        raise held[0]
    return held[0]


def _sites_of_whole(model: nn.Module) -> Sites:
    """The sites of the whole model: found and proven in a few whole layers with random weights, and the same in all others."""
    config: Any = model.config
    few = skeleton_of(config, type(model).__name__)
    found = find(few.model)
    first = found.sites[0]
    alike = all(_numbered(site, first.layer) == first for site in found.sites)
    by_itself = first.expert is None and first.runs == 1 and first.norm is None
    if not alike or not by_itself or [site.layer for site in found.sites] != list(range(few.layers)):
        raise ModelError(
            f"The layers of {type(model).__name__} are not all alike, each with one MLP of its own, so its parts in several processes cannot be "
            "put together. Load it with device_map instead."
        )
    sites = tuple(_numbered(first, layer) for layer in range(text_config(model).num_hidden_layers))
    return Sites(space_of(sites), sites, found.packs, found.checked)


def _numbered(site: Site, layer: int) -> Site:
    """The same site of another layer."""

    def name(old: str) -> str:
        return f"{old}.".replace(f".{site.layer}.", f".{layer}.", 1)[:-1]

    def branch(old: Branch | None) -> Branch | None:
        return None if old is None else dataclasses.replace(old, module=name(old.module))

    return dataclasses.replace(
        site,
        layer=layer,
        activation=name(site.activation),
        down=name(site.down),
        block=name(site.block),
        gate=branch(site.gate),
        up=branch(site.up),
    )


def _own(model: nn.Module, whole: Sites) -> Sites:
    """The sites of this process's neurons; all of them where the plan brings activations together. Raises ModelError for any other plan."""
    full = [site.width for site in whole.sites]
    try:
        seen = _seen(model, whole)
    except RuntimeError as error:  # more processes than it has heads of keys and values, for instance
        raise ModelError(
            f"{type(model).__name__} cannot be split among {distributed.get_world_size()} processes ({str(error)[:200]}). Start fewer, "
            "or load it with device_map instead."
        ) from error
    if all(widths == full for widths in _gathered(seen)):
        return whole
    sites = tuple(_share(model, site) for site in whole.sites)
    own = dataclasses.replace(whole, space=space_of(sites), sites=sites)
    every = _gathered(_seen(model, own))
    if [sum(widths) for widths in zip(*every, strict=True)] != full:
        raise ModelError(
            f"The MLPs of {type(model).__name__} are not split neuron by neuron: of {full[0]} in a layer, the processes see "
            f"{[widths[0] for widths in every]}. Load it with device_map instead."
        )
    return own


def _share(model: nn.Module, site: Site) -> Site:
    """What this process holds of a site."""
    weight: Any = model.get_submodule(site.down).weight
    held = weight.to_local().numel() * site.width // weight.numel() if isinstance(weight, DTensor) else site.width

    def branch(old: Branch | None) -> Branch | None:
        return None if old is None else dataclasses.replace(old, offset=old.offset * held // site.width)

    return dataclasses.replace(site, width=held, gate=branch(site.gate), up=branch(site.up))


@torch.inference_mode()
def _seen(model: nn.Module, found: Sites) -> list[int]:
    """How many neurons this process sees at each site; 0 where it is not passed exactly once, as wide as what the down projection reads."""
    activations: list[list[int]] = [[] for _ in found.sites]
    products: list[list[int]] = [[] for _ in found.sites]

    def note(widths: list[list[int]], k: int, seen: Tensor, _rows: Rows) -> None:
        widths[k].append(seen.shape[-1])

    with (
        evaluating(model),
        watching(model, found.sites, partial(note, activations)),
        watching(model, found.sites, partial(note, products), at_product),
    ):
        hidden_states(model, tiny_ids(model))
    pairs = zip(activations, products, strict=True)
    return [a[0] if len(a) == 1 and a == b else 0 for a, b in pairs]
