"""Loading a model with its tokenizer, and knowing exactly which one it is."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lape.errors import MismatchError, ModelError, OptionError
from lape.model.body import evaluating, hidden_states, present, tiny_ids, unwrapped
from lape.model.find import find
from lape.model.site import SiteNames
from lape.options import given
from lape.progress import Progress, silent
from lape.values.same import Made, check_same_model, model_of, space_of
from lape.values.space import NeuronSpace

_HASH_BYTES = 64 * 2**20


@dataclass(frozen=True)
class ModelOptions:
    """How a model is loaded."""

    dtype: str = "auto"
    """Number format of the weights: auto (as stored), bfloat16, float16 or float32."""
    device: str | None = None
    """Where it runs: cpu, cuda, cuda:1, mps. Default: a GPU if there is one."""
    device_map: str | None = None
    """Spread the model over several devices, for instance auto (needs the extra `accelerate`)."""
    tensor_parallel: bool = False
    """Share out every layer among the processes of torchrun."""
    bits: int | None = None
    """Quantise the weights to 8 or 4 bits as they are loaded (needs bitsandbytes and accelerate)."""
    revision: str | None = None
    """Revision of a model on the Hub."""
    sites: tuple[str, ...] | None = None
    """Name the neurons by hand: activation modules and down projections, * for the layer number."""

    def __post_init__(self) -> None:
        if self.bits not in (None, 4, 8):
            raise OptionError(f"bits is {self.bits}. Expected 8 or 4, or none to load the weights as they are stored.")


def load(
    name: str | Path, options: ModelOptions | None = None, *, progress: Progress = silent, **changes: Any
) -> tuple[Any, Any]:
    """Load a causal language model and its tokenizer, ready for use: (model, tokenizer).

    `name`: a Hugging Face id, a local folder, a GGUF file (unpacked to float32 or `dtype`; needs gguf and accelerate), or "sample" for the
    embedded default model (extra `demo`).
    Code that comes with a model is never run. Raises ModelError saying what was found and what to type.
    """
    options = given(ModelOptions, options, changes)
    path, sample = _located(name, options, progress)
    tokenizer = _tokenizer(path, options, sample=sample)
    model = _weights(path, options, sample=sample)
    if options.sites:
        find(model, SiteNames(*options.sites))
    return model, tokenizer


def load_tokenizer(
    name: str | Path, options: ModelOptions | None = None, *, progress: Progress = silent, **changes: Any
) -> Any:
    """`load` without the model."""
    options = given(ModelOptions, options, changes)
    path, sample = _located(name, options, progress)
    return _tokenizer(path, options, sample=sample)


def _tokenizer(path: str | Path, options: ModelOptions, *, sample: bool) -> Any:
    import transformers

    with _explained(path):
        where, within = _within(path)
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            where, revision=options.revision, trust_remote_code=False, **within
        )
    if sample:
        from lape.model.sample import check_tokenizer

        check_tokenizer(tokenizer)
    return tokenizer


def load_weights(
    name: str | Path, options: ModelOptions | None = None, *, progress: Progress = silent, **changes: Any
) -> Any:
    """`load` without the tokenizer, which tuned checkpoints often lack, and with sites not looked for."""
    options = given(ModelOptions, options, changes)
    path, sample = _located(name, options, progress)
    return _weights(path, options, sample=sample)


def _located(name: str | Path, options: ModelOptions, progress: Progress) -> tuple[str | Path, bool]:
    """What transformers is to load, and whether it is the sample model."""
    import transformers

    if options.device and options.device_map:
        raise OptionError("device and device_map were both given. Expected one of them.")
    sample = str(name) == "sample"
    if sample:
        from lape.model.sample import folder

        name = folder(progress=progress)
    if sample or not sys.stderr.isatty():
        transformers.logging.disable_progress_bar()
    return name, sample


def _within(path: str | Path) -> tuple[str | Path, dict[str, str]]:
    """Where a checkpoint lies, and for a GGUF file which file of that folder it is."""
    path = Path(path) if str(path).endswith(".gguf") else path
    return (path.parent, {"gguf_file": path.name}) if isinstance(path, Path) and path.is_file() else (path, {})


@contextmanager
def _explained(name: str | Path) -> Iterator[None]:
    """Say of a failed load what was expected."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{name} could not be loaded as a causal language model: {_first_lines(error)}\n{_advice(name)}"
        ) from error


