"""One thought: is a language's set enough? What it brings back of what its layers do for the language, where nothing else of them is left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from lape.errors import OptionError
from lape.measure.ablation import Ablations
from lape.measure.bootstrap import Floats, Resamples, by_unit
from lape.measure.controlled import likeness
from lape.measure.controls import control, energy_ratio, seeded
from lape.measure.intervals import resampled
from lape.progress import Progress, each, shown
from lape.values.neurons import LanguageNeurons, NeuronSet

FIRST, FULLEST, TOP = "first layer", "fullest layer", "top quarter"
PLACES = (FIRST, FULLEST, TOP)
"""Where everything else is taken away: the first layer; the one that holds most neurons of the set, the first of equals; the top quarter of layers."""
KEEPING = {
    **dict.fromkeys(("place", "language"), pl.String),
    "layers": pl.List(pl.Int64),
    **dict.fromkeys(("neurons", "of"), pl.Int64),
    **resampled("lost"),
    **resampled("restored"),
    "draws": pl.Int64,
    "energy_ratio": pl.Float64,
    "unlike": pl.String,
    "by_control": pl.Float64,
    **resampled("over_control"),
    **dict.fromkeys(("by_others", "most_by_others"), pl.Float64),
    **resampled("over_others"),
    "units": pl.Int64,
}
"""Columns of `keeping`."""
ADDED = ("energy_ratio", "unlike", "most_by_others")
"""Those that tables of earlier versions lack."""


def keeping(
    work: Ablations,
    neurons: LanguageNeurons,
    mean: Tensor,
    *,
    draws: int = 4,
    resamples: int = 2000,
    seed: int = 0,
    progress: Progress = shown,
) -> pl.DataFrame:
    """What of some layers' worth to a language its own set restores, if nothing else of them is left.

    All neurons of a place (`PLACES`) are set to their `mean` (neurons,) over languages, which says nothing of any language, on all positions but the first
    of a text: the language loses `lost` nats per token. Then all but the language's own set: `restored` is the share of the loss that is gone. Beside it
    the mean over `draws` of matched control neurons left instead (as many in each layer, nearest in how much their mean changes them, `by_control`), and
    over those of the other languages' sets that have neurons there (`by_others`; `most_by_others`: the one that restores most), paired: `over_control`,
    `over_others`. `energy_ratio`: E[(a − mean)²]·‖w‖² of the set's neurons there over the mean of their controls', and `unlike`: why it is not within .8
    and 1.25. `layers` and `neurons` of the set there, `of` how many.

    One row per place and language; nulls where a set has no neurons there or no control, and of shares where nothing is lost. `_low`, `_high`: 95 %
    intervals over units of text, and draws; null under 20 units. `work.base` must have run. Ours. Raises OptionError for `draws` below 1.

    Example:
        >>> from lape.data.corpus import TextOptions
        >>> from lape.experiments.sufficiency.run import keeping
        >>> from lape.measure.ablation import Ablations
        >>> work = Ablations(model, tokenizer, {"fr": texts["fr"], "zh": texts["zh"]}, TextOptions(tokens=200))
        >>> _ = work.base()
        >>> table = keeping(work, neurons, stats.overall_mean(), draws=1, resamples=20)
        >>> table["place"].unique(maintain_order=True).to_list()
        ['first layer', 'fullest layer', 'top quarter']
    """
    if draws < 1:
        raise OptionError(f"draws is {draws}. Expected 1 or more: what is restored says nothing without a control.")
    drawn = Resamples(work.units, resamples, seed)
    made = [
        _Place(place, language, work, neurons, mean, draws, seed)
        for place in PLACES
        for language in neurons
        if language in work.languages
    ]
    runs = [(one, kept) for one in made for kept in one.conditions()]
    for one, kept in each(runs, "leaving only some neurons of layers", progress):
        one.measure(kept)
    return pl.DataFrame([one.row(drawn, seed) for one in made], schema=KEEPING)


@dataclass
class _Place:
    """A language's layers, and the loss of the language with some neurons of them left."""

    place: str
    language: str
    work: Ablations
    neurons: LanguageNeurons
    mean: Tensor
    draws: int
    seed: int
    changes: dict[tuple[str, int | str], Floats] = field(default_factory=dict)
    """What is left -> (units,) nats that the language loses."""

    @cached_property
    def layers(self) -> list[int]:
        """Those in which all else is set to its mean."""
        return layers_of(self.place, self.neurons[self.language])

    @cached_property
    def own(self) -> NeuronSet:
        """The language's set in these layers."""
        return self.neurons[self.language].in_layers(self.layers)

    @cached_property
    def whole(self) -> NeuronSet:
        """All neurons of these layers."""
        space = self.neurons.space
        return NeuronSet(space, torch.arange(len(space))).in_layers(self.layers)

    @cached_property
    def moved(self) -> Tensor:
        """By how much their mean changes all neurons in the language, which is what leaving some of them restores."""
        return self.work.moved(self.language, self.mean)

    @cached_property
    def controls(self) -> list[NeuronSet]:
        """The draws of matched neurons of these layers; fewer where too few are left."""
        number = list(self.neurons).index(self.language)
        drawn = [
            control(self.own, self.neurons.union, self.moved, seeded(self.seed, number, draw))[0]
            for draw in range(self.draws)
        ]
        return [one for one in drawn if one is not None]

    def conditions(self) -> Iterator[tuple[tuple[str, int | str], NeuronSet]]:
        """What is left: a name, and the neurons."""
        own = self.own
        if not len(own):
            return
        yield ("nothing", 0), NeuronSet(own.space, torch.empty(0))
        yield ("own", 0), own
        for draw, found in enumerate(self.controls):
            yield ("control", draw), found
        for other in self.neurons:
            there = self.neurons[other].in_layers(self.layers)
            if other != self.language and len(there):  # none restore nothing, which is no comparison
                yield ("others", other), there

    def measure(self, kept: tuple[tuple[str, int | str], NeuronSet]) -> None:
        name, left = kept
        base = self.work.unedited(self.language)
        loss = self.work.at(self.whole - left, self.mean, self.language, spare=True)
        self.changes[name] = by_unit(self.work.unit(self.language), loss.nll - base.nll, self.work.units)

    def row(self, drawn: Resamples, seed: int) -> dict[str, Any]:
        row: dict[str, Any] = {"place": self.place, "language": self.language, "layers": self.layers}
        row |= {
            "neurons": len(self.own),
            "of": len(self.whole),
            "units": len(set(self.work.unit(self.language).tolist())),
        }
        if not self.changes:
            return row
        unedited, unit = self.work.unedited(self.language), self.work.unit(self.language)
        lost = self.changes["nothing", 0]
        row |= drawn.named("lost", drawn.ratio(lost, by_unit(unit, unedited.tokens, self.work.units)), quantiles=True)
        restored = self._restored(drawn, "own")[:, 0]
        row |= drawn.named("restored", restored, quantiles=True)
        row["draws"] = len(self.controls)
        row |= likeness([energy_ratio(self.own, one, self.moved) for one in self.controls])
        for kind in ("control", "others"):
            shares = self._restored(drawn, kind)
            if not shares.shape[1]:
                continue
            by: Floats = drawn.crossed_mean(shares, seed) if kind == "control" else shares.mean(1)
            row |= drawn.named(f"over_{kind}", restored - by, quantiles=True)
            if np.isfinite(by[0]):
                row[f"by_{kind}"] = float(by[0])
                row |= {"most_by_others": float(shares[0].max())} if kind == "others" else {}
        return row

    def _restored(self, drawn: Resamples, kind: str) -> Floats:
        """(rows, conditions of a kind) the share of what is lost that is not, with some neurons left."""
        lost = drawn.sums(self.changes["nothing", 0])
        lost = np.where(lost > 0, lost, np.nan)  # a share of nothing is no number
        found = [1 - drawn.sums(one) / lost for (name, _), one in self.changes.items() if name == kind]
        return np.stack(found, 1) if found else np.empty((len(drawn.weights), 0))


def layers_of(place: str, found: NeuronSet) -> list[int]:
    """The layers of a place for a set; none for the fullest of an empty one."""
    layers = found.space.layers
    if place == FIRST:
        return [layers[0]]
    if place == TOP:
        return list(layers[-max(1, len(layers) // 4) :])
    held = {layer: len(some) for layer, some in found.by_layer().items()}
    return [max(layers, key=lambda layer: held.get(layer, 0))] if any(held.values()) else []
