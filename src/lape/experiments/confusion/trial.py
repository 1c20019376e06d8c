"""One thought, something that may be the cure: what is told, and what is done to the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, TypeAlias

from lape.experiments.confusion.prompts import Prompt
from lape.experiments.confusion.run import told_line
from lape.experiments.confusion.table import LINE, NONE

Family: TypeAlias = Literal["none", "prompt", "adapter", "both"]
_Part: TypeAlias = tuple[str, float]
"""Which neurons, or which head, and how strongly."""


@dataclass(frozen=True)
class Trial:
    """Something that may be the cure."""

    family: Family
    setting: str
    line: bool = False
    sets: str | None = None
    strength: float | None = None
    head: str | None = None
    """The layer and number of an attention head, with a point between."""
    factor: float | None = None

    @classmethod
    def of(cls, family: Literal["adapter", "both"], neurons: _Part | None, head: _Part | None) -> Trial:
        """An edit of a family."""
        parts = [f"{neurons[0]} × {neurons[1]!r}"] if neurons else []
        parts += [f"head {head[0]} × {head[1]!r}"] if head else []
        line = family == "both"
        sets, strength = neurons or (None, None)
        name, factor = head or (None, None)
        return cls(family, " + ".join([*([LINE] if line else []), *parts]), line, sets, strength, name, factor)

    @property
    def edit(self) -> str:
        """What is done to the model, whatever the prompt."""
        return self.setting.removeprefix(f"{LINE} + ")

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Trial:
        """That of a row of `CURES`."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


UNEDITED, PROMPT = Trial("none", NONE), Trial("prompt", LINE, line=True)


def grid(
    family: Literal["adapter", "both"],
    sets: Sequence[str],
    strengths: Sequence[float],
    heads: Sequence[str],
    factors: Sequence[float],
) -> Iterator[Trial]:
    """Every edit of a family, those that are tried first first: the first of the neurons, alone and with heads, heads alone, then the other neurons."""
    first, *others = product(sets, strengths)
    scaled = list(product(heads, factors))
    yield Trial.of(family, first, None)
    for neurons in (first, None):
        yield from (Trial.of(family, neurons, head) for head in scaled)
    yield from (Trial.of(family, neurons, None) for neurons in others)


def with_line(prompt: Prompt, line: str) -> Prompt:
    """A prompt with a line that the system is told too, after what it is told already."""
    told = told_line(line, prompt.language)
    if prompt.messages and prompt.messages[0]["role"] == "system":
        first = {**prompt.messages[0], "content": f"{prompt.messages[0]['content']}\n\n{told}"}
        return replace(prompt, messages=(first, *prompt.messages[1:]))
    return replace(prompt, system=f"{prompt.system}\n\n{told}" if prompt.system else told)
