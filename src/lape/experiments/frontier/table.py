"""Own against others over set sizes: ways of choosing compared at equal effect on the language itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from lape.errors import MismatchError, OptionError, TextError
from lape.measure.bootstrap import Floats, Resamples
from lape.measure.intervals import ENDS, MEAN, holm, interval, named_interval, selectivity, two_sided
from lape.model.numerics import check_finite

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
ADVANTAGES = {
    "method": pl.String,
    "against": pl.String,
    "language": pl.String,
    **dict.fromkeys(("own", "selectivity", "selectivity_against"), pl.Float64),
    **dict.fromkeys(("difference", "low", "high", "p", "p_holm"), pl.Float64),
    **dict.fromkeys(("languages", "units"), pl.Int64),
}
"""Columns of `advantages`."""


@dataclass(frozen=True)
class Effects:
    """What switching sets off does, unit by unit of the evaluated text."""

    languages: tuple[str, ...]
    tokens: Floats
    """(languages, units) scored tokens; 0 where a language has no text under a unit's number."""
    nats: Mapping[tuple[str, int], Floats]
    """(method, size) -> (languages off, languages evaluated, units) change of the summed NLL in nats."""
    neurons: Mapping[tuple[str, int], tuple[int | None, ...]]
    """(method, size) -> how many neurons were off, by language; None where no set could be chosen: nothing is known of it."""

    def __post_init__(self) -> None:
        _check(self)

    @property
    def methods(self) -> list[str]:
        """The ways of choosing, in order."""
        return list(dict.fromkeys(method for method, _ in self.nats))

    def sizes(self, method: str) -> list[int]:
        """The sizes at which a method was measured, ascending."""
        found = sorted(size for name, size in self.nats if name == method)
        if not found:
            raise OptionError(f"There is no effect of {method!r}. Measured: {', '.join(self.methods) or 'nothing'}.")
        return found

    @property
    def units(self) -> int:
        """Units of text of the language that has fewest: what an interval stands on."""
        return int((self.tokens > 0).sum(1).min())


def _check(effects: Effects) -> None:
    """Refuse what would give numbers without meaning: shapes that differ, languages without text, losses that are no numbers."""
    languages, (rows, units) = effects.languages, effects.tokens.shape
    expected = (len(languages), len(languages), units)
    for key, nats in effects.nats.items():
        counts = effects.neurons.get(key, ())
        if rows != len(languages) or nats.shape != expected or len(counts) != len(languages):
            raise MismatchError(
                f"The effects of {key[0]}, {key[1]} are {nats.shape} for {len(counts)} sets and tokens of {rows} languages. "
                f"Expected {expected}, a set and tokens of each of {', '.join(languages)}."
            )
        for off, count, row in zip(languages, counts, nats, strict=True):
            for on, one in zip(languages, row, strict=True) if count is not None else ():
                check_finite(one, f"With the neurons of {off} off ({key[0]}, {key[1]}), the loss of {on}")
    silent = [language for language, one in zip(languages, effects.tokens, strict=True) if not (one > 0).any()]
    if silent:
        raise TextError(f"The text for {silent[0]} has no scored token, so nothing can be measured. Give it more text.")


class _Drawn:
    """Own and others, (1 + resamples, languages): all units once, then each resample."""

    def __init__(self, effects: Effects, resamples: int, seed: int) -> None:
        self.effects, self.units = effects, effects.units
        drawn = Resamples(effects.tokens.shape[1], resamples, seed, held=self.units)
        text = (drawn.sums(effects.tokens.T) > 0).all(1)  # a language of which nothing was drawn has no loss
        self.weights: Floats = drawn.weights[text]
        self.tokens: Floats = self.weights @ effects.tokens.T

    def change(self, method: str, size: int) -> Floats:
        """(draws, languages off, languages evaluated) nats a token; not a number where no set could be chosen."""
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

    `neurons` (switched off); `own`, `others` (nats a token), `selectivity`; `_low`, `_high`: 95 % percentile bootstrap over units of
    text, jointly over languages and methods; null under 20 units of the language that has fewest. The mean's selectivity is the
    mean of the languages'. A language of which no set could be chosen has nulls, and so has the mean of that method and size: means
    over different languages do not lie on one frontier.
    """
    drawn = _Drawn(effects, resamples, seed)
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
            rows.append(_row(method, size, MEAN, _mean_of([counts[k] for k in chosen]), averages))
    return pl.DataFrame(rows, schema=FRONTIER)


def _mean_of(counts: Sequence[int | None]) -> float | None:
    known = [count for count in counts if count is not None]
    return float(np.mean(known)) if len(known) == len(counts) else None


def matrix(effects: Effects, resamples: int, seed: int) -> pl.DataFrame:
    """One row per method, size, language off and language evaluated: `change` in nats a token with its interval `low`, `high`.

    Null where no set could be chosen; no interval under 20 units.
    """
    drawn = _Drawn(effects, resamples, seed)
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

    `step`, `from`, `to` (sizes); `difference` of the mean own effect over the languages `over`, nats a token, with `low`, `high`;
    null where one of them has no set of either size.
    """
    drawn = _Drawn(effects, resamples, seed)
    sizes, chosen = effects.sizes(method), _positions(effects, over)
    own = {size: drawn.own_others(method, size)[0][:, chosen].mean(1) for size in sizes}
    steps = [(f"{a} to {b}", a, b) for a, b in pairwise(sizes)]
    if len(sizes) > 1:
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


