"""How much sets move with the amount of text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from lape.detect.detector import Method
from lape.detect.stability import UNION, disjoint_groups, has_text, mean_tokens, set_jaccard
from lape.values.stats import ActivationStats

AMOUNT = {
    "folds": pl.Int64,
    "tokens": pl.Int64,
    "language": pl.String,
    **dict.fromkeys(("median", "low", "high"), pl.Float64),
    "halvings": pl.Int64,
}


def amount(stats: ActivationStats, find: Method, *, seed: int = 0) -> pl.DataFrame:
    """The reliability curve: Jaccard of sets found in two disjoint groups of 1, 2, … folds (ours).

    `find`: a method with its options, such as `functools.partial(lape, rate=0.02)`. One row per number of folds and language (and the union):
    `tokens` (mean of a group, over languages), `median`, and the 5th
    and 95th percentile over random pairs of groups as `low` and `high` (a spread, not a confidence interval), and `halvings`, how many such
    pairs there are. Sets under 20 neurons have none; groups in which a language has no text are passed over.

    Example:
        >>> from lape.detect.lap import lap
        >>> from lape.experiments.amount.run import amount
        >>> amount(stats, lap)["folds"].unique().sort().to_list()
        [1, 2, 3, 4]
    """
    rows = []
    for count in range(1, stats.folds // 2 + 1):
        pairs = [
            (find(stats, folds=a), find(stats, folds=b))
            for a, b in disjoint_groups(stats.folds, count, seed)
            if has_text(stats, a) and has_text(stats, b)
        ]
        tokens = round(mean_tokens(stats) * count / stats.folds)
        for language in [*stats.languages, UNION]:
            values = [set_jaccard(a, b, language) for a, b in pairs]
            rows.append({"folds": count, "tokens": tokens, "language": language, **_spread(values)})
    return pl.DataFrame(rows, schema=AMOUNT)


def _spread(values: Sequence[float | None]) -> dict[str, float | int]:
    known = [value for value in values if value is not None]
    if len(known) < len(values) / 2 or not known:
        return {}
    low, middle, high = np.quantile(known, [0.05, 0.5, 0.95])
    return {"median": float(middle), "low": float(low), "high": float(high), "halvings": len(known)}
