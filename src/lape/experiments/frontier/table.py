"""Selection methods compared at equal effect on the language itself: at fixed levels, and over all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from lape.errors import OptionError
from lape.measure.bootstrap import Floats, Resamples
from lape.measure.effects import Effects
from lape.measure.frontier import Drawn, positions
from lape.measure.intervals import (
    ENDS,
    MEAN,
    QUANTILES,
    Estimate,
    holm_known,
    over_languages,
    p_at,
    resampled,
    selectivity,
)

LEVELS = (0.25, 0.5, 0.75, 1.0)
"""Own effects at which methods are compared, as shares of the reference's. They were fixed before any method was measured at them."""
_STEPS = 25
"""Levels by which an area is made."""
Key: TypeAlias = tuple[str, int]
"""A method and a size."""

AT_LEVELS = {
    **dict.fromkeys(("method", "language"), pl.String),
    **dict.fromkeys(("level", "own"), pl.Float64),
    **{f"{name}{end}": pl.Float64 for name in ("others", "worst", "selectivity") for end in ENDS},
}
"""Columns of `at_levels`."""
ADVANTAGES = {
    **dict.fromkeys(("method", "against", "language", "at"), pl.String),
    **dict.fromkeys(("own", "others", "others_against"), pl.Float64),
    **resampled("difference", plain=True),
    **resampled("worst_difference"),
    **dict.fromkeys(("selectivity", "selectivity_against", "p", "p_holm", "covered"), pl.Float64),
    **dict.fromkeys(("languages", "favoured", "units"), pl.Int64),
}
"""Columns of `advantages`."""
AREA = "area"
"""Stands for the mean over all levels that both methods were measured at."""
_INTERVALS = [name for name in ADVANTAGES if name.endswith(("low", "high", QUANTILES))] + ["p"]


@dataclass(frozen=True)
class _Curve:
    """What a method's sets do in one language, (rows, sizes) each, by size."""

    own: Floats
    others: Floats
    worst: Floats

    @property
    def measured(self) -> tuple[float, float]:
        """The smallest and the largest own effect of its sizes, on all units; nothing lies between where there is none."""
        own = self.own[0]
        return (float(own.min()), float(own.max())) if len(own) > 1 else (np.inf, -np.inf)

    def at(self, level: Floats) -> tuple[Floats, Floats]:
        """(rows,) others and worst where own first reaches a level (rows,), on straight lines between sizes. A resample that begins above the level
        takes the first size; a resample that never reaches it takes the last.
        """
        reached = np.maximum((self.own >= level[:, None]).argmax(1), 1)
        reached = np.where((self.own < level[:, None]).all(1), self.own.shape[1] - 1, reached)[:, None]
        a, b = (np.take_along_axis(self.own, at, 1)[:, 0] for at in (reached - 1, reached))
        share = np.clip(np.divide(level - a, b - a, out=np.ones_like(level), where=b > a), 0.0, 1.0)
        share[self.own[:, 0] >= level] = 0.0
        found = []
        for values in (self.others, self.worst):
            x, y = (np.take_along_axis(values, at, 1)[:, 0] for at in (reached - 1, reached))
            found.append(x + share * (y - x))
        return found[0], found[1]


class _Curves:
    """All methods, and the own effect of the reference, of which levels are shares."""

    def __init__(self, effects: Effects, reference: Key, resamples: int, seed: int) -> None:
        if reference not in effects.nats:
            known = ", ".join(f"{method} {size}" for method, size in effects.nats)
            raise OptionError(f"There is no effect of the reference {reference[0]} {reference[1]}. Measured: {known}.")
        self.effects, self.drawn = effects, Drawn(effects, resamples, seed)
        self.reference = self.drawn.effect(*reference).own
        """(rows, languages)"""

    def of(self, method: str) -> list[_Curve]:
        """One a language, over the sizes of which it has a set."""
        points = [self.drawn.effect(method, size) for size in self.effects.sizes(method)]
        result = []
        for k in range(len(self.effects.languages)):
            known = [one for one in points if not np.isnan(one.own[0, k])] or points[:1]
            columns = [np.stack([getattr(one, name)[:, k] for one in known], 1) for name in ("own", "others", "worst")]
            result.append(_Curve(*columns))
        return result

    def between(self, k: int, *curves: _Curve) -> tuple[float, float]:
        """The shares of the reference between which all curves were measured, within the levels; the first is larger where there are none."""
        whole = float(self.reference[0, k])
        if not whole > 0:
            return np.inf, -np.inf
        low = max(LEVELS[0], *(one.measured[0] / whole for one in curves))
        high = min(LEVELS[-1], *(one.measured[1] / whole for one in curves))
        return low, high


