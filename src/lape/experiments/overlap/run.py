"""How the sets of two languages overlap, beside chance, and whether languages that are alike share more neurons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from lape.data.languages import tag
from lape.detect.stability import SMALLEST, chance_jaccard
from lape.errors import OptionError
from lape.experiments.overlap.mantel import Mantel, Matrix, mantel
from lape.experiments.overlap.relations import TokenCounts, pairwise, relations, token_overlap
from lape.values.neurons import LanguageNeurons, jaccard

__all__ = ["Mantel", "TokenCounts", "mantel", "overlap_chance", "overlap_tests", "relations", "token_overlap"]
OVERLAP = {
    **dict.fromkeys(("a", "b"), pl.String),
    "shared": pl.Int64,
    **dict.fromkeys(("jaccard", "chance", "over_chance"), pl.Float64),
}
"""Columns of `overlap_chance`."""
TESTS = {
    "relation": pl.String,
    **dict.fromkeys(("languages", "pairs"), pl.Int64),
    **dict.fromkeys(("r", "p", "p_smallest"), pl.Float64),
    "permutations": pl.Int64,
    "note": pl.String,
}
"""Columns of `overlap_tests`."""


def overlap_chance(neurons: LanguageNeurons) -> pl.DataFrame:
    """One row per unordered pair of languages, in their order: how much their sets overlap, beside chance (ours).

    `a`, `b`, `shared` (neurons), `jaccard` (0 to 1), `chance` (Jaccard expected of random sets with as many neurons in each
    layer and expert), `over_chance` (jaccard / chance; null where chance is 0: the sets have no layer in common).

    Example:
        >>> from lape.experiments.overlap.run import overlap_chance
        >>> len(overlap_chance(neurons))
        6
    """
    rows = []
    for a, b in combinations(neurons.sets, 2):
        first, second = neurons.sets[a], neurons.sets[b]
        found, chance = jaccard(first, second), chance_jaccard(first, second)
        over = found / chance if chance else None
        rows.append(dict(zip(OVERLAP, (a, b, len(first & second), found, chance, over), strict=True)))
    return pl.DataFrame(rows, schema=OVERLAP)


def overlap_tests(
    neurons: LanguageNeurons,
    *,
    tokens: Mapping[str, TokenCounts] | None = None,
    measure: str = "jaccard",
    permutations: int = 9999,
    seed: int = 0,
) -> pl.DataFrame:
    """Whether languages that are alike share more neurons: one Mantel test per relation, each on its own (ours).

    Of the sets' overlap against `genealogy`, `script` and `token overlap`, for which `tokens` gives language -> counts of token
    ids (of parallel text, best). `measure`: "jaccard", or "over_chance" (see `overlap_chance`), which is 1 for random sets of any
    size, while a language of few neurons has a low Jaccard with every other.

    Columns: `relation`, `languages` and `pairs` (tested), `r` and `p` (see `mantel`), `p_smallest` (the p of an overlap ordered
    exactly as the relation is, below which no data can come: where few pairs are alike it is far above 1 / permutations),
    `permutations`, `note`: which languages were left out and why, or why there is no test; `r` to `permutations` are null then.
    Sets under 20 neurons are left out, their overlap being too rough. p is not corrected for the number of relations, and the
    relations are themselves alike. Raises OptionError for an unknown measure or no permutations.

    Example:
        >>> from lape.experiments.overlap.run import overlap_tests
        >>> overlap_tests(neurons, permutations=99)["relation"].to_list()
        ['genealogy', 'script', 'token overlap']
    """
    if permutations < 1:
        raise OptionError(f"permutations is {permutations}. Expected 1 or more.")
    names = list(neurons.sets)
    overlap = _overlap(neurons, measure)
    found = {**relations(names), "token overlap": _token_overlap(names, tokens or {})}
    small = [k for k, one in enumerate(neurons.sets.values()) if len(one) < SMALLEST]
    rows = []
    for relation, likeness in found.items():
        unknown = [k for k in range(len(names)) if np.isnan(likeness[k, k])]
        kept = [k for k in range(len(names)) if k not in {*small, *unknown}]
        inside = np.ix_(kept, kept)
        notes = [
            _listed("the relation is not known for", names, unknown),
            _listed(f"left out for fewer than {SMALLEST} neurons:", names, small),
        ]
        tested = _tested(overlap[inside], likeness[inside], notes, permutations, seed)
        rows.append({"relation": relation, "languages": len(kept), "pairs": len(kept) * (len(kept) - 1) // 2, **tested})
    return pl.DataFrame(rows, schema=TESTS)


def _overlap(neurons: LanguageNeurons, measure: str) -> Matrix:
    """(languages, languages), nan on the diagonal."""
    if measure not in ("jaccard", "over_chance"):
        raise OptionError(f"measure is {measure!r}. Expected jaccard or over_chance.")
    pairs = {(row["a"], row["b"]): row[measure] for row in overlap_chance(neurons).iter_rows(named=True)}
    return pairwise(list(neurons.sets), lambda a, b: pairs.get((a, b), pairs.get((b, a))))


def _token_overlap(names: Sequence[str], tokens: Mapping[str, TokenCounts]) -> Matrix:
    """The token overlap of all languages, nan for those without counts."""
    counted = {tag(language): counts for language, counts in tokens.items() if tag(language) in names}
    at = [names.index(language) for language in counted]
    result = np.full((len(names), len(names)), np.nan)
    result[np.ix_(at, at)] = token_overlap(counted)
    return result


def _listed(what: str, names: Sequence[str], at: Iterable[int]) -> str:
    found = ", ".join(names[k] for k in at)
    return f"{what} {found}" if found else ""


def _tested(overlap: Matrix, likeness: Matrix, notes: Sequence[str], permutations: int, seed: int) -> dict[str, Any]:
    try:
        result = mantel(overlap, likeness, permutations=permutations, seed=seed)
        best = mantel(likeness, likeness, permutations=permutations, seed=seed)
    except OptionError as error:
        return {"note": "; ".join([*filter(None, notes), f"not tested: {error}"])}
    return {**result._asdict(), "p_smallest": best.p, "note": "; ".join(filter(None, notes))}
