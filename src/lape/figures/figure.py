"""What a figure is: the tables it needs, how it is drawn, and what its caption says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lape.figures.captions import Caption
from lape.figures.style import Canvas, Paper, Tables


@dataclass(frozen=True)
class Figure:
    """One figure of an experiment."""

    name: str
    """Also its file's."""
    title: str
    needs: tuple[str, ...]
    """Tables."""
    draw: Callable[[Tables, Paper], Canvas]
    caption: Caption
    """What is drawn, of how many, and how its intervals were made."""

    def possible(self, tables: Tables) -> bool:
        """Whether every table it needs is there and holds rows."""
        return all(name in tables and len(tables[name]) for name in self.needs)
