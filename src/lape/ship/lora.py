"""Edits as a LoRA adapter in PEFT's format, which peft, vLLM and SGLang load beside the base model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lape.errors import FileError, MismatchError, OptionError, foreign
from lape.model.body import unwrapped
from lape.model.site import Site
from lape.ship.changes import AT_RUN_TIME, Change, LowRank, low_rank
from lape.ship.constant import Constant
from lape.store import files

LARGEST = 512
"""The largest rank that vLLM serves."""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's --max-lora-rank may be."""
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""PEFT's names of the two files."""
_OF, _A, _B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
_STRANGE = ("use_rslora", "use_dora", "modules_to_save", "lora_bias")
"""What PEFT has besides."""


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


def served_rank(found: Sequence[LowRank]) -> int:
    """What --max-lora-rank has to be."""
    largest = max(len(one.a) for one in found)
    return next(rank for rank in RANKS if rank >= largest)


def write(model: Any, found: Sequence[LowRank], folder: Path) -> dict[str, Any]:
    """Write adapter_config.json and adapter_model.safetensors; gives what the manifest says of them."""
    weights = {}
    for one in found:
        name = f"{_OF}{one.module}"
        weights[f"{name}{_A}"] = one.a.float().contiguous()
        weights[f"{name}{_B}"] = one.b.float().contiguous()
    files.write(folder / WEIGHTS, lambda path: save_file(weights, path, metadata={"format": "pt"}))
    files.write_json(folder / CONFIG, _config(model, found))
    return {"rank": max(len(one.a) for one in found), "max_lora_rank": served_rank(found), "modules": len(found)}


def read(folder: Path) -> list[LowRank]:
    """The updates that a folder of `write` holds. Raises FileError for one that is damaged, or made by another program in ways that it does not have.

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
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        strange = [name for name in _STRANGE if config.get(name)]
        if strange or config["lora_alpha"] != config["r"] or config.get("alpha_pattern") != config.get("rank_pattern"):
            raise ValueError(f"it has {', '.join(strange) or 'a factor other than 1'}, as adapters of lape have not.")
        names = [name.removesuffix(_A) for name in weights if name.endswith(_A)]
        if not names or 2 * len(names) != len(weights):
            raise ValueError("it has other tensors than the two of each module.")
        return [
            LowRank(
                name.removeprefix(_OF),
                weights[f"{name}{_A}"].to(torch.float64),
                weights[f"{name}{_B}"].to(torch.float64),
                bool(config["fan_in_fan_out"]),
            )
            for name in names
        ]


def digest(parts: Sequence[LowRank]) -> str:
    """SHA-256 over what the updates change and by how much."""
    whole = hashlib.sha256()
    for one in sorted(parts, key=lambda part: part.module):
        whole.update(f"{one.module} {tuple(one.a.shape)} {tuple(one.b.shape)}".encode())
        whole.update(one.a.double().numpy().tobytes() + one.b.double().numpy().tobytes())
    return whole.hexdigest()


def check_fits(model: Any, parts: Sequence[LowRank], folder: Path) -> None:
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
