"""Own against others over set sizes: selection methods compared at equal effect on the language itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl

from lape.measure.bootstrap import Floats
from lape.measure.effects import Effects
from lape.measure.frontier import Drawn, positions
from lape.measure.intervals import MEAN, holm_known, plain_interval, selectivity, two_sided

ADVANTAGES = {
    **dict.fromkeys(("method", "against", "language"), pl.String),
    **dict.fromkeys(("own", "selectivity", "selectivity_against"), pl.Float64),
    **dict.fromkeys(("difference", "low", "high", "p", "p_holm"), pl.Float64),
    **dict.fromkeys(("languages", "units"), pl.Int64),
}
"""Columns of `advantages`."""


def advantages(
    effects: Effects,
    method: str,
    against: Iterable[str],
    over: Sequence[str],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> pl.DataFrame:
    """Selectivity of `method` minus that of each other way of choosing, at equal own effect.

    The level is the smaller of the two largest own effects, language by language; between sizes, and from nothing to the smallest,
    others is interpolated along own, where own first reaches the level. A way of choosing without any own effect has selectivity 0,
    and is compared with the smallest set. Sizes of which a language has no set are passed over; a language without any has nulls.
    One row per language and one of the mean over those of `over` that could be compared (`languages`, how many): `own` (the level,
    nats per token), `selectivity`, `selectivity_against`, `difference` with its paired 95 % interval, `p` (two-sided, bootstrap),
    `p_holm` (over the languages of this pair; the mean is a test by itself) and `units` (of the language that has fewest). Ours.
    Raises OptionError for a method, or a language of `over`, that was not measured.

    Example:
        >>> from lape.data.corpus import TextOptions
        >>> from lape.experiments.frontier.table import advantages
        >>> from lape.measure.ablation import Ablations
        >>> from lape.measure.effects import effects
        >>> work = Ablations(model, tokenizer, {"fr": texts["fr"], "zh": texts["zh"]}, TextOptions(tokens=200))
        >>> _ = work.base()
        >>> sets = {(method, 5): lape.identify(stats, method, per_language=5) for method in ("lape", "random")}
        >>> measured = effects(work, sets, ["fr", "zh"])
        >>> advantages(measured, "lape", ["random"], ["fr", "zh"], resamples=20)["language"].to_list()
        ['fr', 'zh', 'mean']
    """
    drawn = Drawn(effects, resamples, seed)
    chosen = positions(effects, over)
    ours = drawn.curves(method)
    rows: list[dict[str, Any]] = []
    for other in against:
        if other == method:
            continue
        found = [_at_equal_own(a, b) for a, b in zip(ours, drawn.curves(other), strict=True)]
        pair = [_compared([one]) for one in found]
        corrected = holm_known([row["p"] for row in pair])
        pair = [row | {"p_holm": p} for row, p in zip(pair, corrected, strict=True)]
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
        return {"p": None, "languages": 0}
    level, mine, theirs = np.mean(known, axis=0)
    return {
        "own": float(level[0]),
        "selectivity": float(mine[0]),
        "selectivity_against": float(theirs[0]),
        **plain_interval("difference", mine - theirs),
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