def _row(method: str, size: int, language: str, neurons: float | None, values: Mapping[str, Floats]) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method, "size": size, "language": language, "neurons": neurons}
    for name, value in values.items():
        row |= named_interval(name, value)
    return row


def advantages(
    effects: Effects, method: str, against: Iterable[str], over: Sequence[str], resamples: int, seed: int
) -> pl.DataFrame:
    """Selectivity of `method` minus that of each other way of choosing, at equal own effect.

    The level is the smaller of the two largest own effects, language by language; between sizes, and from nothing to the smallest,
    others is interpolated along own, where own first reaches the level. A way of choosing without any own effect has selectivity 0,
    and is compared with the smallest set. Sizes of which a language has no set are passed over; a language without any has nulls.
    One row per language and one of the mean over those of `over` that could be compared (`languages`, how many): `own` (the level,
    nats a token), `selectivity`, `selectivity_against`, `difference` with its paired 95 % interval, `p` (two-sided, bootstrap),
    `p_holm` (over the languages of this pair; the mean is a test by itself) and `units` (of the language that has fewest).
    """
    drawn = _Drawn(effects, resamples, seed)
    chosen = _positions(effects, over)
    ours = drawn.curves(method)
    rows: list[dict[str, Any]] = []
    for other in against:
        if other == method:
            continue
        found = [_at_equal_own(a, b) for a, b in zip(ours, drawn.curves(other), strict=True)]
        pair = [_compared([one]) for one in found]
        _holm_over(pair)
        whole = _compared([found[k] for k in chosen])
        named = zip([*effects.languages, MEAN], [*pair, {**whole, "p_holm": whole["p"]}], strict=True)
        rows += [
            {"method": method, "against": other, "language": language, **row, "units": drawn.units}
            for language, row in named
        ]
    return pl.DataFrame(rows, schema=ADVANTAGES)


def _compared(found: Sequence[Floats]) -> dict[str, Any]:
    """A row of the mean over languages, (3, draws) each: the level and both selectivities there."""
    known = [one for one in found if not np.isnan(one[0, 0])]
    if not known:
        names = ("own", "selectivity", "selectivity_against", "difference", "low", "high", "p")
        return {**dict.fromkeys(names), "languages": 0}
    level, mine, theirs = np.mean(known, axis=0)
    difference, low, high = interval(mine - theirs)
    return {
        "own": float(level[0]),
        "selectivity": float(mine[0]),
        "selectivity_against": float(theirs[0]),
        "difference": difference,
        "low": low,
        "high": high,
        "p": two_sided(mine - theirs),
        "languages": len(known),
    }


def _at_equal_own(ours: tuple[Floats, Floats], theirs: tuple[Floats, Floats]) -> Floats:
    """(3, draws): the level, and both selectivities there; not a number where either has no set of any size."""
    if min(ours[0].shape[1], theirs[0].shape[1]) < 2:
        return np.full((3, len(ours[0])), np.nan)
    level = np.minimum(ours[0].max(1), theirs[0].max(1))
    result = [level]
    for own, others in (ours, theirs):
        at = selectivity(level, _along(own, others, level))
        first = selectivity(own[:, 1], others[:, 1])  # 0 as well where no size has an own effect
        result.append(np.where(level > 0, at, first))
    return np.stack(result)


def _along(own: Floats, others: Floats, level: Floats) -> Floats:
    """Others where own first reaches a level, on the straight lines between sizes."""
    reached = np.maximum((own >= level[:, None]).argmax(1), 1)[:, None]
    a, b = (np.take_along_axis(own, at, 1)[:, 0] for at in (reached - 1, reached))
    x, y = (np.take_along_axis(others, at, 1)[:, 0] for at in (reached - 1, reached))
    share = np.divide(level - a, b - a, out=np.ones_like(level), where=b > a)
    between: Floats = x + np.clip(share, 0.0, 1.0) * (y - x)
    return between


def _holm_over(rows: Sequence[dict[str, Any]]) -> None:
    corrected = iter(holm([row["p"] for row in rows if row["p"] is not None]))
    for row in rows:
        row["p_holm"] = None if row["p"] is None else next(corrected)
