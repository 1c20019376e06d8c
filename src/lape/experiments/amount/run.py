"""How much sets move: with the amount of text, with its domain, and with which languages are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl

from lape.detect.stability import SMALLEST, UNION, chance_jaccard, has_text
from lape.errors import OptionError
from lape.values.neurons import LanguageNeurons, NeuronSet, jaccard
from lape.values.same import check_same_model
from lape.values.stats import ActivationStats

_Find = Callable[..., LanguageNeurons]
_DRAWS = 35
AMOUNT = {
    "folds": pl.Int64,
    "tokens": pl.Int64,
    "language": pl.String,
    **dict.fromkeys(("median", "low", "high"), pl.Float64),
}
DOMAIN = {
    "language": pl.String,
    "tokens": pl.Int64,
    **dict.fromkeys(("within", "across", "difference", "low", "high"), pl.Float64),
    "draws": pl.Int64,
}
DROPPED = {
    "dropped": pl.String,
    "language": pl.String,
    **dict.fromkeys(("before", "after"), pl.Int64),
    **dict.fromkeys(("jaccard", "chance"), pl.Float64),
}


def amount(stats: ActivationStats, find: _Find, seed: int = 0, **options: Any) -> pl.DataFrame:
    """The reliability curve: Jaccard of sets found in two disjoint groups of 1, 2, … folds.

    One row per number of folds and language (and the union): `tokens` (mean of a group, over languages), `median`, and the 5th
    and 95th percentile over random pairs of groups as `low` and `high` (spread, not a confidence interval). Sets under 20 neurons
    have none; groups in which a language has no text are passed over.
    """
    rows = []
    for count in range(1, stats.folds // 2 + 1):
        pairs = [
            (find(stats, folds=a, **options), find(stats, folds=b, **options))
            for a, b in _disjoint(stats.folds, count, seed)
            if has_text(stats, a) and has_text(stats, b)
        ]
        tokens = round(_tokens(stats) * count / stats.folds)
        for language in [*stats.languages, UNION]:
            values = [_jaccard(a, b, language) for a, b in pairs]
            rows.append({"folds": count, "tokens": tokens, "language": language, **_spread(values)})
    return pl.DataFrame(rows, schema=AMOUNT)


def _tokens(stats: ActivationStats) -> float:
    return float(np.mean([int(stats[language].tokens.sum()) for language in stats.languages]))


def _disjoint(folds: int, count: int, seed: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Random pairs of disjoint groups of folds."""
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(_DRAWS):
        order = generator.permutation(folds).tolist()
        drawn.append((tuple(sorted(order[:count])), tuple(sorted(order[count : 2 * count]))))
    return list(dict.fromkeys(drawn))


def _of(neurons: LanguageNeurons, language: str) -> NeuronSet:
    return neurons.union if language == UNION else neurons[language]


def _jaccard(a: LanguageNeurons, b: LanguageNeurons, language: str) -> float | None:
    one, other = _of(a, language), _of(b, language)
    return None if max(len(one), len(other)) < SMALLEST else jaccard(one, other)


def _spread(values: Sequence[float | None]) -> dict[str, float | None]:
    known = [value for value in values if value is not None]
    if len(known) < len(values) / 2 or not known:
        return {"median": None, "low": None, "high": None}
    low, middle, high = np.quantile(known, [0.05, 0.5, 0.95])
    return {"median": float(middle), "low": float(low), "high": float(high)}


