"""Ways of choosing neurons: each is one function from statistics to `LanguageNeurons`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from lape.detect.difference import difference
from lape.detect.lape import lape
from lape.errors import OptionError
from lape.neurons import LanguageNeurons
from lape.stats import ActivationStats

Method: TypeAlias = Callable[..., LanguageNeurons]
METHODS: dict[str, Method] = {"lape": lape, "difference": difference}


def identify(
    stats: ActivationStats,
    method: str | Method = "lape",
    *,
    reliability: bool = True,
    **options: Any,
) -> LanguageNeurons:
    """Find each language's neurons in recorded statistics.

    `method`: "lape", "difference", or a function of your own, `stats -> LanguageNeurons`. Further keywords are the method's
    options: those of `LapeOptions` or `DifferenceOptions`. With `reliability`, and statistics in 8 folds, each neuron gets its stability: the share of
    halves of the text that select it.
    """
    find = method_named(method)
    neurons = find(stats, **options)
    if reliability and stats.folds >= 2 and method == "lape":
        from lape.analyse.reliability import stability

        return neurons.with_stability(stability(stats, neurons, find, **options))
    return neurons


def method_named(method: str | Method) -> Method:
    """The function of a method's name."""
    if callable(method):
        return method
    if method not in METHODS:
        raise OptionError(
            f"There is no method {method!r}. Expected {', '.join(METHODS)}, or a function stats -> LanguageNeurons."
        )
    return METHODS[method]


def halves(folds: int) -> list[tuple[Sequence[int], Sequence[int]]]:
    """All ways to halve the folds: 35 for 8 folds."""
    from itertools import combinations

    first = [(0, *rest) for rest in combinations(range(1, folds), folds // 2 - 1)]
    return [(half, tuple(k for k in range(folds) if k not in half)) for half in first]
