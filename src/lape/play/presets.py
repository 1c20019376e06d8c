"""Examples that work on the sample model with the demo's run. Each was tried, and a test tries them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lape.edit.steer import SteerOptions
from lape.play.asking import Asked


@dataclass(frozen=True)
class Preset:
    """A name, and what is asked."""

    name: str
    asked: Asked
    works: bool = True
    """Whether the steered answer is in the wanted language; a control and too weak a strength must fail."""


_TEA, _WATER = "How do I make a good cup of tea?", "Why is it important to drink water?"
_MORNING = "Le matin, les rues du village étaient encore vides."


def _at(strength: float) -> SteerOptions:
    return SteerOptions(strength=strength)


PRESETS = (
    Preset("English → French", Asked(_TEA, "en", "fr", steer=_at(1))),
    Preset("English → Chinese", Asked(_WATER, "en", "zh", steer=_at(1))),
    Preset("English → Spanish", Asked(_WATER, "en", "es", steer=_at(2))),
    Preset("Spanish → French", Asked("¿Por qué es importante beber agua?", "es", "fr", steer=_at(1))),
    Preset("French → Japanese", Asked("Pourquoi est-il important de bien dormir ?", "fr", "ja", steer=_at(1))),
    Preset("Japanese → English", Asked("なぜ水を飲むことが大切なのですか？", "ja", "en", steer=_at(1))),
    Preset("French text, continued in Chinese", Asked(_MORNING, "fr", "zh", steer=_at(1), bare=True)),
    Preset("Too weak: 0.3", Asked(_TEA, "en", "fr", steer=_at(0.3)), works=False),
    Preset("Too strong: 4", Asked(_WATER, "en", "zh", steer=_at(4))),
    Preset("Control: random neurons", Asked(_TEA, "en", "fr", method="random", steer=_at(1)), works=False),
)


def presets_for(languages: Sequence[str]) -> list[Preset]:
    """Those whose languages were recorded."""
    return [one for one in PRESETS if {one.asked.source, one.asked.target} <= set(languages)]
