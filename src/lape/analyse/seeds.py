"""Is it the language that moves a neuron's weights, or chance? Two seeds of one language beside two languages."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from lape.analyse.reliability import chance_jaccard
from lape.detect.common import languages_of, largest
from lape.detect.lape import select
from lape.errors import MismatchError, OptionError, TextError
from lape.languages import tag
from lape.neurons import NeuronSet, jaccard
from lape.options import VariationOptions, given
from lape.stats import ActivationStats

CONTROL = {
    "kind": pl.String,
    **dict.fromkeys(("a", "b"), pl.String),
    **dict.fromkeys(("a_neurons", "b_neurons", "shared"), pl.Int64),
    **dict.fromkeys(("jaccard", "chance", "jaccard_largest", "rank_correlation"), pl.Float64),
}
"""Columns of `control`."""


def control(
    first: ActivationStats, second: Mapping[str, Tensor], options: VariationOptions | None = None, **changes: Any
) -> pl.DataFrame:
    """How alike are two checkpoints of one language tuned with different seeds, beside those of two languages (ours)?

    `first`: statistics recorded with `tuned`. `second`: language -> (neurons,) δ of a checkpoint tuned on the same language with
    another seed, from `lape.weights.weight_changes`; one language or more. `options` or its fields as keywords: see
    `VariationOptions`.

    One row for each language of `second` (`kind` seeds), then one for each pair of languages (`kind` languages): `a`, `b`
    (languages), `a_neurons`, `b_neurons`, `shared`, `jaccard` of the sets that the method variation chooses, for the second
    seed with its δ in the place of the first's; `chance` (Jaccard expected of random sets with as many neurons in each layer);
    and, without the rule, which keeps languages apart by itself: `jaccard_largest` of the round(rate · neurons) neurons of largest δ,
    and `rank_correlation` (Spearman, -1 to 1; null where all δ are equal) of δ over all neurons. Only where seeds agree clearly
    better than languages do, does δ show the language.
    """
    options = given(VariationOptions, options, changes)
    delta = {language: first.variation(language) for language in languages_of(first)}
    again = _checked(first, second)
    sets = _chosen(first, delta, options)
    rows = []
    for language, other in again.items():
        swapped = _chosen(first, {**delta, language: other}, options)
        rows.append(
            {"kind": "seeds", "a": language, "b": language}
            | _sets(sets[language], swapped[language])
            | _plain(first, delta[language], other, options.rate)
        )
    for a, b in combinations(delta, 2):
        rows.append(
            {"kind": "languages", "a": a, "b": b}
            | _sets(sets[a], sets[b])
            | _plain(first, delta[a], delta[b], options.rate)
        )
    return pl.DataFrame(rows, schema=CONTROL)


def _checked(first: ActivationStats, second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    again = {tag(language): delta.double() for language, delta in second.items()}
    if not again:
        raise OptionError("No second seed was given. Expected weight_changes(model, {LANGUAGE: PATH}).")
    for language, delta in again.items():
        if language not in first.languages:
            raise TextError(
                f"A second seed of {language} was given, but it was not recorded. Recorded: {', '.join(first.languages)}."
            )
        if delta.shape != (len(first.space),):
            raise MismatchError(
                f"The second seed of {language} has δ of shape {tuple(delta.shape)}, the statistics {first.space}. "
                "Expected two checkpoints of one model."
            )
        if torch.equal(delta, first.variation(language)):
            raise OptionError(
                f"The second seed of {language} gives the same δ as the first: it is the same checkpoint. Tune one with another seed."
            )
    return again


def _chosen(stats: ActivationStats, delta: Mapping[str, Tensor], options: VariationOptions) -> dict[str, NeuronSet]:
    members = select(torch.stack(list(delta.values())), options.rule()).members
    return {language: NeuronSet(stats.space, flat) for language, flat in zip(delta, members, strict=True)}


def _sets(a: NeuronSet, b: NeuronSet) -> dict[str, Any]:
    alike = {"jaccard": jaccard(a, b), "chance": chance_jaccard(a, b)}
    return {"a_neurons": len(a), "b_neurons": len(b), "shared": len(a & b), **alike}


def _plain(stats: ActivationStats, a: Tensor, b: Tensor, rate: float) -> dict[str, float | None]:
    """The same without the rule."""
    count = max(round(rate * len(a)), 1)
    top = [NeuronSet(stats.space, largest(one, count).sort().values) for one in (a, b)]
    return {"jaccard_largest": jaccard(*top), "rank_correlation": spearman(a, b)}


def spearman(a: Tensor, b: Tensor) -> float | None:
    """Spearman's rank correlation of two (n,) tensors, ties at their mean rank; None where one of them is constant."""
    x, y = (pl.Series(one.numpy()).rank("average").to_numpy() for one in (a, b))
    x, y = x - x.mean(), y - y.mean()
    size = np.sqrt((x @ x) * (y @ y))
    return float(np.clip((x @ y) / size, -1, 1)) if size > 0 else None
