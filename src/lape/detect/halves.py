"""All ways to halve the folds of statistics, and which methods can choose from half of the text."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from lape.detect.detector import Method
from lape.detect.random import random
from lape.errors import OptionError
from lape.values.stats import ActivationStats


def halvable(stats: ActivationStats, find: Method, options: Mapping[str, Any]) -> bool:
    """Whether a method can choose from half of the text: it takes `folds`, and what it reads is kept by folds."""
    if stats.folds < 2 or "folds" not in inspect.signature(find).parameters or find is random:
        return False
    try:
        find(stats, folds=tuple(range(stats.folds // 2)), **options)
    except OptionError:
        return False
    return True


def halves(folds: int) -> list[tuple[Sequence[int], Sequence[int]]]:
    """All ways to halve the folds: 35 for 8 folds; none for fewer than two."""
    if folds < 2:
        return []
    first = [(0, *rest) for rest in combinations(range(1, folds), folds // 2 - 1)]
    return [(half, tuple(k for k in range(folds) if k not in half)) for half in first]
