"""Edits as a LoRA adapter in PEFT's format, which peft, vLLM and SGLang load beside the base model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lape.errors import FileError, MismatchError, OptionError, foreign, warn
from lape.model.body import unwrapped
from lape.model.find import find
from lape.model.identity import describe
from lape.model.site import Site
from lape.ship.changes import AT_RUN_TIME, Change, LowRank, low_rank
from lape.ship.constant import Constant
from lape.ship.format import ExportFormat, Prepared
from lape.ship.server import vllm_options
from lape.store import files
from lape.store.documents import Schema, Whole, misfit, parse, read_json
from lape.store.run import MANIFEST as MADE_FROM
from lape.values.same import compared

LARGEST = 512
"""The largest rank that vLLM serves."""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's --max-lora-rank may be."""
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""PEFT's names of the two files."""
_OF, _A, _B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
MANIFEST = "lape.json"
"""What lape says of a folder that it exported."""
_STRANGE = (
    "use_rslora",
    "use_dora",
    "use_qalora",
    "modules_to_save",
    "lora_bias",
    "layer_replication",
    "trainable_token_indices",
)
"""What PEFT has besides."""
_RANKS: Schema = (None.__class__, {...: int})
_CONFIG = Whole(
    {
        "peft_type": str,
        "r": int,
        "lora_alpha": float,
        "fan_in_fan_out": bool,
        "bias": str,
        "target_modules": ([str], str),
        "rank_pattern": _RANKS,
        "alpha_pattern": (None.__class__, {...: float}),
        ...: object,
    },
    "peft_type",
    "r",
    "lora_alpha",
    "fan_in_fan_out",
)
"""What is read of adapter_config.json."""


def updates(model: Any, todo: Sequence[Change], fitted: Mapping[str, Constant]) -> list[LowRank]:
    """The updates of an adapter. Raises OptionError for what an adapter cannot hold."""
    check([change.site for change in todo])
    found = low_rank(model, todo, fitted)
    if not found:
        raise OptionError(
            "The edits change nothing: they name no neurons or heads, or scale by 1. Name a language that has neurons, or a head."
        )
    for one in found:
        if len(one.a) > LARGEST:
            raise OptionError(
                f"The adapter would have rank {len(one.a)} in {one.module}: one for each neuron, or channel of a head, that is scaled, off or set there. "
                f"Engines serve up to {LARGEST}. "
                "Edit fewer neurons, write a checkpoint (format='checkpoint'), or add at the gate, which has rank one whatever the number: "
                'lape.Add(neurons, value, at="gate").'
            )
    return found


def check(sites: Iterable[Site]) -> None:
    """Raises OptionError for neurons that adapters do not reach."""
    for site in sites:
        if site.layout is not None:
            raise OptionError(
                f"The neurons of layer {site.layer} are routed experts', whose weights lie in one tensor that adapters do not name. "
                f"Write a checkpoint: format='checkpoint'. {AT_RUN_TIME}"
            )


def write(prepared: Prepared, folder: Path) -> dict[str, Any]:
    """Write adapter_config.json and adapter_model.safetensors; returns what the manifest says of them."""
    model, parts = prepared.model, prepared.parts
    if any(site.layout is not None for site in find(model).sites):
        warn(
            "peft 0.21 takes down_proj and gate_proj for the routed experts' own in some models that have such, and leaves an adapter of the dense layers "
            "out, with a warning of missing keys. Look whether answers change, or serve it with vLLM."
        )
    weights = {}
    for part in parts:
        name = f"{_OF}{part.module}"
        weights[f"{name}{_A}"] = part.a.float().contiguous()
        weights[f"{name}{_B}"] = part.b.float().contiguous()
    files.write(folder / WEIGHTS, lambda path: save_file(weights, path, metadata={"format": "pt"}))
    files.write_json(folder / CONFIG, _config(model, parts))
    rank = max(len(part.a) for part in parts)
    return {
        "rank": rank,
        "max_lora_rank": next(served for served in RANKS if served >= rank),
        "modules": len(parts),
    }


