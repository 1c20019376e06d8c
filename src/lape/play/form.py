"""The page's form: what can be set, from where to where, and what was set, as it is asked.

What comes from a page is checked here and not by gradio, which prints a stack on the console for each value that it refuses.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from reprlib import repr as shortly
from typing import Any

from lape.edit.steer import SteerOptions
from lape.errors import OptionError
from lape.play.asking import METHODS, MOST, Asked, usual_rate
from lape.values.stats import ActivationStats

SHADES = {"target": "The language steered to", "source": "The prompt's language"}
"""Choices of whose neurons shade the tokens, beside the languages themselves."""
HOW = ("off+set", "off+add", "off+scale", "set", "add", "scale", "off")


@dataclass(frozen=True)
class Span:
    """A number on the page."""

    label: str
    low: float
    high: float
    step: float

    def of(self, value: object) -> float:
        """The number that was set. Raises OptionError for anything else."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            raise OptionError(
                f"{self.label} is {shortly(value)}. Expected a number from {self.low:g} to {self.high:g}."
            )
        return float(value)


RATE = Span("Rate: neurons chosen, % of all", 0.01, 100 * MOST, 0.01)
STRENGTH = Span("Strength", 0, 6, 0.1)
FIRST = Span("Edited positions from the start (0: all)", 0, 200, 1)
NEW = Span("New tokens, at most", 1, 200, 1)
PENALTY = Span("Repetition penalty (1: none)", 1, 2, 0.05)


def values_of(asked: Asked, stats: ActivationStats) -> list[Any]:
    """What was asked, as the form holds it."""
    steer = asked.steer
    rate = round(100 * (usual_rate(stats) if asked.rate is None else asked.rate), 2)
    return [
        asked.prompt,
        asked.source,
        asked.target,
        asked.method,
        rate,
        steer.strength,
        steer.how,
        steer.first or 0,
        asked.new_tokens,
        asked.repetition_penalty,
        asked.bare,
    ]


def asked_of(values: Sequence[Any], languages: Collection[str]) -> Asked:
    """What the form holds, as it is asked. Raises OptionError for what cannot be."""
    prompt, source, target, method, rate, strength, how, begun, new, penalty, bare = values
    first = int(FIRST.of(begun))
    where: dict[str, Any] = {"first": first} if first else {"first": None, "fade": 1.0}
    how = one_of("What is done", how, HOW)
    return Asked(
        prompt if isinstance(prompt, str) else "",
        one_of("From", source, languages),
        one_of("To", target, languages),
        one_of("Method", method, METHODS),
        RATE.of(rate) / 100,
        SteerOptions(how=how, strength=STRENGTH.of(strength), **where),  # type: ignore[arg-type]
        int(NEW.of(new)),
        PENALTY.of(penalty),
        bool(bare),
    )


def shade_of(shade: object, languages: Collection[str]) -> str:
    """Whose neurons shade the tokens. Raises OptionError for what is no choice."""
    return one_of("Shade", shade, [*SHADES, *languages])


def one_of(label: str, value: object, choices: Collection[str]) -> str:
    """A choice. Raises OptionError for what is none."""
    if not isinstance(value, str) or value not in choices:
        raise OptionError(f"{label} is {shortly(value)}. Expected {', '.join(choices)}.")
    return value
