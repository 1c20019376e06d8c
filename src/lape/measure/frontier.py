"""Own against others over set sizes, with intervals: tables from measured effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from lape.errors import OptionError
from lape.measure.bootstrap import Floats, Resamples
from lape.measure.effects import Effects
from lape.measure.intervals import ENDS, MEAN, interval, named_interval, selectivity

FRONTIER = {
    "method": pl.String,
    "size": pl.Int64,
    "language": pl.String,
    "neurons": pl.Float64,
    **{f"{name}{end}": pl.Float64 for name in ("own", "others", "selectivity") for end in ENDS},
}
"""Columns of `frontier`."""


MATRIX = {
    "method": pl.String,
    "size": pl.Int64,
    **dict.fromkeys(("off", "language"), pl.String),
    **dict.fromkeys(("change", "low", "high"), pl.Float64),
}
"""Columns of `matrix`."""


GROWTH = {
    "step": pl.String,
    **dict.fromkeys(("from", "to"), pl.Int64),
    **dict.fromkeys(("difference", "low", "high"), pl.Float64),
}
"""Columns of `growth`."""


class Drawn:
    """Own and others, (1 + resamples, languages): all units once, then each resample."""

    def __init__(self, effects: Effects, resamples: int, seed: int) -> None:
        self.effects, self.units = effects, effects.units
        drawn = Resamples(effects.tokens.shape[1], resamples, seed, held=self.units)
        text = (drawn.sums(effects.tokens.T) > 0).all(1)  # a language of which nothing was drawn has no loss
        self.weights: Floats = drawn.weights[text]
        self.tokens: Floats = self.weights @ effects.tokens.T

    def change(self, method: str, size: int) -> Floats:
        """(draws, languages off, languages evaluated) nats per token; not a number where no set could be chosen."""
        nats = self.effects.nats[method, size]
        languages = len(nats)
        summed = self.weights @ nats.reshape(languages * languages, -1).T
        change: Floats = summed.reshape(-1, languages, languages) / self.tokens[:, None, :]
        change[:, [count is None for count in self.effects.neurons[method, size]]] = np.nan
        return change

    def own_others(self, method: str, size: int) -> tuple[Floats, Floats]:
        """(draws, languages) each."""
        change = self.change(method, size)
        if change.shape[2] < 2:
            raise OptionError("Only one language was evaluated. The effect on others needs two or more.")
        own: Floats = np.einsum("rkk->rk", change)
        others: Floats = (change.sum(2) - own) / (change.shape[2] - 1)
        return own, others

    def curves(self, method: str) -> list[tuple[Floats, Floats]]:
        """For each language (draws, 1 + sizes that it has a set of) each, beginning with no neuron and no effect."""
        points = [self.own_others(method, size) for size in self.effects.sizes(method)]
        nothing = np.zeros(len(self.weights))
        result = []
        for k in range(len(self.effects.languages)):
            known = [(own[:, k], others[:, k]) for own, others in points if not np.isnan(own[0, k])]
            own, others = (np.stack([nothing, *(point[n] for point in known)], 1) for n in (0, 1))
            result.append((own, others))
        return result


def frontier(effects: Effects, over: Sequence[str], resamples: int, seed: int) -> pl.DataFrame:
    """One row per method, size and language, and one of the mean over the languages `over`.

    `neurons` (switched off); `own`, `others` (nats per token), `selectivity`; `_low`, `_high`: 95 % percentile bootstrap over units of
    text, jointly over languages and methods; null under 20 units of the language that has fewest. The mean's selectivity is the
    mean of the languages'. A language of which no set could be chosen has nulls, and so has the mean of that method and size: means
    over different languages do not lie on one frontier. Raises OptionError for a single language, which has no others, or for one of `over` that
    was not measured.

    Example:
        >>> import numpy as np
        >>> from lape.measure.effects import Effects
        >>> from lape.measure.frontier import frontier
        >>> tokens, nats = np.full((2, 32), 8.0), np.full((2, 2, 32), 1.0)
        >>> nats[0, 0] = nats[1, 1] = 3.0  # of a set in its own language
        >>> measured = Effects(("en", "fr"), tokens, {("lape", 100): nats}, {("lape", 100): (100, 100)})
        >>> frontier(measured, ["en", "fr"], resamples=100, seed=0).select("language", "own", "others", "selectivity").rows()
        [('en', 0.375, 0.125, 0.75), ('fr', 0.375, 0.125, 0.75), ('mean', 0.375, 0.125, 0.75)]
    """
    drawn = Drawn(effects, resamples, seed)
    chosen = positions(effects, over)
    rows = []
    for method in effects.methods:
        for size in effects.sizes(method):
            own, others = drawn.own_others(method, size)
            share = selectivity(own, others)
            counts = effects.neurons[method, size]
            values = {"own": own, "others": others, "selectivity": share}
            for k, language in enumerate(effects.languages):
                rows.append(_row(method, size, language, counts[k], {n: v[:, k] for n, v in values.items()}))
            averages = {name: value[:, chosen].mean(1) for name, value in values.items()}
            rows.append(_row(method, size, MEAN, _mean_of([counts[k] for k in chosen]), averages))
    return pl.DataFrame(rows, schema=FRONTIER)


def _mean_of(counts: Sequence[int | None]) -> float | None:
    known = [count for count in counts if count is not None]
    return float(np.mean(known)) if len(known) == len(counts) else None


def matrix(effects: Effects, resamples: int, seed: int) -> pl.DataFrame:
    """One row per method, size, language off and language evaluated: `change` in nats per token with its interval `low`, `high`.

    Null where no set could be chosen; no interval under 20 units.
    """
    drawn = Drawn(effects, resamples, seed)
    rows = []
    for method, size in effects.nats:
        change = drawn.change(method, size)
        for k, off in enumerate(effects.languages):
            for j, language in enumerate(effects.languages):
                value, low, high = interval(change[:, k, j])
                row = {"method": method, "size": size, "off": off, "language": language}
                rows.append({**row, "change": value, "low": low, "high": high})
    return pl.DataFrame(rows, schema=MATRIX)


def growth(effects: Effects, method: str, over: Sequence[str], resamples: int, seed: int) -> pl.DataFrame:
    """One row per step from a size to the next larger, and one from the smallest to the largest: the paired change of own.

    `step`, `from`, `to` (sizes); `difference` of the mean own effect over the languages `over`, nats per token, with `low`, `high`;
    null where one of them has no set of either size.
    """
    drawn = Drawn(effects, resamples, seed)
    sizes, chosen = effects.sizes(method), positions(effects, over)
    own = {size: drawn.own_others(method, size)[0][:, chosen].mean(1) for size in sizes}
    steps = [(f"{a} to {b}", a, b) for a, b in pairwise(sizes)]
    if len(sizes) > 1:
        steps.append(("smallest to largest", sizes[0], sizes[-1]))
    rows = []
    for name, a, b in steps:
        value, low, high = interval(own[b] - own[a])
        rows.append({"step": name, "from": a, "to": b, "difference": value, "low": low, "high": high})
    return pl.DataFrame(rows, schema=GROWTH)


def positions(effects: Effects, over: Sequence[str]) -> list[int]:
    """Where the languages that averages are over stand. Raises OptionError for those that were not measured."""
    missing = [language for language in over if language not in effects.languages]
    if missing or not over:
        raise OptionError(
            f"There is no effect for {', '.join(missing) or 'any language'}. Measured: {', '.join(effects.languages)}."
        )
    return [effects.languages.index(language) for language in over]


def _row(method: str, size: int, language: str, neurons: float | None, values: Mapping[str, Floats]) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method, "size": size, "language": language, "neurons": neurons}
    for name, value in values.items():
        row |= named_interval(name, value)
    return row
