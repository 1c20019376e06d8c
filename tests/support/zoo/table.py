"""Read `types.toml`: one table per model type."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import torch

from support.tiny import COMMON
from support.zoo import formulas, kinds
from support.zoo.formulas import NoVisionConfig
from support.zoo.kinds import Experts, Kind, Mlp, Own

TABLE = Path(__file__).with_name("types.toml")


def read_config(config: dict[str, Any], without: list[str]) -> dict[str, Any]:
    """Give the changes of `tiny.COMMON`, with `...` for each key that is left out."""
    read: dict[str, Any] = dict.fromkeys(COMMON if without == ["all"] else without, ...)
    for key, value in config.items():
        if isinstance(value, dict):
            value = {**(COMMON if value.pop("common", False) else {}), **read_config(value, [])}
            if value.get("model_type") == NoVisionConfig.model_type:
                value = NoVisionConfig(**value)
        read[key] = None if value == "null" else value
    return read


def read_mlp(row: dict[str, Any]) -> Mlp | Own | Experts:
    """Build an MLP from its row."""
    if "by_hand" in row:
        row["by_hand"] = getattr(formulas, row["by_hand"])
    if "function" in row:
        row["function"] = getattr(kinds, row["function"], None) or getattr(formulas, row["function"])
    if "glu" in row:
        function, *numbers = row["glu"]
        row["glu"] = getattr(formulas, function)(*numbers)
    if "own" in row:
        module = row.pop("own")
        return Own(module, f"{module}.{row.pop('down')}", **row)
    if "experts" in row:
        return Experts(row.pop("experts"), **row)
    prefix = row.pop("dense")
    gate, *up, down = (prefix + name for name in row.pop("names", ("gate_proj", "up_proj", "down_proj")))
    return Mlp(gate, down, up[0] if up else None, **row)


def read_kind(row: dict[str, Any]) -> Kind:
    """Build a model type from its table."""
    row["config"] = read_config(row.get("config", {}), row.pop("without", []))
    row["mlps"] = tuple(map(read_mlp, row.get("mlps", ())))
    return Kind(**{**row, "dtype": getattr(torch, row.get("dtype", "float64"))})


KINDS = {name: read_kind(row) for name, row in tomllib.loads(TABLE.read_text(encoding="utf-8")).items()}