def _weights(name: str | Path, options: ModelOptions, *, sample: bool) -> Any:
    import transformers

    place: dict[str, Any] = {"device_map": options.device_map} if options.device_map else {}
    if options.tensor_parallel:
        place = {"distributed_config": _among_processes(options)}
    if options.bits:
        place = (
            {"device_map": {"": chosen_device(options.device)}}
            | place
            | {"quantization_config": _to_bits(options.bits)}
        )
    where, within = _within(name)
    if within and options.bits:
        raise OptionError(
            f"bits was given, but the weights of {name} are unpacked. Expected a checkpoint that is not quantised yet."
        )
    if within:
        place["quantization_config"] = transformers.GgufConfig(dequantize=True)
    with _explained(name):
        model, loading = transformers.AutoModelForCausalLM.from_pretrained(
            where,
            dtype=_dtype(options.dtype),
            revision=options.revision,
            trust_remote_code=False,
            output_loading_info=True,
            **place,
            **within,
        )
    if sample:  # a result says which model it is of, not where somebody's cache lies
        model.config._name_or_path = Path(name).name
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ModelError(
            f"{name} lacks {len(missing)} of the model's weights ({', '.join(missing[:3])}, …), which would be random numbers. "
            "Get the whole checkpoint."
        )
    if not options.device_map and not options.tensor_parallel and not getattr(model, "is_quantized", False):
        model.to(chosen_device(options.device))
    model.eval()
    return model


def _among_processes(options: ModelOptions) -> Any:
    """How transformers is asked for tensor parallelism."""
    from transformers.distributed import DistributedConfig

    if "WORLD_SIZE" not in os.environ:
        raise OptionError(
            "tensor_parallel needs several processes: torchrun --nproc-per-node 2 --no-python lape record MODEL --tensor-parallel …"
        )
    if options.device_map or options.bits or options.device:
        raise OptionError("tensor_parallel places the weights itself. Leave out device, device_map and bits.")
    return DistributedConfig(tp_plan="auto")


def _to_bits(bits: int) -> Any:
    """How transformers is asked to quantise."""
    import transformers

    for package in ("bitsandbytes", "accelerate"):
        if find_spec(package) is None:
            raise OptionError(f"bits needs {package}: pip install bitsandbytes accelerate.")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns in every layer of every pass
    if bits == 8:
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )


def _first_lines(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3])[:600]


def _advice(name: str | Path) -> str:
    if Path(str(name)).exists():
        return (
            "Expected a folder written by save_pretrained that holds config.json, safetensors weights and a tokenizer."
        )
    return "Expected a Hugging Face id, a local folder or GGUF file, or sample."


def _dtype(name: str) -> Any:
    if name == "auto":
        return "auto"
    known = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32, "float64": torch.float64}
    if name not in known:
        raise OptionError(f"dtype is {name!r}. Expected auto, {', '.join(known)}.")
    return known[name]


def chosen_device(name: str | None = None) -> torch.device:
    """The device of that name, or what a model runs on unless told. Raises OptionError for one that this machine has not."""
    if name is None:
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise OptionError(
            f"device {name!r} cannot be used: {_first_lines(error)} Expected cpu, or a device that this machine has."
        ) from error
    return device


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
    plain = str(inner.dtype).removeprefix("torch.")
    if not getattr(inner, "is_quantized", False):
        return plain
    how = inner.config.quantization_config
    how = how if isinstance(how, dict) else how.to_dict()
    method = getattr(how.get("quant_method"), "value", how.get("quant_method"))
    bits = 4 if how.get("load_in_4bit") else 8 if how.get("load_in_8bit") else how.get("bits")
    return " ".join([plain, str(method), *([f"{bits} bits"] if bits else []), inner.device.type])


def check_made_with(model: Any, **made: NeuronSpace | Made) -> None:
    """Refuse `neurons=…` or `statistics=…` of another model than this: of other neurons, or of other weights as far as manifests say.

    Weights in another number format cannot be compared bit by bit and pass.
    """
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