def describe_use(base: str, manifest: Mapping[str, Any], name: str) -> str:
    """Say how peft and vLLM load the adapter, and how to see that a server uses it."""
    parts = [f'```python\nfrom peft import PeftModel\n\nmodel = PeftModel.from_pretrained(base_model, "{name}")\n```']
    if "max_lora_rank" in manifest:
        where = ""
        if is_gguf(base):
            where = (
                f". MODEL is the base model in Hugging Face's format, which the adapter is written for: not `{base}`"
            )
        elif manifest["made_from"].get("model", {}).get("path"):
            where = f". `{base}` is the base model's folder"
        parts.append(
            "With vLLM, per request, as the model's name (max-loras is one more than there are adapters: on a CPU, vLLM 0.32 computes requests for the base "
            f"that share a batch with others with the adapter in the last slot){where}:\n\n"
            f"```sh\n{vllm_command(base, manifest['max_lora_rank'], name, f'./{name}')}\n```"
        )
    parts.append(f"To see that the server uses it: `lape doctor http://127.0.0.1:8000 --adapter {name}`.")
    return "\n\n".join(parts)


def vllm_command(model: str, rank: int | str, name: str, folder: str) -> str:
    """Return the line that starts vLLM with an adapter; MODEL stands for a GGUF file, whose weights have other names than the adapter's.

    Example:
        >>> from lape.ship.lora import vllm_command
        >>> vllm_command("base.gguf", 8, "fr", "fr-adapter").partition(" --")[0]
        'vllm serve MODEL'
    """
    return f"vllm serve {'MODEL' if is_gguf(model) else quote(model)} {vllm_options(rank, name, folder)}"


def is_gguf(model: str) -> bool:
    """True if a model's name is that of a GGUF file."""
    return model.lower().endswith(".gguf")


FORMAT = ExportFormat("LoRA adapter", updates, write, describe_use, "peft", ("lora",))


def read(folder: Path) -> list[LowRank]:
    """Read the updates of an adapter's folder: plain LoRA with a factor of 1, as `write` makes it. Raises FileError for anything else.

    Example:
        >>> from pathlib import Path
        >>> from lape.ship import lora
        >>> folder = lape.export(model, [lape.Off(neurons["fr"])], "no-fr", format="lora")
        >>> {one.module.rpartition(".")[2] for one in lora.read(Path(folder))}
        {'down_proj'}
    """
    with foreign(
        FileError, lambda said: f"{folder} holds no adapter that can be read: {said} Export it again: lape export."
    ):
        weights = load_file(folder / WEIGHTS)
        config = parse((folder / CONFIG).read_bytes())
        if wrong := misfit(config, _CONFIG, CONFIG) or _unlike_ours(config) or _impossible(config, weights):
            raise ValueError(f"{wrong}.")
        return [
            LowRank(
                name.removeprefix(_OF),
                weights[f"{name}{_A}"].to(torch.float64),
                weights[f"{name}{_B}"].to(torch.float64),
                config["fan_in_fan_out"],
            )
            for name in _modules(weights)
        ]


def _modules(weights: Mapping[str, Tensor]) -> list[str]:
    return [name.removesuffix(_A) for name in weights if name.endswith(_A)]


def _unlike_ours(config: Mapping[str, Any]) -> str | None:
    """What an adapter has that ours have not, in words, or nothing."""
    strange = [name for name in _STRANGE if config.get(name)]
    strange += [name for name, usual in (("peft_type", "LORA"), ("bias", "none")) if config.get(name, usual) != usual]
    factor = config["lora_alpha"] != config["r"] or config.get("alpha_pattern") != config.get("rank_pattern")
    named = ", ".join(strange) or ("a factor other than 1" if factor else "")
    return f"it has {named}, as adapters of lape have not" if named else None


