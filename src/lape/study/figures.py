"""A study's figures: those of `lape.figures`, as PDF and SVG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from lape.figures import FIGURES, available, draw_tables, write_index
from lape.figures.held import Held, lacking
from lape.figures.write import FigureOptions

__all__ = ["FIGURES", "available", "draw"]


def draw(tables: Mapping[str, pl.DataFrame], folder: Path, record: Mapping[str, Any] | None = None) -> list[Path]:
    """Draw every figure whose tables are there; the same tables give the same bytes. Raises OptionError without matplotlib.

    `record`: what the study's run.json says, for captions.
    """
    record = record or {}
    options = FigureOptions(format="pdf,svg")
    made = draw_tables(tables, folder, options, dict.fromkeys(tables, record))
    write_index(folder, made, lacking(Held(folder.parent, record, True, dict(tables)), FIGURES), options)
    return [folder / name for several in made.files.values() for name in several]
