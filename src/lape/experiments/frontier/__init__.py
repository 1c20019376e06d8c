"""Selection methods compared at equal effect on the language itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from lape.detect.identify import identify
from lape.errors import OptionError
from lape.experiments.claim import beside
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import MODEL, PARALLEL, Cost, Experiment, matrices
from lape.experiments.frontier.figures import frontier as draw
from lape.experiments.frontier.table import ADVANTAGES, advantages
from lape.experiments.table import Table
from lape.figures.captions import sentences
from lape.figures.figure import Figure
from lape.measure.effects import Effects, effects, matched_sets
from lape.measure.frontier import FRONTIER, MATRIX, frontier, matrix
from lape.values.neurons import LanguageNeurons

__all__ = ["EXPERIMENT", "advantages"]

QUICK = ("lape", "lap", "lave", "random", "matched")
FULL = (*QUICK, "variation", "difference", "difference:against=largest", "probability", "attribution")
CONTROLS = ("random", "matched")
"""Selection methods that do next to nothing at any size: measured at the largest alone."""
FINER = ("lape", "difference")
"""Those compared more finely."""
_METHODS = {"probability": "difference:of=probability"}
"""Selection methods that are another's with options."""


@dataclass(frozen=True)
class FrontierStudy:
    """What of it a study sets."""

    methods: tuple[str, ...] | None = None
    """Selection methods that are compared, with options where wanted (difference:against=largest). Default: all that the statistics allow,
    but for alignment, ap and probability90; with quick, the paper's.
    """
    sizes: tuple[int, ...] = (50, 200)
    """Neurons of each language at which every selection method is measured."""
    finer: tuple[int, ...] = (100,)
    """Further sizes for LAPE and for the difference of means."""

    def __post_init__(self) -> None:
        if not self.sizes or any(size < 1 for size in (*self.sizes, *self.finer)):
            raise OptionError("sizes must name at least one number of neurons, each 1 or more.")

    def wanted(self, quick: bool) -> Sequence[str]:
        """The methods that were asked for, or those that are compared by default."""
        return self.methods or (QUICK if quick else FULL)

    def sizes_of(self, method: str, quick: bool) -> Sequence[int]:
        """The sizes at which a method is measured."""
        if method in CONTROLS or quick:
            return [max(self.sizes)]
        return sorted({*self.sizes, *(self.finer if method in FINER else ())})


def _run(context: Context, options: FrontierStudy) -> Tables:
    """Own against others at equal numbers of neurons, and who is more selective at equal own effect."""
    measured, shared = _measured(context, options), context.options
    pairs = [
        advantages(measured, method, measured.methods, context.over, resamples=shared.resamples, seed=shared.seed)
        for method in ("lape", "difference", "probability")
        if method in measured.methods
    ]
    return {
        "frontier": frontier(measured, context.over, shared.resamples, shared.seed),
        "matrix": matrix(measured, shared.resamples, shared.seed),
        "advantages": pl.concat(pairs),
    }


def _measured(context: Context, options: FrontierStudy) -> Effects:
    out = left_out(context, options)
    context.left_out |= out
    sets: dict[tuple[str, int], LanguageNeurons] = {}
    for method in (one for one in options.wanted(context.options.quick) if one not in out):
        for size in options.sizes_of(method, context.options.quick):
            sets[method, size] = found = selected(context, method, size)
            context.note("frontier", *(f"{method}, {size}: {note}" for note in found.notes))
    return effects(context.work, sets, context.languages, context.progress)


def compared(context: Context, options: FrontierStudy) -> list[str]:
    """The methods on the frontier: those that were asked for, or that the statistics allow."""
    out = left_out(context, options)
    return [method for method in options.wanted(context.options.quick) if method not in out]


def left_out(context: Context, options: FrontierStudy) -> dict[str, str]:
    """Method -> why these statistics do not allow it; one that was asked for by name is an error instead."""
    reasons = {}
    for method in options.wanted(context.options.quick):
        try:
            if method != "matched":
                selected(context, method, 1)
        except OptionError as error:
            if options.methods:
                raise
            reasons[method] = str(error)
    return reasons


def selected(context: Context, method: str, size: int) -> LanguageNeurons:
    """The sets of a method with `size` neurons of each language."""
    seed = context.options.seed
    if method == "matched":
        return matched_sets(context.work, selected(context, "lape", size), seed)
    name, more = _named(method)
    if name == "random":
        more = {"seed": seed, **more}
    return identify(context.stats, name, reliability=False, per_language=size, **more)


def _named(method: str) -> tuple[str, dict[str, Any]]:
    """A method and its options: `difference:of=probability,against=largest`."""
    name, _, rest = _METHODS.get(method, method).partition(":")
    more: dict[str, Any] = {}
    for one in filter(None, rest.split(",")):
        key, equals, value = one.partition("=")
        if not equals:
            raise OptionError(
                f"{method!r} is not a selection method. Expected a name, or NAME:OPTION=VALUE,… such as difference:against=largest."
            )
        more[key] = float(value) if value.replace(".", "", 1).isdigit() else value
    return name, more


def _cost(context: Context, options: FrontierStudy) -> Cost:
    """One matrix a method and size."""
    methods = compared(context, options)
    return matrices(context, sum(len(options.sizes_of(method, context.options.quick)) for method in methods))


EXPERIMENT = Experiment(
    name="frontier",
    title="Selection methods",
    about="selection methods at equal numbers of neurons",
    options=FrontierStudy,
    run=_run,
    tables={
        "frontier": Table("Own effect, others and selectivity of each method and size, nats per token.", FRONTIER),
        "matrix": Table("Change of each language's loss with each language's set off, nats per token.", MATRIX),
        "advantages": Table(
            "Selectivity of one method minus another's, at the largest own effect that both reach.", ADVANTAGES
        ),
    },
    needs=(MODEL, PARALLEL),
    cost=_cost,
    figures=(
        Figure(
            "frontier",
            "Selection methods: others against own",
            ("frontier",),
            draw,
            sentences(
                "frontier",
                "Selection methods at several sizes of set (points of a line): mean change of the other languages' loss against that of the language "
                "whose neurons are off, nats per token, means over languages; lower at equal own effect is more selective.",
            ),
        ),
    ),
    claims=beside(__file__),
    study="always",
)