def _impossible(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str | None:
    """What cannot be of an adapter's tensors beside its configuration, in words, or nothing."""
    ranks = {config["r"], *(config.get("rank_pattern") or {}).values()}
    if min(ranks) < 1:
        return f"its configuration has the rank {min(ranks)}; expected 1 or more"
    names, targets = _modules(weights), config.get("target_modules")
    if not names or {*weights} != {f"{name}{end}" for name in names for end in (_A, _B)}:
        return "it has other tensors than the two of each module"
    for name in names:
        a, b = weights[f"{name}{_A}"], weights[f"{name}{_B}"]
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or a.shape[0] not in ranks:
            return f"{name} has the shapes {tuple(a.shape)} and {tuple(b.shape)}, which are not of a rank that its configuration has"
        if not all(part.is_floating_point() and bool(torch.isfinite(part).all()) for part in (a, b)):
            return f"{name} has weights that are not finite numbers"
        if isinstance(targets, list) and not any(f".{name}".endswith(f".{target}") for target in targets):
            return f"{name} is not among its target_modules, so that engines would leave it out"
    return None


def read_for(model: Any, folder: Path) -> list[LowRank]:
    """Read an adapter that a model is to answer with. Raises FileError as `read` does, and MismatchError for an adapter of another model.

    A model that was tuned from the adapter's, or is loaded in another number format, is warned of, and so is an adapter of which nothing says
    which model it was made for.
    """
    parts = read(folder)
    _check_fits(model, parts, folder)
    path = folder / MANIFEST
    made_from = read_json(path, {"made_from": MADE_FROM, ...: object}).get("made_from", {}) if path.is_file() else {}
    if not made_from.get("model"):
        base = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
        named = f"Its {CONFIG} names {base}" if base else f"Its {CONFIG} names none either"
        warn(
            f"{folder} has no {MANIFEST}, so nothing shows which model the adapter was made for. {named}. Its modules have the sizes of this model's, "
            "as those of other models may have too. To be sure, export it from this model: lape export."
        )
        return parts
    here = describe(model, None)
    verdict = compared(made_from, here, tuned=True)
    if verdict.differ:
        raise MismatchError(
            f"{folder} was made for {made_from['model'].get('id')}, which is not this model: {'; '.join(verdict.differ)}. "
            "Load the model that it was made for, or export it from this one: lape export."
        )
    if verdict.unsure:
        warn(
            f"{folder} was made for {made_from['model'].get('id')}, and this seems to be a model tuned from it, or the same in another number format: "
            f"{'; '.join(verdict.unsure)}. What it does here was not measured. To be sure, export it from this model: lape export."
        )
    return parts


def digest(parts: Sequence[LowRank]) -> str:
    """SHA-256 over what the updates change and by how much."""
    whole = hashlib.sha256()
    for one in sorted(parts, key=lambda part: part.module):
        whole.update(f"{one.module} {tuple(one.a.shape)} {tuple(one.b.shape)}".encode())
        whole.update(one.a.double().numpy().tobytes() + one.b.double().numpy().tobytes())
    return whole.hexdigest()


def _check_fits(model: Any, parts: Sequence[LowRank], folder: Path) -> None:
    """Raises MismatchError for updates of modules that a model has not, or of other sizes."""
    inner = dict(unwrapped(model).named_modules())
    for one in parts:
        weight = getattr(inner.get(one.module), "weight", None)
        shape = (one.a.shape[1], one.b.shape[0]) if one.transposed else (one.b.shape[0], one.a.shape[1])
        if weight is None or (weight.ndim == 2 and tuple(weight.shape) != shape):
            there = "is not there" if weight is None else f"has {tuple(weight.shape)}"
            raise MismatchError(
                f"{folder} changes {one.module}, {shape}, which in this model {there}. Expected an adapter of this model."
            )


def _config(model: Any, found: Sequence[LowRank]) -> dict[str, Any]:
    """As PEFT reads it: the factor is 1 in every layer, whatever its rank."""
    name = str(getattr(model.config, "_name_or_path", None) or "")
    ranks = {one.module: len(one.a) for one in found}
    largest = max(ranks.values())
    others = {name: rank for name, rank in ranks.items() if rank != largest}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": Path(name).name if Path(name).exists() else name or None,
        "inference_mode": True,
        "r": largest,
        "lora_alpha": largest,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": any(one.transposed for one in found),
        "target_modules": sorted(ranks),
        "rank_pattern": others,
        "alpha_pattern": others,
    }