def at_levels(
    effects: Effects, over: Sequence[str], *, reference: Key, resamples: int = 2000, seed: int = 0
) -> pl.DataFrame:
    """What each method costs the other languages at fixed own effects: one row per method, language (and the mean over `over`) and level.

    `level`: a share (.25, .5, .75, 1) of the own effect of `reference`, a method and size; `own`: that effect in nats per sentence; `others` (mean) and
    `worst` other language there, and `selectivity`, own / (own + others), with 95 % intervals. Between sizes they lie on straight lines; a level that lies
    outside of a method's measured sizes is null, as is a mean that lacks a language. Ours. Raises OptionError for a reference that was not measured.

    Example:
        >>> import numpy as np
        >>> from lape.experiments.frontier.table import at_levels
        >>> from lape.measure.effects import Effects
        >>> own, nats = np.eye(2)[:, :, None], {}
        >>> for size in (10, 100):  # others lose a tenth, then a fifth
        ...     nats["mine", size] = np.full((2, 2, 30), size / 100) * np.where(own, 1, 0.1 if size == 10 else 0.2)
        >>> measured = Effects(("en", "fr"), np.ones((2, 30)), nats, dict.fromkeys(nats, (100, 100)))
        >>> at_levels(measured, ["en", "fr"], reference=("mine", 100)).filter(language="mean").select("level", "own").rows()
        [(0.25, 0.25), (0.5, 0.5), (0.75, 0.75), (1.0, 1.0)]
    """
    curves, chosen, rows = _Curves(effects, reference, resamples, seed), positions(effects, over), []
    for method in effects.methods:
        of = curves.of(method)
        for level in LEVELS:
            found = [_at(curves, k, one, level) for k, one in enumerate(of)]
            mean = np.mean([found[k] for k in chosen], axis=0)
            for language, (own, others, worst, share) in zip([*effects.languages, MEAN], [*found, mean], strict=True):
                row = {"method": method, "language": language, "level": level}
                row |= {"own": None if np.isnan(own[0]) else float(own[0])}
                for name, values in (("others", others), ("worst", worst), ("selectivity", share)):
                    row |= curves.drawn.resamples.named(name, values)
                rows.append(row)
    return pl.DataFrame(rows, schema=AT_LEVELS)


def _within(low: float, level: float, high: float) -> bool:
    """Whether a level was measured; the reference's own size lies at its whole, whatever its last digits."""
    return low - 1e-9 <= level <= high + 1e-9


def _at(curves: _Curves, k: int, curve: _Curve, level: float) -> Floats:
    """(4, rows): own, others, worst and selectivity at a level; not a number outside of what was measured."""
    low, high = curves.between(k, curve)
    own = level * curves.reference[:, k]
    if not _within(low, level, high):
        return np.full((4, len(own)), np.nan)
    others, worst = curve.at(own)
    return np.stack([own, others, worst, selectivity(own, others)])


def advantages(
    effects: Effects,
    method: str,
    against: Iterable[str],
    over: Sequence[str],
    *,
    reference: Key,
    resamples: int = 2000,
    seed: int = 0,
) -> pl.DataFrame:
    """How much less a method's sets disturb the other languages than another method's do, at equal own effect.

    `at`: a level, as in `at_levels`, or `area`, the mean over all levels at which both were measured, of which `covered` is the share of all: the
    difference of the areas under their curves over the width. `own`, `others`, `others_against` in nats per sentence there; `difference`,
    others_against − others, above 0 where `method` disturbs less; `worst_difference` the same of the other language that loses most; `selectivity`
    of both. A level at which either was not measured has nulls: nothing is extrapolated.

    One row per language and level, and one of the mean over those of `over` that could be compared (`languages`, how many; `favoured`, how many of
    them have a difference above 0). Intervals are paired over units of text. In the row of the mean the languages are the sample, and the interval is
    Student's t of their values (`lape.measure.intervals.over_languages`): it says what other languages might show on the same text. There is none where
    fewer than half of them, or fewer than three of three or more, could be compared. `p` is two-sided, of no difference, `p_holm` corrected over the
    languages of the same pair and level, and `units` of the language that has fewest. Ours.

    Raises OptionError for a method, a reference, or a language of `over`, that was not measured.

    Example:
        >>> from lape.data.corpus import TextOptions
        >>> from lape.experiments.frontier.table import advantages
        >>> from lape.measure.ablation import Ablations
        >>> from lape.measure.effects import effects
        >>> work = Ablations(model, tokenizer, {"fr": texts["fr"], "zh": texts["zh"]}, TextOptions(tokens=200))
        >>> _ = work.base()
        >>> sets = {(method, size): lape.identify(stats, method, per_language=size) for method in ("lape", "lap") for size in (2, 5)}
        >>> measured = effects(work, sets, ["fr", "zh"])
        >>> table = advantages(measured, "lape", ["lap"], ["fr", "zh"], reference=("lape", 5), resamples=20)
        >>> table.filter(at="area")["language"].to_list()
        ['fr', 'zh', 'mean']
    """
    curves, chosen, rows = _Curves(effects, reference, resamples, seed), positions(effects, over), []
    ours = curves.of(method)
    for other in against:
        if other == method:
            continue
        theirs = curves.of(other)
        for at in (*LEVELS, AREA):
            found = [_pair(curves, k, a, b, at) for k, (a, b) in enumerate(zip(ours, theirs, strict=True))]
            each = [_compared(curves, [one]) for one in found]
            corrected = holm_known([row["p"] for row in each])
            each = [row | {"p_holm": p} for row, p in zip(each, corrected, strict=True)]
            whole = _compared(curves, [found[k] for k in chosen])
            if not enough(whole["languages"], len(chosen)):
                whole |= dict.fromkeys(_INTERVALS)
            named = zip([*effects.languages, MEAN], [*each, whole | {"p_holm": whole["p"]}], strict=True)
            about = {"method": method, "against": other, "at": str(at), "units": curves.drawn.units}
            rows += [{**about, "language": language, **row} for language, row in named]
    return pl.DataFrame(rows, schema=ADVANTAGES)


