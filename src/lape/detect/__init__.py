"""Ways of choosing neurons: each is one function from statistics to `LanguageNeurons`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from lape.detect.alignment import alignment
from lape.detect.ap import ap
from lape.detect.attribution import attribution
from lape.detect.difference import difference
from lape.detect.lap import lap
from lape.detect.lape import lape
from lape.detect.lave import lave
from lape.detect.probability90 import probability90
from lape.detect.random import random
from lape.detect.variation import variation
from lape.errors import OptionError
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

Method: TypeAlias = Callable[..., LanguageNeurons]
METHODS: dict[str, Method] = {
    "lape": lape,
    "lap": lap,
    "lave": lave,
    "random": random,
    "alignment": alignment,
    "difference": difference,
    "attribution": attribution,
    "ap": ap,
    "probability90": probability90,
    "variation": variation,
}


def identify(
    stats: ActivationStats,
    method: str | Method = "lape",
    *,
    reliability: bool = True,
    **options: Any,
) -> LanguageNeurons:
    """Find each language's neurons in recorded statistics.

    `method`: a name in `METHODS`, or a function of your own, `stats -> LanguageNeurons`. Further keywords are the method's options,
    those of `LapeOptions` for "lape" and so on: see `lape.options`. With `reliability`, and where the method can choose from half of
    the text, each neuron gets its stability: the share of halves of the text that select it.
    """
    find = method_named(method)
    neurons = find(stats, **options)
    if reliability and halvable(stats, find, options):
        from lape.detect.stability import stability

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


def halvable(stats: ActivationStats, find: Method, options: dict[str, Any]) -> bool:
    """Whether a method can choose from half of the text: it takes `folds`, and what it reads is kept by folds."""
    if stats.folds < 2 or "folds" not in inspect.signature(find).parameters or find is random:
        return False
    try:
        find(stats, folds=tuple(range(stats.folds // 2)), **options)
    except OptionError:
        return False
    return True


def halves(folds: int) -> list[tuple[Sequence[int], Sequence[int]]]:
    """All ways to halve the folds: 35 for 8 folds."""
    from itertools import combinations

    first = [(0, *rest) for rest in combinations(range(1, folds), folds // 2 - 1)]
    return [(half, tuple(k for k in range(folds) if k not in half)) for half in first]
