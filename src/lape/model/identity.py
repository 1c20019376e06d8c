"""One thought, which model this is: what it says of itself in results, and whether results were made with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lape.data.corpus import bos_id
from lape.model.body import each_row_alone, evaluating, hidden_states, present, tiny_ids, unwrapped
from lape.model.configuration import adapters, computing, number_format
from lape.model.find import find, others_hooks, running
from lape.model.heads import find_heads
from lape.model.scope import unhooked
from lape.model.tokenizer import told_of
from lape.model.weak_cache import WeakCache
from lape.store.shards import check_whole
from lape.values.heads import HeadSpace
from lape.values.same import Made, Running, check_same_model, manifest_of, packed, space_of
from lape.values.space import NeuronSpace

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_HASH_BYTES = 64 * 2**20


def checksum(model: nn.Module) -> str:
    """SHA-256 over the bits, dtype, shape and name of every parameter and of every buffer that is saved: one changed weight changes it.

    Of a quantised model, over its scales too, as they lie after it ran once: bitsandbytes lays weights out anew for the machine it runs on.
    64 hexadecimal digits, kept until a parameter or buffer changes; a change of a few numbers through `.data` may not be noticed.

    Example:
        >>> from lape.model.identity import checksum
        >>> before = checksum(model)
        >>> with lape.edited(model, lape.Off(neurons["fr"])):
        ...     checksum(model) == before
        True
    """
    return _known(unwrapped(model)).checksum


def _checksum(inner: nn.Module) -> str:
    held = _quantised(inner) if getattr(inner, "is_quantized", False) else _saved(inner)
    named = sorted(held, key=lambda item: item[0])
    whole = hashlib.sha256()
    # weights that are elsewhere are brought one at a time, in the same order in every process that holds a part
    away = any(parameter.device.type == "meta" or isinstance(parameter, DTensor) for _, parameter in named)
    with ThreadPoolExecutor(1 if away else None) as pool:
        digests = pool.map(lambda item: _digest_of(inner, *item), named)
        for (name, parameter), digest in zip(named, digests, strict=True):
            whole.update(f"{name} {parameter.dtype} {tuple(parameter.shape)} {digest}\n".encode())
    return whole.hexdigest()


def _saved(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters, and the buffers that belong to a checkpoint. Others follow from the configuration, and may differ in their last bits
    from machine to machine: `_probe` tells where they were changed.
    """
    yield from model.named_parameters()
    for name, module in model.named_modules():
        for key, value in module._buffers.items():
            if value is not None and key not in module._non_persistent_buffers_set:
                yield f"{name}.{key}" if name else key, value


