"""Own against others over set sizes: ways of choosing compared at equal effect on the language itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from lape.errors import OptionError
from lape.evaluate.bootstrap import FEWEST, Bootstrap, Floats

MEAN = "mean"
"""Stands for the language in rows that average over languages."""
FRONTIER = {
    "method": pl.String,
    "size": pl.Int64,
    "language": pl.String,
    "neurons": pl.Float64,
    **{f"{name}{end}": pl.Float64 for name in ("own", "others", "selectivity") for end in ("", "_low", "_high")},
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
ADVANTAGES = {
    "method": pl.String,
    "against": pl.String,
    "language": pl.String,
    **dict.fromkeys(("own", "selectivity", "selectivity_against"), pl.Float64),
    **dict.fromkeys(("difference", "low", "high", "p", "p_holm"), pl.Float64),
    "units": pl.Int64,
}
"""Columns of `advantages`."""


@dataclass(frozen=True)
class Effects:
    """What switching sets off does, unit by unit of the evaluated text."""

    languages: tuple[str, ...]
    tokens: Floats
    """(languages, units) scored tokens."""
    nats: Mapping[tuple[str, int], Floats]
    """(method, size) -> (languages off, languages evaluated, units) change of the summed NLL in nats."""
    neurons: Mapping[tuple[str, int], tuple[int, ...]]
    """(method, size) -> how many neurons were off, by language."""

    @property
    def methods(self) -> list[str]:
        """The ways of choosing, in order."""
        return list(dict.fromkeys(method for method, _ in self.nats))

    def sizes(self, method: str) -> list[int]:
        """The sizes at which a method was measured, ascending."""
        return sorted(size for name, size in self.nats if name == method)


class _Resampled:
    """Own and others, (1 + resamples, languages): all units once, then each resample."""

    def __init__(self, effects: Effects, resamples: int, seed: int) -> None:
        self.effects = effects
        count = effects.tokens.shape[1]
        self.units = count
        drawn = Bootstrap(count, resamples if count >= FEWEST else 0, seed).weights
        self.weights: Floats = np.concatenate([np.ones((1, count)), drawn])
        self.tokens = np.maximum(self.weights @ effects.tokens.T, 1e-9)

    def change(self, method: str, size: int) -> Floats:
        """(draws, languages off, languages evaluated) nats a token."""
        nats = self.effects.nats[method, size]
        change: Floats = np.einsum("ru,kju->rkj", self.weights, nats) / self.tokens[:, None, :]
        return change

    def own_others(self, method: str, size: int) -> tuple[Floats, Floats]:
        """(draws, languages) each."""
        change = self.change(method, size)
        own: Floats = np.einsum("rkk->rk", change)
        others: Floats = (change.sum(2) - own) / (change.shape[2] - 1)
        return own, others

    def curve(self, method: str) -> tuple[Floats, Floats]:
        """(draws, languages, 1 + sizes) each, beginning with no neuron and no effect."""
        points = [self.own_others(method, size) for size in self.effects.sizes(method)]
        nothing = np.zeros_like(points[0][0])
        own = np.stack([nothing, *(own for own, _ in points)], 2)
        others = np.stack([nothing, *(others for _, others in points)], 2)
        return own, others


def selectivity(own: Floats, others: Floats) -> Floats:
    """Own / (own + others), both clipped at 0; 0 where there is no own effect."""
    a, b = np.maximum(own, 0.0), np.maximum(others, 0.0)
    share: Floats = np.divide(a, a + b, out=np.zeros_like(a), where=a > 0)
    return share


def frontier(effects: Effects, over: Sequence[str], resamples: int, seed: int) -> pl.DataFrame:
    """One row per method, size and language, and one of the mean over the languages `over`.

    `neurons` (switched off); `own`, `others` (nats a token), `selectivity`; `_low`, `_high`: 95 % percentile bootstrap over units of
    text, jointly over languages and methods; null under 20 units. The mean's selectivity is the mean of the languages'.
    """
    drawn = _Resampled(effects, resamples, seed)
    chosen = _positions(effects, over)
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
            rows.append(_row(method, size, MEAN, float(np.mean([counts[k] for k in chosen])), averages))
    return pl.DataFrame(rows, schema=FRONTIER)


def matrix(effects: Effects, resamples: int, seed: int) -> pl.DataFrame:
    """One row per method, size, language off and language evaluated: `change` in nats a token with its interval `low`, `high`."""
    drawn = _Resampled(effects, resamples, seed)
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

    `step`, `from`, `to` (sizes); `difference` of the mean own effect over the languages `over`, nats a token, with `low`, `high`.
    """
    drawn = _Resampled(effects, resamples, seed)
    sizes, chosen = effects.sizes(method), _positions(effects, over)
    own = {size: drawn.own_others(method, size)[0][:, chosen].mean(1) for size in sizes}
    steps = [(f"{a} to {b}", a, b) for a, b in pairwise(sizes)]
    if len(sizes) > 2:
        steps.append(("smallest to largest", sizes[0], sizes[-1]))
    rows = []
    for name, a, b in steps:
        value, low, high = interval(own[b] - own[a])
        rows.append({"step": name, "from": a, "to": b, "difference": value, "low": low, "high": high})
    return pl.DataFrame(rows, schema=GROWTH)