def enough(compared: int, languages: int) -> bool:
    """Whether a mean over the languages that could be compared says something of all: at least half of them, and three where there are so many.

    Example:
        >>> from lape.experiments.frontier.table import enough
        >>> enough(2, 2), enough(1, 2), enough(2, 4), enough(3, 7), enough(4, 7)
        (True, False, False, False, True)
    """
    return 2 * compared >= languages and compared >= min(3, languages)


@dataclass(frozen=True)
class _Compared:
    """Both methods at the same own effect, (rows,) each."""

    own: Floats
    others: Floats
    others_against: Floats
    worst_difference: Floats
    selectivity: Floats
    selectivity_against: Floats
    covered: float

    @property
    def difference(self) -> Floats:
        """How much less the first disturbs the others, (rows,)."""
        return self.others_against - self.others


def _pair(curves: _Curves, k: int, ours: _Curve, theirs: _Curve, at: float | str) -> _Compared | None:
    low, high = curves.between(k, ours, theirs)
    if not low < high or (isinstance(at, float) and not _within(low, at, high)):
        return None
    levels = [at] if isinstance(at, float) else [*np.linspace(low, high, _STEPS)]
    parts = []
    for level in levels:
        own = level * curves.reference[:, k]
        (mine, my_worst), (others, worst) = ours.at(own), theirs.at(own)
        parts.append((own, mine, others, worst - my_worst, selectivity(own, mine), selectivity(own, others)))
    own, mine, others, worst, share, share_against = np.mean(parts, axis=0)
    covered = (high - low) / (LEVELS[-1] - LEVELS[0])
    return _Compared(own, mine, others, worst, share, share_against, covered)


def _compared(curves: _Curves, found: Sequence[_Compared | None]) -> dict[str, Any]:
    """A row of one language, or of the mean over several, which are a sample too."""
    known = [one for one in found if one is not None]
    if not known:
        return {"p": None, "languages": 0, "favoured": 0}
    names = ("own", "others", "others_against", "selectivity", "selectivity_against")
    gaps, worst = ([getattr(one, name) for one in known] for name in ("difference", "worst_difference"))
    difference, worst_difference = (_over(curves.drawn.resamples, values) for values in (gaps, worst))
    return {
        **{name: float(np.mean([getattr(one, name)[0] for one in known])) for name in names},
        **difference.plain("difference", quantiles=True),
        **worst_difference.named("worst_difference", quantiles=True),
        "p": None if difference.quantiles is None else p_at(difference.quantiles, 0.0),
        "covered": float(np.mean([one.covered for one in known])),
        "languages": len(known),
        "favoured": sum(bool(gap[0] > 0) for gap in gaps),
    }


def _over(resamples: Resamples, values: Sequence[Floats]) -> Estimate:
    """(rows,) of one language over its text; of several, their mean over languages. No interval where a text is too short for one."""
    if len(values) == 1:
        return resamples.estimate(values[0])
    mean = over_languages(np.array([of_language[0] for of_language in values]))
    return mean if resamples.resamples else Estimate(mean.value)
