"""`Detector`: what a selection method says of itself, so that a name is enough to use it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from lape.values.neurons import LanguageNeurons

O = TypeVar("O")  # noqa: E741
Method: TypeAlias = Callable[..., LanguageNeurons]
"""`stats -> LanguageNeurons`, with options as keywords; one that can choose from half of the text takes `folds`."""


@dataclass(frozen=True)
class Detector(Generic[O]):
    """A selection method, as `lape.detect.DETECTORS` holds it and an entry point of another package gives it.

    Example:
        >>> from lape.detect import DETECTORS
        >>> detector = DETECTORS["lape"]
        >>> detector.published, detector.needs
        ('Tang et al. 2024', ())
        >>> detector.find(stats, rate=0.02).method
        'lape'
    """

    name: str
    """What it is called in `lape.identify` and on the command line."""
    about: str
    """One sentence: which neurons it chooses."""
    options: type[O]
    """The dataclass of its options; each of its fields becomes a flag of `lape identify`."""
    find: Method
    """The function."""
    published: str = ""
    """The paper whose rule it is; empty for one of ours."""
    needs: tuple[str, ...] = ()
    """What it reads beside counts, as `LanguageStats` names it. What no recording holds by itself is in `lape.values.stats.EXTRAS`."""
