"""Does the set come out again from other text? Stability over halves of the folds; this is not validity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from lape.detect.detector import Method
from lape.detect.halves import halves
from lape.detect.lape import lape
from lape.progress import Progress, shown
from lape.values.neurons import LanguageNeurons, NeuronSet, jaccard
from lape.values.stats import ActivationStats

SMALLEST = 20
"""Sets smaller than this get no Jaccard: one neuron more or less moves it too far."""
UNION = "all"
RELIABILITY = {
    "language": pl.String,
    "neurons": pl.Int64,
    **dict.fromkeys(("median", "p5", "chance"), pl.Float64),
    "halvings": pl.Int64,
}
"""Columns of `reliability`."""
_FIRST = 4096


def split_halves(
    stats: ActivationStats, find: Method, *, progress: Progress = shown
) -> list[tuple[LanguageNeurons, LanguageNeurons]]:
    """Find neurons in both halves of every way to halve the folds that leaves text of every language in both.

    `find`: a method with its options, such as `functools.partial(lape, rate=0.02)`; it has to take `folds`. Gives a pair of sets for each halving,
    35 for 8 folds; none where there are fewer than two folds or some language has too little text.

    Example:
        >>> from lape.detect.lape import lape
        >>> from lape.detect.stability import split_halves
        >>> found = split_halves(stats, lape)
        >>> len(found)
        35
        >>> first, second = found[0]
        >>> first["fr"] == second["fr"]
        True
    """
    ways = [way for way in halves(stats.folds) if all(has_text(stats, half) for half in way)]
    found = []
    for done, (a, b) in enumerate(ways, 1):
        found.append((find(stats, folds=a), find(stats, folds=b)))
        progress("measuring stability", done, len(ways))
    return found


def has_text(stats: ActivationStats, half: Sequence[int]) -> bool:
    """Whether every language has counted tokens in some folds: without any, its probabilities would all be 0."""
    return all(int(stats[language].tokens[list(half)].sum()) > 0 for language in stats.languages)


def stability_of(neurons: LanguageNeurons, found: list[tuple[LanguageNeurons, LanguageNeurons]]) -> dict[str, Tensor]:
    """Language -> (n,) float64: for each neuron of the set, the share of halves that select it for that language too."""
    every = [half for pair in found for half in pair]
    if not every:
        return {}
    return {
        language: torch.stack([torch.isin(own.flat, half.sets[language].flat) for half in every]).double().mean(0)
        for language, own in neurons.sets.items()
    }


def stability(neurons: LanguageNeurons, stats: ActivationStats, find: Method) -> dict[str, Tensor]:
    """Split-half stability of single neurons (ours): the share of halves of the text that select a neuron again.

    `find`: the method that found `neurons`, with its options, as for `split_halves`. Gives language -> (n,) float64, from 0 to 1, in the order of
    the language's set; empty where the folds of the statistics cannot be halved. `lape.identify` keeps it with the neurons.

    Example:
        >>> from functools import partial
        >>> from lape.detect.lape import lape
        >>> from lape.detect.stability import stability
        >>> find = partial(lape, rate=0.01)
        >>> found = stability(find(stats), stats, find)
        >>> float(found["fr"].min())
        1.0
    """
    return stability_of(neurons, split_halves(stats, find))


def reliability(neurons: LanguageNeurons, found: list[tuple[LanguageNeurons, LanguageNeurons]]) -> pl.DataFrame:
    """How alike the sets of two halves of the text are.

    One row per language and one for the union: `language`, `neurons` (in the whole text), `median` and `p5` (median and 5th
    percentile of the Jaccard over the halvings, null for sets under 20 neurons), `chance` (Jaccard expected of random sets
    with as many neurons in each layer), `halvings` (how many). `found`: the pairs of `split_halves`.

    Example:
        >>> from functools import partial
        >>> from lape.detect.lape import lape
        >>> from lape.detect.stability import reliability, split_halves
        >>> find = partial(lape, per_language=30)
        >>> table = reliability(find(stats), split_halves(stats, find))
        >>> bool((table["median"] > table["chance"]).all())
        True
    """
    rows = [
        _row(language, own, [(a.sets[language], b.sets[language]) for a, b in found])
        for language, own in neurons.sets.items()
    ]
    rows.append(_row(UNION, neurons.union, [(a.union, b.union) for a, b in found]))
    return pl.DataFrame(rows, schema=RELIABILITY)


def _row(language: str, own: NeuronSet, pairs: list[tuple[NeuronSet, NeuronSet]]) -> dict[str, Any]:
    row: dict[str, Any] = {"language": language, "neurons": len(own), "halvings": len(pairs)}
    if len(own) < SMALLEST or not pairs:
        return row | {"median": None, "p5": None, "chance": None}
    values = np.array([jaccard(a, b) for a, b in pairs])
    chance = float(np.median([chance_jaccard(a, b) for a, b in pairs]))
    return row | {"median": float(np.median(values)), "p5": float(np.quantile(values, 0.05)), "chance": chance}


def doubling(batches: int, batch_tokens: int) -> Iterator[int]:
    """Tokens a language at which to look: 4,096 or two batches, and twice as many each time, up to `batches` of `batch_tokens`."""
    size, last = max(_FIRST // batch_tokens, 2), batches
    while size < last:
        yield size * batch_tokens
        size *= 2
    yield last * batch_tokens


def steadiness(stats: ActivationStats, progress: Progress = shown) -> dict[str, Any]:
    """How alike LAPE's sets from halves of the text are, in the language in which they are least so (ours).

    `tokens` (mean over languages), `language`, its `neurons`, `median` and `p5` of the Jaccard over the halvings, `halvings`. Languages with
    under 20 neurons are passed over; where all are, or the folds cannot be halved, `language`, `neurons`, `median` and `p5` are None. Raises OptionError
    for statistics of a single language.

    Example:
        >>> from lape.detect.stability import steadiness
        >>> steadiness(stats)  # this model's sets are too small to say
        {'tokens': ..., 'language': None, 'neurons': None, 'median': None, 'p5': None, 'halvings': 35}
    """
    tokens = round(mean_tokens(stats))
    halved = split_halves(stats, lape, progress=progress)
    rows = reliability(lape(stats), halved).filter((pl.col("language") != UNION) & pl.col("median").is_not_null())
    least = (
        rows.sort("median").row(0, named=True) if len(rows) else dict.fromkeys(("language", "neurons", "median", "p5"))
    )
    return {
        "tokens": tokens,
        **{name: least[name] for name in ("language", "neurons", "median", "p5")},
        "halvings": len(halved),
    }


def chance_jaccard(a: NeuronSet, b: NeuronSet) -> float:
    """Jaccard, 0 to 1, expected of two random sets with as many neurons in each stretch (layer, or expert of a layer) as `a` and `b`.

    It is the ratio of the expectations of intersection and union; 0 where both are empty.

    Example:
        >>> from lape.detect.stability import chance_jaccard
        >>> from lape.values.neurons import jaccard
        >>> jaccard(neurons["fr"], neurons["en"]) > chance_jaccard(neurons["fr"], neurons["en"])
        True
    """
    widths = torch.tensor([stretch.width for stretch in a.space]).double()
    shared = float((a.space.counts(a.flat) * b.space.counts(b.flat) / widths).sum())
    union = len(a) + len(b) - shared
    return shared / union if union else 0.0


DRAWS = 35
"""Random pairs of groups of folds, where there are more than that."""


def mean_tokens(stats: ActivationStats) -> float:
    """Counted tokens of a language, on average over languages."""
    return float(np.mean([int(stats[language].tokens.sum()) for language in stats.languages]))


def disjoint_groups(folds: int, count: int, seed: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Random pairs of disjoint groups of folds."""
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(DRAWS):
        order = generator.permutation(folds).tolist()
        drawn.append((tuple(sorted(order[:count])), tuple(sorted(order[count : 2 * count]))))
    return list(dict.fromkeys(drawn))


def _of(neurons: LanguageNeurons, language: str) -> NeuronSet:
    return neurons.union if language == UNION else neurons[language]


def set_jaccard(a: LanguageNeurons, b: LanguageNeurons, language: str) -> float | None:
    """Jaccard of two results' sets of a language, or `UNION`; None where one holds too few neurons to say."""
    one, other = _of(a, language), _of(b, language)
    return None if max(len(one), len(other)) < SMALLEST else jaccard(one, other)
