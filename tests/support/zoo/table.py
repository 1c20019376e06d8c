"""All types of the table."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from support.zoo.kinds import Kind

KINDS: dict[str, Kind] = {}
for _file in sorted(Path(__file__).parent.glob("types_*.py")):
    KINDS.update(import_module(f"support.zoo.{_file.stem}").KINDS)
