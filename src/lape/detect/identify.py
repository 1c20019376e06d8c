"""Find each language's neurons by a method's name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

from lape.detect import DETECTORS
from lape.detect.common import known
from lape.detect.detector import Detector, Method
from lape.detect.halves import halvable
from lape.detect.stability import stability
from lape.errors import OptionError
from lape.options import by_name
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

Purpose: TypeAlias = Literal["off", "steer"]
"""What sets are for: to switch a language off and leave the others as they are, or to make the model write it."""


class Best(NamedTuple):
    """The method that did best at a purpose."""

    method: str
    options: Mapping[str, object]
    won: str
    """What it did better."""


PURPOSES: Mapping[Purpose, Best] = {
    "off": Best(
        "difference", {"against": "largest"}, "at the same own effect it cost the other languages less than LAPE"
    ),
    "steer": Best("difference", {}, "on development questions it gave more good answers in the language than LAPE"),
}
"""Purpose -> the method that did best at it. docs/choosing.md has the measurements."""


def chosen_for(purpose: Purpose, method: str | Method | Detector[Any] = "lape") -> Best:
    """The method for a purpose. Raises OptionError for another purpose, or where a method was chosen too.

    Example:
        >>> from lape.detect.identify import chosen_for
        >>> chosen_for("off").method, chosen_for("off").options
        ('difference', {'against': 'largest'})
    """
    if purpose not in PURPOSES:
        raise OptionError(f"There is no purpose {purpose!r}. Expected {' or '.join(PURPOSES)}.")
    if method != "lape":
        raise OptionError(f"A method and a purpose ({purpose}) were both chosen. Give one of them.")
    return PURPOSES[purpose]


def identify(
    stats: ActivationStats,
    method: str | Method | Detector[Any] = "lape",
    *,
    purpose: Purpose | None = None,
    reliability: bool = True,
    **options: object,
) -> LanguageNeurons:
    """Find each language's neurons in recorded statistics.

    `purpose` takes the method that did best at it (`PURPOSES`) instead: to switch a language off ("off"), or to make the model write it ("steer").
    `method`: a name in `lape.detect.DETECTORS`, a function of your own, `stats -> LanguageNeurons`, or a `Detector`. Further keywords are the method's options:
    those of `lape.detect.lape.LapeOptions` for "lape", Tang et al.'s rule with its published thresholds, and so on. With `reliability`, and where
    the method can choose from half of the text, each neuron gets its stability, 0 to 1: the share of halves of the text that select it.

    Raises OptionError for a method, an option or a value that there is not, and for statistics that lack what the method reads.

    Example:
        >>> neurons = lape.identify(stats)
        >>> sorted(neurons)
        ['en', 'fr', 'id', 'zh']
        >>> largest = lape.identify(stats, "difference", per_language=5)
        >>> largest.method, len(largest["fr"])
        ('difference', 5)
        >>> lape.identify(stats, purpose="off", per_language=5).options["against"]
        'largest'
    """
    if purpose is not None:
        best = chosen_for(purpose, method)
        method, options = best.method, {**best.options, **options}
    find = method_named(method)
    detector = DETECTORS[method] if isinstance(method, str) else method
    if isinstance(detector, Detector):
        by_name(detector.options, options)  # refuses what the method has not
    neurons = find(stats, **options)
    if neurons.profile is None and neurons.space == stats.space:  # of a function of the caller's own
        neurons = known(neurons, stats)
    if reliability and halvable(stats, find, options):
        return neurons.with_stability(stability(neurons, stats, partial(find, **options)))
    return neurons


def method_named(method: str | Method | Detector[Any]) -> Method:
    """The function of a method, which may be given by its name."""
    detector = DETECTORS.get(method) if isinstance(method, str) else method
    if isinstance(detector, Detector):
        return detector.find
    if callable(detector):
        return detector
    raise OptionError(
        f"There is no method {method!r}. Expected {', '.join(DETECTORS)}, a function stats -> LanguageNeurons, or a Detector."
    )
