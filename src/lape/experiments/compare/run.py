"""How two results of the same model agree, language by language and layer by layer."""

from __future__ import annotations

from typing import Any

import polars as pl
import torch

from lape.detect.stability import UNION, chance_jaccard
from lape.values.neurons import LanguageNeurons, NeuronSet, jaccard
from lape.values.same import check_same_model

COMPARED = {
    "language": pl.String,
    "layer": pl.Int64,
    **dict.fromkeys(("a", "b", "shared"), pl.Int64),
    **dict.fromkeys(("jaccard", "chance"), pl.Float64),
}
"""Columns of `compare`."""


def compare(a: LanguageNeurons, b: LanguageNeurons) -> pl.DataFrame:
    """How alike the sets of two results are (ours): two methods, two texts, or a published file and one's own.

    For each language of `a`, then those of `b` alone, then `all` (the neurons of any language), a row for all layers together
    (`layer` null) and one for each layer: `language`, `layer`, `a` and `b` (neurons), `shared`, `jaccard` (0 to 1; 0 where
    neither has a neuron), `chance` (Jaccard expected of random sets with as many neurons in each layer and expert).
    Of a language that only one of them has, the other's size, `shared`, `jaccard` and `chance` are null.
    Raises MismatchError where they are of different spaces. Whether they are of one model, shapes cannot tell.

    Example:
        >>> from lape.experiments.compare.run import compare
        >>> compare(neurons, neurons)["jaccard"].max()
        1.0
    """
    check_same_model(neurons=a.space, others=b.space)
    languages = dict.fromkeys([*a.sets, *b.sets])
    rows = [row for name in languages for row in _rows(name, a.sets.get(name), b.sets.get(name))]
    return pl.DataFrame([*rows, *_rows(UNION, a.union, b.union)], schema=COMPARED)


def _rows(language: str, a: NeuronSet | None, b: NeuronSet | None) -> list[dict[str, Any]]:
    in_a, in_b = _parts(a), _parts(b)
    layers = list(in_a or in_b)
    return [{"language": language, "layer": layer, **_row(in_a.get(layer), in_b.get(layer))} for layer in layers]


def _parts(found: NeuronSet | None) -> dict[int | None, NeuronSet]:
    """All of a set under None, then its part in each layer."""
    if found is None:
        return {}
    space = found.space
    layer = torch.tensor([stretch.layer for stretch in space])[space.stretch_of(found.flat)]
    return {None: found, **{one: NeuronSet(space, found.flat[layer == one]) for one in space.layers}}


def _row(a: NeuronSet | None, b: NeuronSet | None) -> dict[str, Any]:
    row: dict[str, Any] = {"a": None if a is None else len(a), "b": None if b is None else len(b)}
    if a is not None and b is not None:
        row |= {"shared": len(a & b), "jaccard": jaccard(a, b), "chance": chance_jaccard(a, b)}
    return row
