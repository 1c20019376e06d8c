"""Presets: options of a study under a name, each in a TOML file beside this one; what the command says comes before."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

Preset: TypeAlias = Literal["tang2024"]
"""The names."""


def preset(name: Preset) -> dict[str, Any]:
    """Option -> its value.

    Example:
        >>> from lape.study.presets import preset
        >>> preset("tang2024")["record_tokens"]
        99999744
    """
    path = Path(__file__).with_name(f"{name}.toml")
    values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))["study"]
    return values


PRESETS: tuple[Preset, ...] = get_args(Preset)
