"""Where in the depth of a model a language's neurons lie: "top and bottom" is a claim of the paper that held for LLaMA-2 only."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from lape.measure.bootstrap import Floats, Resamples, by_unit
from lape.measure.intervals import resampled, wilson
from lape.values.neurons import LanguageNeurons
from lape.values.space import NeuronSpace

ALL = "all"
"""The row of all assignments together."""
_Ints: TypeAlias = NDArray[np.int64]
_SHARES = {
    **resampled("first_layer"),
    "first_layer_chance": pl.Float64,
    **resampled("bottom_two"),
    **dict.fromkeys(("bottom_two_chance", "bottom_quarter", "middle_half"), pl.Float64),
    **resampled("top_quarter"),
    "top_quarter_chance": pl.Float64,
}
LAYERS = {
    "language": pl.String,
    "neurons": pl.Int64,
    "centre": pl.Float64,
    **_SHARES,
    "fullest": pl.Int64,
}
"""Columns of `layers`."""


def layers(neurons: LanguageNeurons, *, resamples: int = 2000, seed: int = 0) -> pl.DataFrame:
    """Where each language's neurons lie (the claim: Tang et al. 2024; the measures: ours).

    One row per language, and one, `all`, for all assignments together, in which a neuron counts once for each language it
    belongs to: `language`, `neurons` (assignments), `centre` (mean position, 0 = first layer, 1 = last), the shares (0 to 1)
    `first_layer`, `bottom_two` (in the first two layers), `bottom_quarter`, `middle_half`, `top_quarter`, and `fullest` (the layer with the
    most neurons, the first of equals). `first_layer_chance`, `bottom_two_chance`, `top_quarter_chance`: the same shares of all neurons of the model.

    Only layers that hold neurons count, in order. A quarter is depth // 4 of them, at least one, and the middle half what lies
    between: 7, 16 and 7 of 30 layers. In a set without neurons all but the chances is null.

    `…_low`, `…_high` and `…_quantiles`: bootstrap over the neurons of the set, null under 20 neurons. It is the spread over
    neurons, as if this set were a sample of the neurons such a set may have; it is not the spread over text, which
    `lape.detect.stability` looks at. A share of 0 or 1 gets an interval without width. In the row `all` a neuron is drawn with all
    its languages.

    Example:
        >>> from lape.experiments.layers.run import layers
        >>> layers(neurons)["language"].to_list()
        ['en', 'fr', 'id', 'zh', 'all']
    """
    depth = _Depth(neurons.space)
    rows = [
        {"language": language, **_row(depth, depth.of(found.flat), np.ones(len(found), np.int64), resamples, seed)}
        for language, found in neurons.sets.items()
    ]
    flat = torch.cat([torch.empty(0, dtype=torch.int64), *(found.flat for found in neurons.sets.values())])
    each, times = torch.unique(flat, return_counts=True)
    rows.append({"language": ALL, **_row(depth, depth.of(each), times.numpy(), resamples, seed)})
    return pl.DataFrame(rows, schema=LAYERS)


class _Depth:
    """The layers of a space as positions 0, 1, 2 …, and how many neurons each holds."""

    def __init__(self, space: NeuronSpace) -> None:
        self.space = space
        self._position = torch.tensor([space.layers.index(stretch.layer) for stretch in space], dtype=torch.int64)
        widths = np.array([stretch.width for stretch in space], dtype=np.float64)
        self.widths: Floats = by_unit(self._position.numpy(), widths, len(space.layers))
        self.quarter = max(1, len(space.layers) // 4)

    def of(self, flat: torch.Tensor) -> _Ints:
        """The position of each neuron's layer."""
        found: _Ints = self._position[self.space.stretch_of(flat)].numpy()
        return found


def _row(depth: _Depth, position: _Ints, weight: _Ints, resamples: int, seed: int) -> dict[str, Any]:
    last = len(depth.widths) - 1
    top = len(depth.widths) - depth.quarter
    row: dict[str, Any] = {
        "neurons": int(weight.sum()),
        "first_layer_chance": float(depth.widths[0] / depth.widths.sum()),
        "bottom_two_chance": float(depth.widths[:2].sum() / depth.widths.sum()),
        "top_quarter_chance": float(depth.widths[top:].sum() / depth.widths.sum()),
    }
    if not len(position):
        return row
    by_layer = by_unit(position, weight, last + 1)
    share = by_layer / by_layer.sum()
    row |= {
        "centre": float(share @ np.arange(last + 1)) / max(last, 1),
        "first_layer": float(share[0]),
        "bottom_two": float(share[:2].sum()),
        "bottom_quarter": float(share[: depth.quarter].sum()),
        "middle_half": float(share[depth.quarter : top].sum()),
        "top_quarter": float(share[top:].sum()),
        "fullest": depth.space.layers[int(by_layer.argmax())],
    }
    places = (("first_layer", position < 1), ("bottom_two", position < 2), ("top_quarter", position >= top))
    for name, inside in places:
        if inside.all() or not inside.any():  # every resample is alike: the score interval of a share of neurons
            estimate = wilson(int(inside.sum()), len(inside))
        else:  # neurons that are alike in both respects are interchangeable: a resample holds so many of each kind
            kinds, counts = np.unique(np.stack([inside * weight, weight]), axis=1, return_counts=True)
            drawn = Resamples(counts, resamples, seed)
            estimate = drawn.estimate(drawn.ratio(*kinds.astype(np.float64)))
        row = estimate.named(name, quantiles=True) | row  # the share itself is there already
    return row
