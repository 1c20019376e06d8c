"""Edits as a LoRA adapter in PEFT's format, which peft, vLLM and SGLang load beside the base model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from lape.errors import OptionError
from lape.ship.changes import AT_RUN_TIME, Change, LowRank, low_rank
from lape.ship.constant import Constant
from lape.store import files

LARGEST = 512
"""The largest rank that vLLM serves."""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's --max-lora-rank may be."""


def updates(model: Any, todo: Sequence[Change], fitted: Mapping[str, Constant]) -> list[LowRank]:
    """The updates of an adapter. Raises OptionError for what an adapter cannot hold."""
    for change in todo:
        if change.site.layout is not None:
            raise OptionError(
                f"The neurons of layer {change.site.layer} are routed experts', whose weights lie in one tensor that adapters do not name. "
                f"Write a checkpoint: format='checkpoint'. {AT_RUN_TIME}"
            )
    found = low_rank(model, todo, fitted)
    if not found:
        raise OptionError(
            "The edits change nothing: they name no neurons, or scale by 1. Name a language that has neurons."
        )
    for one in found:
        if len(one.a) > LARGEST:
            raise OptionError(
                f"The adapter would have rank {len(one.a)} in {one.module}: one for each neuron that is scaled, off or set there. "
                f"Engines serve up to {LARGEST}. "
                "Edit fewer neurons, write a checkpoint (format='checkpoint'), or add at the gate, which has rank one whatever the number: "
                'lape.Add(neurons, value, at="gate").'
            )
    return found


def served_rank(found: Sequence[LowRank]) -> int:
    """What --max-lora-rank has to be."""
    largest = max(len(one.a) for one in found)
    return next(rank for rank in RANKS if rank >= largest)


def write(model: Any, found: Sequence[LowRank], folder: Path) -> dict[str, Any]:
    """Write adapter_config.json and adapter_model.safetensors; gives what the manifest says of them."""
    weights = {}
    for one in found:
        name = f"base_model.model.{one.module}"
        weights[f"{name}.lora_A.weight"] = one.a.float().contiguous()
        weights[f"{name}.lora_B.weight"] = one.b.float().contiguous()
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    files.write_json(folder / "adapter_config.json", _config(model, found))
    return {"rank": max(len(one.a) for one in found), "max_lora_rank": served_rank(found), "modules": len(found)}


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
