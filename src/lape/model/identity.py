"""Which model this is, exactly: what it says of itself in results, and whether results were made with it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lape.errors import MismatchError
from lape.model.body import evaluating, hidden_states, present, tiny_ids, unwrapped
from lape.model.find import find
from lape.store.shards import check_whole
from lape.values.quantity import plain
from lape.values.same import Made, check_same_model, model_of, space_of
from lape.values.space import NeuronSpace

_HASH_BYTES = 64 * 2**20


def checksum(model: nn.Module) -> str:
    """SHA-256 over the bits, dtype, shape and name of every parameter: one changed weight changes it.

    Of a quantised model, over its scales too, as they lie after it ran once: bitsandbytes lays weights out anew for the machine it runs on.
    """
    inner = unwrapped(model)
    held = _quantised(inner) if getattr(inner, "is_quantized", False) else inner.named_parameters()
    named = sorted(held, key=lambda item: item[0])
    whole = hashlib.sha256()
    # weights that are elsewhere are brought one at a time, in the same order in every process that holds a part
    away = any(parameter.device.type == "meta" or isinstance(parameter, DTensor) for _, parameter in named)
    with ThreadPoolExecutor(1 if away else None) as pool:
        digests = pool.map(lambda item: _digest_of(inner, *item), named)
        for (name, parameter), digest in zip(named, digests, strict=True):
            whole.update(f"{name} {parameter.dtype} {tuple(parameter.shape)} {digest}\n".encode())
    return whole.hexdigest()


def _quantised(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that a quantised model holds, scales included."""
    with evaluating(model), torch.no_grad():
        hidden_states(model, tiny_ids(model))
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


def describe(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Which model and tokenizer (if any), for a manifest."""
    config = unwrapped(model).config
    return {
        "model": {
            "id": str(getattr(config, "_name_or_path", "") or type(unwrapped(model)).__name__),
            "revision": getattr(config, "_commit_hash", None),
            "config": _hash(json.dumps(_plain_config(config), sort_keys=True, default=str)),
            "checksum": checksum(model),
            "dtype": number_format(model),
        },
        "tokenizer": {"hash": tokenizer_hash(tokenizer) if tokenizer is not None else None},
        "versions": {name: version(name) for name in ("lape", "torch", "transformers")},
    }


def number_format(model: Any) -> str:
    """The format of a model's weights: `bfloat16`, or where they are quantised `bfloat16 bitsandbytes 8 bits cpu`."""
    inner: Any = unwrapped(model)
    if not getattr(inner, "is_quantized", False):
        return plain(inner.dtype)
    how = inner.config.quantization_config
    how = how if isinstance(how, dict) else how.to_dict()
    method = getattr(how.get("quant_method"), "value", how.get("quant_method"))
    bits = 4 if how.get("load_in_4bit") else 8 if how.get("load_in_8bit") else how.get("bits")
    return " ".join([plain(inner.dtype), str(method), *([f"{bits} bits"] if bits else []), inner.device.type])


def check_made_with(model: Any, **made: NeuronSpace | Made) -> None:
    """Refuse `neurons=…` or `statistics=…` of another model than this: of other neurons, or of other weights as far as manifests say.

    Weights in another number format cannot be compared bit by bit and pass. Refused too is what was made of some shards only.
    """
    for one in made.values():
        check_whole(getattr(one, "manifest", {}))
    check_same_model(**{name: space_of(one) for name, one in made.items()}, model=find(model).space)
    for name, one in made.items():
        known = model_of(one)
        if not known.get("checksum") or known.get("dtype") != number_format(model):
            continue
        here = checksum(model)
        if known["checksum"] != here:
            raise MismatchError(
                f"The {name} were made with {known.get('id')} (checksum {known['checksum'][:12]}…), but this model has checksum {here[:12]}…. "
                "Record this model: lape record, or load the other one."
            )


def _plain_config(config: Any) -> dict[str, Any]:
    return {
        key: value for key, value in config.to_dict().items() if key not in {"_name_or_path", "transformers_version"}
    }


def tokenizer_hash(tokenizer: Any) -> str:
    """SHA-256 over a tokenizer's definition."""
    return _hash("\n".join(_definition(tokenizer)))


def _definition(tokenizer: Any) -> Iterator[str]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        definition = backend.to_str()  # truncation and padding stand at its head and change with use
        head, tail = definition[:1000], definition[1000:]
        yield re.sub(r'"(truncation|padding)":(null|\{[^{}]*(\{[^{}]*\})?[^{}]*\}),', "", head) + tail
    else:
        yield json.dumps(sorted(tokenizer.get_vocab().items()))
    yield json.dumps(sorted(map(str, tokenizer.all_special_tokens)))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
