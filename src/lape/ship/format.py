"""What an export format is: how edits become files, and how a card says that they are used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor

from lape.ship.changes import Change, LowRank
from lape.ship.constant import Constant

Use: TypeAlias = Callable[[str, Mapping[str, Any], str], str]
"""(base model's name, manifest, folder's name) -> Markdown that says how to use the files."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """What to write."""

    model: Any
    tokenizer: Any
    parts: Sequence[LowRank]
    """The updates of linear layers."""
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    """Of a format of whole weights: those that differ, by name."""


@dataclass(frozen=True)
class ExportFormat:
    """A kind of files that edits are written as."""

    kind: str
    """What the manifest and the card call it."""
    find_updates: Callable[[Any, Sequence[Change], Mapping[str, Constant]], list[LowRank]]
    """(model, changes, constants) -> updates. Raises OptionError for what these files cannot hold."""
    write: Callable[[Prepared, Path], dict[str, Any]]
    """Write the files into a folder; returns what the manifest says of them."""
    use: Use
    library: str | None = None
    """The library that loads it, as the Hub names it."""
    tags: tuple[str, ...] = ()
    find_weights: Callable[[Any, Sequence[Change], Sequence[LowRank]], dict[str, Tensor]] | None = None
    """Of a format of whole weights: (model, changes, updates) -> the weights that differ. Such a format also holds biases."""
