"""What a part of a study is: one experiment, what it costs, and why it may not be run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lape.study.study import Study, Tables


@dataclass(frozen=True)
class Cost:
    """What a part is going to run."""

    passes: int = 0
    """Sets of neurons switched off × languages evaluated."""
    loss_tokens: int = 0
    """Tokens run through the body and the LM head."""
    body_tokens: int = 0
    """Tokens run through the body alone."""
    new_tokens: int = 0
    """Tokens generated one by one, over all prompts of a batch together."""


def free(_study: Study) -> Cost:
    """Nothing is run."""
    return Cost()


@dataclass(frozen=True)
class Part:
    """One experiment."""

    name: str
    about: str
    run: Callable[[Study], Tables]
    tables: tuple[str, ...]
    """The tables it gives."""
    cost: Callable[[Study], Cost] = free
    quick: bool = False
    """Whether a quick study runs it."""
    missing: Callable[[Study], str | None] = lambda _study: None
    """Why it cannot be run, or None."""


def matrices(study: Study, sets: int) -> Cost:
    """Cost of `sets` conditions, each a set of every language on every language."""
    passes = sets * len(study.languages) ** 2
    return Cost(passes=passes, loss_tokens=passes * study.options.tokens)