def _positions(effects: Effects, over: Sequence[str]) -> list[int]:
    missing = [language for language in over if language not in effects.languages]
    if missing or not over:
        raise OptionError(
            f"There is no effect for {', '.join(missing) or 'any language'}. Measured: {', '.join(effects.languages)}."
        )
    return [effects.languages.index(language) for language in over]


def _row(method: str, size: int, language: str, neurons: float, values: Mapping[str, Floats]) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method, "size": size, "language": language, "neurons": float(neurons)}
    for name, value in values.items():
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), interval(value), strict=True))
    return row


def interval(values: Floats) -> tuple[float, float | None, float | None]:
    """The value on all units and the 95 % interval of the draws, if there were any."""
    if len(values) < 2:
        return float(values[0]), None, None
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return float(values[0]), float(low), float(high)


def two_sided(values: Floats) -> float | None:
    """The bootstrap's two-sided p of a difference being 0: twice the smaller share of draws at or beyond it."""
    if len(values) < 2:
        return None
    drawn = values[1:]
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(drawn) + 1))


def advantages(
    effects: Effects, method: str, against: Iterable[str], over: Sequence[str], resamples: int, seed: int
) -> pl.DataFrame:
    """Selectivity of `method` minus that of each other way of choosing, at equal own effect.

    The level is the smaller of the two largest own effects, language by language; between sizes, and from nothing to the smallest,
    others is interpolated along own. A way of choosing without any own effect has selectivity 0, and is compared with the smallest
    set. One row per language and one of the mean over `over`: `own` (the level, nats a token), `selectivity`,
    `selectivity_against`, `difference` with its paired 95 % interval, `p` (two-sided, bootstrap) and `p_holm` (over `against`).
    """
    drawn = _Resampled(effects, resamples, seed)
    chosen = _positions(effects, over)
    ours = drawn.curve(method)
    rows: list[dict[str, Any]] = []
    for other in against:
        if other == method:
            continue
        level, mine, theirs = _at_equal_own(ours, drawn.curve(other))
        for k, language in [*enumerate(effects.languages), (None, MEAN)]:
            pick = [k] if k is not None else chosen
            values = [value[:, pick].mean(1) for value in (level, mine, theirs)]
            gap = values[1] - values[2]
            difference, low, high = interval(gap)
            rows.append(
                {
                    "method": method,
                    "against": other,
                    "language": language,
                    "own": float(values[0][0]),
                    "selectivity": float(values[1][0]),
                    "selectivity_against": float(values[2][0]),
                    "difference": difference,
                    "low": low,
                    "high": high,
                    "p": two_sided(gap),
                    "units": drawn.units,
                }
            )
    _holm_by_language(rows)
    return pl.DataFrame(rows, schema=ADVANTAGES)


def _at_equal_own(ours: tuple[Floats, Floats], theirs: tuple[Floats, Floats]) -> tuple[Floats, Floats, Floats]:
    """(draws, languages) each: the level, and both selectivities there."""
    level = np.minimum(ours[0].max(2), theirs[0].max(2))
    result = []
    for own, others in (ours, theirs):
        at = selectivity(level, _along(own, others, level))
        none = own.max(2) <= 0
        first = selectivity(own[:, :, 1], others[:, :, 1])
        result.append(np.where(level > 0, at, np.where(none, 0.0, first)))
    return level, result[0], result[1]


def _along(own: Floats, others: Floats, level: Floats) -> Floats:
    """Others where own first reaches a level, on the straight lines between sizes."""
    reached = np.maximum((own >= level[:, :, None]).argmax(2), 1)[:, :, None]
    a, b = (np.take_along_axis(own, at, 2)[:, :, 0] for at in (reached - 1, reached))
    x, y = (np.take_along_axis(others, at, 2)[:, :, 0] for at in (reached - 1, reached))
    share = np.divide(level - a, b - a, out=np.ones_like(level), where=b > a)
    between: Floats = x + np.clip(share, 0.0, 1.0) * (y - x)
    return between


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction of several p values (Holm 1979)."""
    order = sorted(range(len(p)), key=lambda k: p[k])
    result, largest = [0.0] * len(p), 0.0
    for rank, k in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[k]))
        result[k] = largest
    return result


def _holm_by_language(rows: list[dict[str, Any]]) -> None:
    for language in dict.fromkeys(row["language"] for row in rows):
        known = [row for row in rows if row["language"] == language and row["p"] is not None]
        for row, p in zip(known, holm([row["p"] for row in known]), strict=True):
            row["p_holm"] = p
    for row in rows:
        row.setdefault("p_holm", None)
