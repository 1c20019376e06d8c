"""Necessity and sufficiency: layers of which nothing but a language's set is left, and its activity taken away step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import polars as pl

from lape.experiments.claim import beside
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import MODEL, PARALLEL, SUMS, Cost, Experiment
from lape.experiments.sufficiency.figures import causes
from lape.experiments.sufficiency.figures import keeping as draw_keeping
from lape.experiments.sufficiency.run import ADDED, KEEPING, PLACES, keeping
from lape.experiments.table import Table
from lape.figures.captions import sentences
from lape.figures.figure import Figure
from lape.measure.bootstrap import Floats
from lape.measure.effects import Effects, effects, matched_sets
from lape.measure.frontier import FRONTIER, GROWTH, frontier, growth
from lape.options import Options, Positive, within

__all__ = ["EXPERIMENT", "keeping"]

OWN, MATCHED = "set", "matched"
DOSES = {"of": pl.String, "dose": pl.Int64, **{k: v for k, v in FRONTIER.items() if k not in ("method", "size")}}


@dataclass(frozen=True)
class SufficiencyStudy(Options):
    """What of it a study sets."""

    keep_draws: Positive = 4
    """Draws of matched control neurons that are left in a layer instead of a language's set."""
    doses: tuple[Annotated[int, within(1, 99)], ...] = (25, 50, 75)
    """Per cent of their activity that is taken from a set and from matched neurons, beside all of it."""


def _run(context: Context, options: SufficiencyStudy) -> Tables:
    shared, how = context.options, {"resamples": context.options.resamples, "seed": context.options.seed}
    kept = keeping(
        context.work,
        context.neurons,
        context.stats.overall_mean(),
        draws=options.keep_draws,
        progress=context.progress,
        **how,
    )
    measured = _doses(context, [*options.doses, 100])
    table = frontier(measured, context.over, shared.resamples, shared.seed)
    grown = growth(measured, OWN, context.over, shared.resamples, shared.seed)
    return {"keeping": kept, "doses": table.rename({"method": "of", "size": "dose"}), "dose_growth": grown}


def _doses(context: Context, doses: Sequence[int]) -> Effects:
    """What a share of their activity taken away does, of the sets and of a matched control: `size` is per cent."""
    sets = {(OWN, 0): context.neurons, (MATCHED, 0): matched_sets(context.work, context.neurons, context.options.seed)}
    nats: dict[tuple[str, int], Floats] = {}
    neurons: dict[tuple[str, int], tuple[int | None, ...]] = {}
    for dose in sorted(set(doses)):
        found = effects(context.work, sets, context.languages, context.progress, factor=1 - dose / 100)
        nats |= {(name, dose): change for (name, _), change in found.nats.items()}
        neurons |= {(name, dose): counts for (name, _), counts in found.neurons.items()}
    return Effects(found.languages, found.sentences, nats, neurons)


def _cost(context: Context, options: SufficiencyStudy) -> Cost:
    """Every place: nothing, the set, its controls and the other languages' sets left. Every dose: sets and controls, of which the sets are off already."""
    languages = len(context.languages)
    kept = len(PLACES) * languages * (1 + options.keep_draws + languages)
    passes = kept + (2 * len(set(options.doses)) + 1) * languages**2
    return Cost(passes, passes * context.options.tokens)


EXPERIMENT = Experiment(
    name="sufficiency",
    title="Necessity and sufficiency",
    about="what a language's set restores where nothing else of a layer is left, and its effect dose by dose",
    options=SufficiencyStudy,
    run=_run,
    tables={
        "keeping": Table(
            "The loss of a language with all neurons of some layers at their mean over languages (lost, nats per token), and the share of it that is restored "
            "where its own set is left as it is, beside matched control neurons or other languages' sets left instead.",
            KEEPING,
            added=ADDED,
            labels={
                "of": "of so many",
                "energy_ratio": "changed by the mean, set ÷ control",
                "unlike": "why the energies differ",
                "by_control": "by control neurons",
                "over_control": "more than control neurons",
                "by_others": "by other languages' sets",
                "most_by_others": "by that which restores most",
                "over_others": "more than other languages' sets",
            },
        ),
        "doses": Table(
            "Own effect, mean of the others and worst other in nats per sentence, with so many per cent of their activity taken from LAPE's sets, or from as "
            "many matched neurons.",
            DOSES,
        ),
        "dose_growth": Table(
            "The paired change of the mean own effect of the sets, in nats per sentence, from one dose (per cent) to the next.",
            GROWTH,
        ),
    },
    needs=(MODEL, PARALLEL, SUMS),
    cost=_cost,
    figures=(
        Figure(
            "causes",
            "Necessary, enough, by dose",
            ("controlled", "keeping", "doses"),
            causes,
            sentences(
                "keeping",
                "Set off: how much more a language's own loss rises than the others', in nats per sentence, less the same with control neurons off, the "
                "nearest in written energy, which stands beside it. Left alone: the share of what a language loses with the layer at its mean that is "
                "restored where its own set is left as it is (in brackets: neurons), control neurons (mean of the draws), or other languages' sets (mean). "
                "Taken bit by bit: own loss and the others' by the share of activity that is taken from sets and from one draw of control neurons, means "
                "over languages.",
            ),
        ),
        Figure(
            "keeping",
            "What a set alone restores",
            ("keeping",),
            draw_keeping,
            sentences(
                "keeping",
                "All neurons of the first layer, of the layer that holds most of a set, or of the top quarter at their mean over languages: the share of the "
                "language's loss that is restored where its own set (in brackets: neurons) is left as it is, or control neurons (the nearest in how much "
                "the mean changes them), or other languages' sets.",
            ),
        ),
    ),
    claims=beside(__file__),
)
