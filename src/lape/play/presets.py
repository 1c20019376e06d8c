"""Examples that work on the sample model with the demo's run; each was tried, and a test tries them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lape.options import BeginningOptions
from lape.play.asking import Asked


@dataclass(frozen=True)
class Preset:
    """A name, and what is asked."""

    name: str
    asked: Asked
    works: bool = True
    """Whether the steered answer is in the wanted language; a control, or too weak a strength, must fail."""


_SLEEP = Asked("How can I manage my time better?", "en", "fr")
PRESETS: tuple[Preset, ...] = (Preset("English → French", _SLEEP),)


def presets_for(languages: Sequence[str]) -> list[Preset]:
    """Those whose languages were recorded."""
    return [one for one in PRESETS if {one.asked.source, one.asked.target} <= set(languages)]
