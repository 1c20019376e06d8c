"""Find each language's neurons by a method's name."""

from __future__ import annotations

from typing import Any

from lape.detect import DETECTORS
from lape.detect.detector import Method
from lape.detect.halves import halvable
from lape.detect.stability import stability
from lape.errors import OptionError
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats


def identify(
    stats: ActivationStats,
    method: str | Method = "lape",
    *,
    reliability: bool = True,
    **options: Any,
) -> LanguageNeurons:
    """Find each language's neurons in recorded statistics.

    `method`: a name in `lape.detect.DETECTORS`, or a function of your own, `stats -> LanguageNeurons`. Further keywords are the method's options,
    those of `lape.detect.lape.LapeOptions` for "lape" and so on. With `reliability`, and where the method can choose from half of
    the text, each neuron gets its stability: the share of halves of the text that select it.
    """
    find = method_named(method)
    neurons = find(stats, **options)
    if reliability and halvable(stats, find, options):
        return neurons.with_stability(stability(stats, neurons, find, **options))
    return neurons


def method_named(method: str | Method) -> Method:
    """The function of a method's name."""
    if callable(method):
        return method
    if method not in DETECTORS:
        raise OptionError(
            f"There is no method {method!r}. Expected {', '.join(DETECTORS)}, or a function stats -> LanguageNeurons."
        )
    return DETECTORS[method].find
