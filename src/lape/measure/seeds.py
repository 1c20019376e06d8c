"""Is it the language that moves a neuron's weights, or chance? Two seeds of one language are compared with two languages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
import torch
from torch import Tensor

from lape.data.languages import tag
from lape.detect.common import languages_of, largest
from lape.detect.lape import select
from lape.detect.stability import chance_jaccard
from lape.detect.variation import VariationOptions
from lape.errors import MismatchError, OptionError, TextError
from lape.measure.correlation import spearman
from lape.values.neurons import NeuronSet, jaccard
from lape.values.space import NeuronSpace
from lape.values.stats import ActivationStats

CONTROL = {
    **dict.fromkeys(("language", "other"), pl.String),
    "neurons": pl.Int64,
    "chance": pl.Float64,
    **{f"{measure}_{of}": pl.Float64 for measure in ("jaccard", "largest", "rank") for of in ("seeds", "languages")},
}
"""Columns of `compare_seeds`."""


def compare_seeds(first: ActivationStats, second: Mapping[str, Tensor], options: VariationOptions) -> pl.DataFrame:
    """Compare two checkpoints of one language, tuned with different seeds, with those of two languages (ours).

    `first`: statistics recorded with `tuned`. `second`: language -> (neurons,) δ of a checkpoint tuned on the same language with
    another seed, from `lape.recording.weight_change.weight_changes`; one language or more. Options: see `lape.detect.variation.VariationOptions`.

    One row for each `language` of `second` and each `other` language. Each measure is taken twice, in the same way: with the
    language's second seed in the place of its first (`_seeds`), and with the other language there (`_languages`).
    `jaccard_…`: of the sets that the method variation chooses for what stands there, against the languages that are neither
    (the same ones both times; null where there are none). `neurons`: those of the first seed; `chance`: Jaccard of the seeds
    expected of random sets with as many neurons in each layer. And without the rule: `largest_…`, Jaccard of the
    round(rate · neurons) neurons of largest δ, and `rank_…`, Spearman's correlation of δ over all neurons (-1 to 1; null
    where all are equal). Only where seeds agree clearly better than languages does δ show the language.

    Raises OptionError for statistics recorded without `tuned` or of a single language, and for a second seed whose δ is the first's; TextError for a
    language that was not recorded, MismatchError for δ of another model.

    Example:
        >>> from lape.detect.variation import VariationOptions
        >>> from lape.measure.seeds import compare_seeds
        >>> second = {"fr": stats.variation("fr") * 1.5}
        >>> compare_seeds(stats, second, VariationOptions())["other"].to_list()
        ['en', 'id', 'zh']
    """
    delta = {language: first.variation(language) for language in languages_of(first)}
    again = _checked(first, second)
    rows = []
    for language, seeded in again.items():
        for other in delta:
            if other != language:
                rest = [delta[one] for one in delta if one not in (language, other)]
                row = _row(first.space, delta[language], seeded, delta[other], rest, options)
                rows.append({"language": language, "other": other, **row})
    return pl.DataFrame(rows, schema=CONTROL)


def _row(
    space: NeuronSpace, own: Tensor, seeded: Tensor, other: Tensor, rest: list[Tensor], options: VariationOptions
) -> dict[str, Any]:
    row: dict[str, Any] = {}
    if rest:
        a, b, c = (_chosen(space, one, rest, options) for one in (own, seeded, other))
        row = {"neurons": len(a), "chance": chance_jaccard(a, b)}
        row |= {"jaccard_seeds": jaccard(a, b), "jaccard_languages": jaccard(a, c)}
    count = max(round(options.rate * len(own)), 1)
    a, b, c = (NeuronSet(space, largest(one, count)) for one in (own, seeded, other))
    row |= {"largest_seeds": jaccard(a, b), "largest_languages": jaccard(a, c)}
    ranked = {f"rank_{of}": spearman(own.numpy(), one.numpy()) for of, one in (("seeds", seeded), ("languages", other))}
    return row | ranked


def _chosen(space: NeuronSpace, delta: Tensor, rest: list[Tensor], options: VariationOptions) -> NeuronSet:
    return NeuronSet(space, select(torch.stack([delta, *rest]), options.rule()).members[0])


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