def _quantised(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that a quantised model holds, scales included."""
    _unedited(model)
    for name, module in model.named_modules():
        held: dict[str, Any] = {}
        scales = getattr(getattr(module, "weight", None), "quant_state", None)
        if scales is None:
            module._save_to_state_dict(held, "", keep_vars=False)
        else:  # its own way of saving would spoil the layout it runs with
            held = dict(module.named_parameters(recurse=False)) | scales.as_dict(packed=True)
        yield from ((f"{name}.{key}", value) for key, value in held.items() if isinstance(value, Tensor))


def _digest_of(model: nn.Module, name: str, parameter: Tensor) -> str:
    if parameter.device.type != "meta":
        return _digest(parameter)
    module, _, own = name.rpartition(".")
    with present(model.get_submodule(module)):
        return _digest(getattr(model.get_submodule(module), own))


def _digest(parameter: Tensor) -> str:
    digest = hashlib.sha256()
    if isinstance(parameter, DTensor):
        parameter = parameter.full_tensor()
    flat = parameter.detach().reshape(-1)
    step = max(1, _HASH_BYTES // flat.element_size())
    for at in range(0, len(flat), step):
        digest.update(flat[at : at + step].cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True)
class _Known:
    """What reading all weights and running them told, and by what it is seen that they are still the same, and run in the same way."""

    signature: str | None
    checksum: str
    probe: str | None
    runs: tuple[object, ...]
    hooks: tuple[object, ...]


@dataclass(frozen=True)
class _Source:
    """From where a model was loaded, as long as its weights are those."""

    signature: str | None
    path: str | None
    content: str | None
    gguf: dict[str, Any] | None

    def holds(self, signature: str | None) -> bool:
        """Whether a model with this signature still has the weights that were loaded."""
        return signature is not None and signature == self.signature


_KNOWN: WeakCache[nn.Module, _Known] = WeakCache()
_SOURCES: WeakCache[nn.Module, _Source] = WeakCache()


def _known(inner: nn.Module, *, hooked: bool = False) -> _Known:
    """`hooked`: whether hooks that others have put since count too. Whoever only edits may have put one to watch what comes: it would see
    the probe.
    """
    signature = _signature(inner)
    kept = _KNOWN.get(inner)
    if kept is None or signature is None or kept.signature != signature:
        probe, whole = _probe(inner), _checksum(inner)
        # read again: bitsandbytes lays weights out anew in their first forward
        kept = _Known(_signature(inner), whole, probe, _runs(inner), _hooks(inner))
        _KNOWN.set(inner, kept)
    elif kept.runs != _runs(inner) or (hooked and kept.hooks != _hooks(inner)):
        probe = _probe(inner)
        kept = replace(kept, probe=probe, runs=_runs(inner), hooks=_hooks(inner))
        _KNOWN.set(inner, kept)
    return kept


def _runs(inner: nn.Module) -> tuple[object, ...]:
    """What changes when a module is replaced, is given another forward, or another number to compute with, such as a norm's epsilon."""
    names = [name for name, _ in inner.named_modules() if name]
    numbers = [
        (
            name,
            tuple((key, one) for key, one in module.__dict__.items() if isinstance(one, _PLAIN) and key != "training"),
        )
        for name, module in inner.named_modules()
    ]
    return *running(inner, names, hooks=False), *numbers


_PLAIN = (bool, int, float, str)


def _hooks(inner: nn.Module) -> tuple[object, ...]:
    """What changes when others put a hook anywhere, or take it away."""
    return tuple((name, *others_hooks(module)) for name, module in inner.named_modules())


def _signature(inner: nn.Module) -> str | None:
    """What changes when a parameter or a buffer does: which tensors they are, how often torch counted that each was written to, and 17 of its
    numbers, evenly spread. None where weights are elsewhere.

    Not noticed: writing into a tensor past torch's count (through `.data`, `numpy()` or a pointer) where none of the 17 numbers changes. Then what was
    known before is believed. Only reading all weights would tell, which takes too long for each edit.
    """
    held = [*inner.named_parameters(), *inner.named_buffers(), *_scales(inner)]
    if any(one.device.type == "meta" or isinstance(one, DTensor) for _, one in held):
        return None
    digest = hashlib.sha256(repr((adapters(inner), computing(inner))).encode())
    some: dict[torch.device, list[Tensor]] = {}
    for name, one in held:
        counted = 0 if one.is_inference() else one._version
        digest.update(f"{name} {one.data_ptr()} {counted} {one.dtype} {tuple(one.shape)}\n".encode())
        if one.is_contiguous() and one.numel():
            flat = one.detach().view(-1)
            some.setdefault(one.device, []).append(flat[:: max(1, len(flat) // 16)][:17].to(torch.float32))
    for parts in some.values():
        digest.update(torch.cat(parts).cpu().numpy().tobytes())
    return digest.hexdigest()


def _scales(inner: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Of weights that bitsandbytes quantised, which keeps them outside parameters and buffers."""
    for name, module in inner.named_modules() if getattr(inner, "is_quantized", False) else ():
        weight = getattr(module, "weight", None)
        four, eight = getattr(weight, "quant_state", None), getattr(module, "state", None)
        for key, value in (("absmax", getattr(four, "absmax", None)), ("SCB", getattr(eight, "SCB", None))):
            if isinstance(value, Tensor):
                yield f"{name}.{key}", value


_PROBES = 32


def _probe(inner: nn.Module) -> str | None:
    """What the body answers to a few fixed tokens, as numbers that a manifest can hold: its last hidden states' directions, seen along some
    fixed ones. The same for one model on any machine but for rounding, and whether or not it is edited; None where they are no numbers.
    """
    last = _unedited(inner).double().cpu()
    if not bool(torch.isfinite(last).all()):
        return None
    at = torch.arange(last.shape[1], dtype=torch.float64)
    along = torch.sin(at[:, None] * torch.arange(1, _PROBES + 1) * 0.7 + at[:, None].square() * 0.013)
    seen = (last / last.norm(dim=1, keepdim=True).clamp_min(1e-30)) @ along
    return packed(seen.flatten())


def _unedited(inner: nn.Module) -> Tensor:
    """(rows, width) last hidden states of a few fixed tokens, whatever edit acts."""
    with unhooked(), torch.inference_mode(), evaluating(inner), each_row_alone(inner):
        return hidden_states(inner, tiny_ids(inner))[:, -1]


def remember(model: nn.Module, path: Path | None, content: str | None, gguf: dict[str, Any] | None = None) -> None:
    """Note where a model was just loaded from: the place, what its files hold, and the GGUF file that its weights were unpacked from, if any."""
    inner = unwrapped(model)
    _SOURCES.set(inner, _Source(_signature(inner), None if path is None else str(path.absolute()), content, gguf))


def loaded_from(model: nn.Module) -> tuple[Path | None, str | None, dict[str, Any] | None] | None:
    """What `remember` noted; None where nothing was, or the weights are no longer those."""
    inner = unwrapped(model)
    source = _SOURCES.get(inner)
    if source is None or not source.holds(_signature(inner)):
        return None
    return None if source.path is None else Path(source.path), source.content, source.gguf


def describe(
    model: PreTrainedModel | nn.Module, tokenizer: PreTrainedTokenizerBase | None, bos: str | None = None
) -> dict[str, Any]:
    """Which model and tokenizer (if any), for a manifest; with `bos`, the rule by which rows begin, also what they begin with.

    Gives plain values, as run.json holds them: `model` (among others its `id`, `revision`, `checksum`, the number format `dtype` that it computes in,
    a `probe`, what it answers to a few fixed tokens, and `gguf`: of weights unpacked from a GGUF file that file's name, SHA-256 and how many tensors
    it stores in each number format), `tokenizer` (its `hash`), and the `versions` of lape, torch and transformers.

    Example:
        >>> from lape.model.identity import describe
        >>> said = describe(model, tokenizer, bos="auto")
        >>> said["model"]["id"], said["model"]["dtype"], said["bos"]
        ('LlamaForCausalLM', 'float32', 'BOS 1')
        >>> said["model"]["checksum"] == stats.manifest["model"]["checksum"]
        True
    """
    inner = unwrapped(model)
    known, source = _known(inner, hooked=bos is not None), _SOURCES.get(inner)
    name = str(getattr(inner.config, "_name_or_path", "") or type(inner).__name__)
    there = Path(name).expanduser()
    path = source.path if source is not None else str(there.absolute()) if there.exists() else None
    as_loaded = source is not None and source.holds(known.signature)
    described: dict[str, Any] = {
        "model": {
            "id": Path(path).name if path is not None else name,
            "path": path,
            "revision": getattr(inner.config, "_commit_hash", None),
            "source": source.content if source is not None and as_loaded else None,
            "gguf": source.gguf if source is not None and as_loaded else None,
            "config": computing(inner),
            "adapters": adapters(inner),
            "checksum": known.checksum,
            "dtype": number_format(model),
            "probe": known.probe,
        },
        "tokenizer": {"hash": None} if tokenizer is None else told_of(tokenizer),
        "versions": {name: version(name) for name in ("lape", "torch", "transformers")},
    }
    if bos is not None and tokenizer is not None:
        begins = bos_id(tokenizer, bos)
        described["bos"] = "no BOS" if begins is None else f"BOS {begins}"
    return described


def check_made_with(
    model: PreTrainedModel | nn.Module,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    bos: str | None = None,
    **made: NeuronSpace | Made,
) -> None:
    """Refuse `neurons=…` or `statistics=…` of another model than this, by `check_same_model`; with `tokenizer` and `bos`, the rule by which
    rows of text begin, also those made with another tokenizer or rule.

    Weights in another number format cannot be compared bit by bit: what can be is, and a `LapeWarning` says so. Refused too is what
    was made of some shards only.
    """
    for one in made.values():
        check_whole(manifest_of(one))
    of_heads = {name for name, one in made.items() if isinstance(space_of(one), HeadSpace)}
    spaces = {name: (find_heads if name in of_heads else find)(model).space for name in made}
    for some in (of_heads, made.keys() - of_heads):
        if known := {name: space_of(one) for name, one in made.items() if name in some}:
            check_same_model(**known, model=spaces[next(iter(known))])
    told = {name: one for name, one in made.items() if manifest_of(one).get("model")}
    described = describe(model, tokenizer, bos) if told else {}
    for name, one in told.items():
        check_same_model(**{name: one}, model=Running(spaces[name], described))