def domain(a: ActivationStats, b: ActivationStats, find: _Find, seed: int = 0, **options: Any) -> pl.DataFrame:
    """Do sets follow the kind of text? Within-domain minus cross-domain Jaccard at equal tokens.

    `a` and `b`: statistics of one model on two domains. In each draw two disjoint groups of folds of each domain are taken, of as
    nearly equal tokens as folds allow; `within` is the mean Jaccard of the two groups of a domain, `across` that of the four pairs
    over domains. `low`, `high`: 2.5th and 97.5th percentile of the difference over draws of folds. Only languages in both: others
    are left out before sets are found, since a set depends on the languages compared.

    Raises MismatchError for statistics of two models, OptionError for fewer than two languages or folds in common.
    """
    a, b = _comparable(a, b)
    few, many = _equal_folds(a, b)
    draws: dict[str, list[tuple[float, float]]] = {}
    shared = a.languages
    ways = zip(_disjoint(a.folds, few, seed), _disjoint(b.folds, many, seed + 1), strict=False)
    count = 0
    for (a1, a2), (b1, b2) in ways:
        if not all(has_text(stats, half) for stats, half in ((a, a1), (a, a2), (b, b1), (b, b2))):
            continue
        count += 1
        found = (find(a, folds=a1, **options), find(a, folds=a2, **options))
        others = (find(b, folds=b1, **options), find(b, folds=b2, **options))
        for language in [*shared, UNION]:
            inside = [_jaccard(one, other, language) for one, other in (found, others)]
            across = [_jaccard(one, other, language) for one in found for other in others]
            if None not in inside and None not in across:
                pair = (float(np.mean(inside)), float(np.mean(across)))  # type: ignore[arg-type]
                draws.setdefault(language, []).append(pair)
    tokens = round(_tokens(a) * few / a.folds)
    rows = [_domain_row(language, tokens, draws.get(language, []), count) for language in [*shared, UNION]]
    return pl.DataFrame(rows, schema=DOMAIN)


def _comparable(a: ActivationStats, b: ActivationStats) -> tuple[ActivationStats, ActivationStats]:
    """Both with the languages they share, in one order; refused where they cannot be compared."""
    check_same_model(statistics=a, others=b)
    shared = [language for language in a.languages if language in b.languages]
    if len(shared) < 2 or min(a.folds, b.folds) < 2:
        raise OptionError(
            f"The two domains share {len(shared)} languages, and were counted in {a.folds} and {b.folds} folds. "
            "Comparing them needs two languages and two folds: record the same languages in both."
        )
    return tuple(  # type: ignore[return-value]
        ActivationStats(stats.space, {language: stats.by_language[language] for language in shared}, stats.manifest)
        for stats in (a, b)
    )


def _equal_folds(a: ActivationStats, b: ActivationStats) -> tuple[int, int]:
    """How many folds of each make two groups of as many tokens as possible, as nearly equal as folds allow."""
    x, y = _tokens(a) / a.folds, _tokens(b) / b.folds
    ways = [(i, j) for i in range(1, a.folds // 2 + 1) for j in range(1, b.folds // 2 + 1)]
    near = [way for way in ways if abs(way[0] * x - way[1] * y) <= 0.15 * way[0] * x]
    if near:
        return max(near, key=lambda way: way[0] * x)
    return min(ways, key=lambda way: abs(way[0] * x - way[1] * y) / (way[0] * x))


def _domain_row(language: str, tokens: int, values: list[tuple[float, float]], count: int) -> dict[str, Any]:
    row: dict[str, Any] = {"language": language, "tokens": tokens, "draws": len(values)}
    if len(values) < count / 2 or not values:
        return row | dict.fromkeys(("within", "across", "difference", "low", "high"))
    within, across = np.array(values).T
    low, high = np.quantile(within - across, [0.025, 0.975])
    gap = float(np.mean(within - across))
    means = {"within": float(within.mean()), "across": float(across.mean()), "difference": gap}
    return row | means | {"low": float(low), "high": float(high)}


def dropped(stats: ActivationStats, find: _Find, **options: Any) -> pl.DataFrame:
    """How much sets move when a language is left out of the study (or, read the other way, added to it).

    One row per language left out and language that stays: `before`, `after` (neurons), `jaccard` of the two sets, and `chance`, the
    Jaccard of random sets with as many neurons in each layer.
    """
    if len(stats.languages) < 3:
        raise OptionError(f"{len(stats.languages)} languages were recorded. Leaving one out needs three or more.")
    whole = find(stats, **options)
    rows = []
    for gone in stats.languages:
        rest = {language: one for language, one in stats.by_language.items() if language != gone}
        found = find(ActivationStats(stats.space, rest, stats.manifest), **options)
        for language in rest:
            before, after = whole[language], found[language]
            rows.append(
                {
                    "dropped": gone,
                    "language": language,
                    "before": len(before),
                    "after": len(after),
                    "jaccard": jaccard(before, after),
                    "chance": chance_jaccard(before, after),
                }
            )
    return pl.DataFrame(rows, schema=DROPPED)
