"""Own against others over set sizes, with intervals: tables from measured effects, in nats per sentence.

A sentence says the same in every language of parallel text, a token does not: nats per token of two languages cannot be compared or averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from lape.errors import OptionError
from lape.measure.bootstrap import Floats, Resamples
from lape.measure.effects import Effects
from lape.measure.intervals import ENDS, MEAN, resampled, selectivity

FRONTIER = {
    "method": pl.String,
    "size": pl.Int64,
    "language": pl.String,
    "neurons": pl.Float64,
    **resampled("own"),
    **{f"{name}{end}": pl.Float64 for name in ("others", "worst", "selectivity") for end in ENDS},
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
    **resampled("difference", plain=True),
}
"""Columns of `growth`."""


@dataclass(frozen=True)
class Effect:
    """What one method's sets of one size do: (rows, languages) each, nats per sentence."""

    own: Floats
    others: Floats
    """Mean over the other languages."""
    worst: Floats
    """Of the other language that loses most."""


class Drawn:
    """Effects on all units, on each resample, and with each unit left out."""

    def __init__(self, effects: Effects, resamples: int, seed: int) -> None:
        self.effects, self.units = effects, effects.units
        self.resamples = Resamples(effects.sentences.shape[1], resamples, seed, held=self.units)
        held = self.resamples.sums(effects.sentences.T)
        self._sentences: Floats = np.where(held > 0, held, np.nan)
        """A language of which nothing was drawn has no loss."""

    def change(self, method: str, size: int) -> Floats:
        """(rows, languages off, languages evaluated) nats per sentence; not a number where no set could be chosen."""
        nats = self.effects.nats[method, size]
        languages = len(nats)
        summed = self.resamples.sums(nats.reshape(languages * languages, -1).T)
        change: Floats = summed.reshape(-1, languages, languages) / self._sentences[:, None, :]
        change[:, [count is None for count in self.effects.neurons[method, size]]] = np.nan
        return change

    def effect(self, method: str, size: int) -> Effect:
        """Own, others and the worst other. Raises OptionError where a single language was evaluated."""
        change = self.change(method, size)
        if change.shape[2] < 2:
            raise OptionError("Only one language was evaluated. The effect on others needs two or more.")
        own: Floats = np.einsum("rkk->rk", change)
        rest = change.copy()
        rest[:, range(rest.shape[1]), range(rest.shape[1])] = -np.inf
        return Effect(own, (change.sum(2) - own) / (change.shape[2] - 1), rest.max(2))


def frontier(effects: Effects, over: Sequence[str], resamples: int, seed: int) -> pl.DataFrame:
    """One row per method, size and language, and one of the mean over the languages `over`.

    `neurons` (switched off); `own`, `others` (mean of the other languages) and `worst` (the other language that loses most) in nats per sentence;
    `selectivity`, own / (own + others); `_low`, `_high`: 95 % intervals (`lape.measure.bootstrap.Resamples`) over units of text, jointly over languages
    and methods; null under 20 units of the language that has fewest. The mean's selectivity is the mean of the languages'. A language of which no set could
    be chosen has nulls, and so has the mean of that method and size: means over different languages do not lie on one frontier.
    Raises OptionError for a single language, which has no others, or for one of `over` that was not measured.

    Example:
        >>> import numpy as np
        >>> from lape.measure.effects import Effects
        >>> from lape.measure.frontier import frontier
        >>> sentences, nats = np.ones((2, 32)), np.full((2, 2, 32), 1.0)
        >>> nats[0, 0] = nats[1, 1] = 3.0  # of a set in its own language
        >>> measured = Effects(("en", "fr"), sentences, {("lape", 100): nats}, {("lape", 100): (100, 100)})
        >>> frontier(measured, ["en", "fr"], resamples=100, seed=0).select("language", "own", "others", "selectivity").rows()
        [('en', 3.0, 1.0, 0.75), ('fr', 3.0, 1.0, 0.75), ('mean', 3.0, 1.0, 0.75)]
    """
    drawn = Drawn(effects, resamples, seed)
    chosen = positions(effects, over)
    rows = []
    for method in effects.methods:
        for size in effects.sizes(method):
            found = drawn.effect(method, size)
            counts = effects.neurons[method, size]
            share = selectivity(found.own, found.others)
            values = {"own": found.own, "others": found.others, "worst": found.worst, "selectivity": share}
            for k, language in enumerate(effects.languages):
                of = {name: value[:, k] for name, value in values.items()}
                rows.append(_row(drawn.resamples, method, size, language, counts[k], of))
            averages = {name: value[:, chosen].mean(1) for name, value in values.items()}
            rows.append(_row(drawn.resamples, method, size, MEAN, _mean_of([counts[k] for k in chosen]), averages))
    return pl.DataFrame(rows, schema=FRONTIER)


def _mean_of(counts: Sequence[int | None]) -> float | None:
    known = [count for count in counts if count is not None]
    return float(np.mean(known)) if len(known) == len(counts) else None


def matrix(effects: Effects, resamples: int, seed: int) -> pl.DataFrame:
    """One row per method, size, language off and language evaluated: `change` in nats per sentence with its interval `low`, `high`.

    Null where no set could be chosen; no interval under 20 units.
    """
    drawn = Drawn(effects, resamples, seed)
    rows = []
    for method, size in effects.nats:
        change = drawn.change(method, size)
        for k, off in enumerate(effects.languages):
            for j, language in enumerate(effects.languages):
                row = {"method": method, "size": size, "off": off, "language": language}
                rows.append(row | drawn.resamples.plain("change", change[:, k, j]))
    return pl.DataFrame(rows, schema=MATRIX)


def growth(effects: Effects, method: str, over: Sequence[str], resamples: int, seed: int) -> pl.DataFrame:
    """One row per step from a size to the next larger, and one from the smallest to the largest: the paired change of own.

    `step`, `from`, `to` (sizes); `difference` of the mean own effect over the languages `over`, nats per sentence, with `low`, `high`, `quantiles`;
    null where one of them has no set of either size.
    """
    drawn = Drawn(effects, resamples, seed)
    sizes, chosen = effects.sizes(method), positions(effects, over)
    own = {size: drawn.effect(method, size).own[:, chosen].mean(1) for size in sizes}
    steps = [(f"{a} to {b}", a, b) for a, b in pairwise(sizes)]
    if len(sizes) > 1:
        steps.append(("smallest to largest", sizes[0], sizes[-1]))
    rows = []
    for name, a, b in steps:
        found = drawn.resamples.plain("difference", own[b] - own[a], quantiles=True)
        rows.append({"step": name, "from": a, "to": b, **found})
    return pl.DataFrame(rows, schema=GROWTH)


def positions(effects: Effects, over: Sequence[str]) -> list[int]:
    """Where the languages that averages are over stand. Raises OptionError for those that were not measured."""
    missing = [language for language in over if language not in effects.languages]
    if missing or not over:
        raise OptionError(
            f"There is no effect for {', '.join(missing) or 'any language'}. Measured: {', '.join(effects.languages)}."
        )
    return [effects.languages.index(language) for language in over]


def _row(
    drawn: Resamples, method: str, size: int, language: str, neurons: float | None, values: Mapping[str, Floats]
) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method, "size": size, "language": language, "neurons": neurons}
    for name, value in values.items():
        row |= drawn.named(name, value, quantiles=name == "own")
    return row
