"""Loading a model with its tokenizer, and knowing exactly which one it is."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from packaging.version import Version

from lape.errors import ModelError, OptionError, foreign, told
from lape.model.find import find
from lape.model.gguf import origin as gguf_origin
from lape.model.gguf import unpacked
from lape.model.identity import remember
from lape.model.locate import advice, located, source
from lape.model.site import SiteNames
from lape.options import Options, keywords_of
from lape.progress import Progress, shown

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SHARED_OUT = (5, 24)
"""The oldest transformers with which sharing out a model was seen to work; 5.16 does not load one."""


@dataclass(frozen=True)
class ModelOptions(Options):
    """How a model is loaded."""

    dtype: str = "auto"
    """Number format of the weights: auto (as stored), bfloat16, float16 or float32."""
    device: str | None = None
    """Where the model runs: cpu, cuda, cuda:1, mps. Default: a GPU if there is one."""
    device_map: str | None = None
    """Spread the model over several devices, for instance auto (needs the extra `accelerate`)."""
    tensor_parallel: bool = False
    """Split every layer among the processes of torchrun (tensor parallelism)."""
    bits: Literal[8, 4] | None = None
    """Quantise the weights to 8 or 4 bits as they are loaded (needs bitsandbytes and accelerate)."""
    revision: str | None = None
    """Revision of a model on the Hugging Face Hub."""
    sites: tuple[str, ...] | None = None
    """Name the neurons by hand: the activation modules and the down projections, with * for the layer number."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.device and self.device_map:
            raise OptionError("device and device_map were both given. Expected one of them.")


@dataclass(frozen=True)
class LoadArguments(ModelOptions):
    """What `load` takes besides a name."""

    progress: Progress = shown
    """Called with what is being done, how much of it is done, and of how much."""


@keywords_of(LoadArguments)
def load(name: str | Path, options: LoadArguments) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model and its tokenizer, ready for use: (model, tokenizer).

    `name`: a Hugging Face id, a local folder, a GGUF file (unpacked to float32 or `dtype`; needs gguf and accelerate), or "sample" for the
    embedded default model (extra `demo`). Further: how it is loaded, see `ModelOptions`. Code that comes with a model is never run.

    Raises ModelError saying what was found and what to type, OptionError for options that do not go together.

    Example:
        >>> model, tokenizer = lape.load("model", dtype="bfloat16", device="cpu")
        >>> model.dtype
        torch.bfloat16
    """
    progress = options.progress
    path, sample = _located(name, options, progress)
    progress(f"reading the tokenizer of {Path(path).name}", 0, None)
    tokenizer = _tokenizer(path, options, progress, sample=sample)
    progress(f"reading the weights of {Path(path).name}", 0, None)
    model = _weights(path, options, progress, sample=sample)
    if options.sites:
        find(model, SiteNames(*options.sites))
    return model, tokenizer


def load_tokenizer(
    name: str | Path, *, dtype: str = "auto", revision: str | None = None, progress: Progress = shown
) -> PreTrainedTokenizerBase:
    """`load` without the model: the tokenizer alone. Raises ModelError where there is none at `name`.

    Example:
        >>> from lape.model.load import load_tokenizer
        >>> load_tokenizer("model").tokenize("en02 en03")
        ['en02', 'en03']
    """
    options = ModelOptions(dtype=dtype, revision=revision)
    path, sample = _located(name, options, progress)
    return _tokenizer(path, options, progress, sample=sample)


def _tokenizer(path: str | Path, options: ModelOptions, progress: Progress, *, sample: bool) -> Any:
    import transformers

    with _explained(path):
        where, within = _within(path, options, progress)
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            where, revision=options.revision, trust_remote_code=False, **within
        )
    if sample:
        from lape.model.sample import check_tokenizer

        check_tokenizer(tokenizer)
    return tokenizer


def load_weights(
    name: str | Path,
    *,
    dtype: str = "auto",
    device: str | None = None,
    revision: str | None = None,
    progress: Progress = shown,
) -> PreTrainedModel:
    """`load` without the tokenizer, which tuned checkpoints often lack, and with sites not looked for."""
    options = ModelOptions(dtype=dtype, device=device, revision=revision)
    path, sample = _located(name, options, progress)
    return _weights(path, options, progress, sample=sample)


def _located(name: str | Path, options: ModelOptions, progress: Progress) -> tuple[str | Path, bool]:
    """What transformers is to load, and whether it is the sample model."""
    sample = str(name) == "sample"
    if sample:
        from lape.model.sample import folder

        name = folder(progress=progress)
    else:
        name = located(str(name), options.revision)
    return name, sample


def gguf_file(name: str | Path) -> Path | None:
    """The GGUF file that a model's name is, if it is one."""
    path = Path(name)
    return path if path.is_file() and (path.suffix == ".gguf" or isinstance(name, Path)) else None


def _within(path: str | Path, options: ModelOptions, progress: Progress) -> tuple[str | Path, dict[str, str]]:
    """Where a checkpoint lies, of a GGUF file where it lies unpacked; where it cannot lie so, which file of its folder it is."""
    file = gguf_file(path)
    if file is None:
        return path, {}
    kept = unpacked(file, options.dtype, _dtype(options.dtype), progress)
    return (file.parent, {"gguf_file": file.name}) if kept is None else (kept, {})


def _explained(name: str | Path) -> AbstractContextManager[None]:
    """Say of a failed load what was expected."""
    return foreign(
        ModelError, lambda said: f"{name} could not be loaded as a causal language model: {said}\n{advice(name)}"
    )


def _weights(name: str | Path, options: ModelOptions, progress: Progress, *, sample: bool) -> Any:
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
    if options.bits and gguf_file(name):
        raise OptionError(
            f"bits was given, but the weights of {name} are unpacked. Expected a checkpoint that is not quantised yet."
        )
    where, within = _within(name, options, progress)
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
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ModelError(
            f"{name} lacks {len(missing)} of the model's weights ({', '.join(missing[:3])}, …), which would be random numbers. "
            "Get the whole checkpoint."
        )
    if not options.device_map and not options.tensor_parallel and not getattr(model, "is_quantized", False):
        model.to(chosen_device(options.device))
    model.eval()
    location, content = source(name)
    if sample:  # a result says which model it is of, not where somebody's cache lies
        model.config._name_or_path, location = Path(name).name, None
    elif location is not None:
        model.config._name_or_path = str(name)
    elif getattr(model.config, "_commit_hash", None):
        content = f"{name}@{model.config._commit_hash}"
    remember(model, location, content, _gguf(name, where, progress, sample=sample))
    return model


def _gguf(name: str | Path, where: str | Path, progress: Progress, *, sample: bool) -> dict[str, Any] | None:
    """Describe the GGUF file that the weights were unpacked from; None for other checkpoints."""
    if sample:
        from lape.model.sample import origin

        return origin(Path(name), progress=progress)
    file = gguf_file(name)
    if file is None:
        return None
    with _explained(name):
        return gguf_origin(file, None if Path(where) == file.parent else Path(where))


def _among_processes(options: ModelOptions) -> Any:
    """How transformers is asked for tensor parallelism."""
    import transformers
    from transformers.distributed import DistributedConfig

    if Version(transformers.__version__).release < _SHARED_OUT:
        raise OptionError(
            f"tensor_parallel needs transformers {'.'.join(map(str, _SHARED_OUT))} or newer; here is {transformers.__version__}. "
            "Type: pip install -U transformers"
        )
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
    if bits == 8:
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )


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
            f"device {name!r} cannot be used: {told(error)} Expected cpu, or a device that this machine has."
        ) from error
    return device
