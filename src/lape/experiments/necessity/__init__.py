"""Frequency or necessity: what switching off single neurons costs, and what predicts it."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from lape.data.parallel import spread
from lape.errors import OptionError
from lape.experiments.claim import beside
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import MODEL, PARALLEL, SUMS, Cost, Experiment
from lape.experiments.necessity.run import ABLATED, CORRELATIONS, PREDICTIONS, necessity
from lape.experiments.table import Table
from lape.figures.captions import counted
from lape.figures.dots import dots
from lape.figures.figure import Figure
from lape.measure.result import Result
from lape.model.precision import in_float32
from lape.options import Tokens

__all__ = ["EXPERIMENT", "necessity"]

GROUP = 16
"""Neurons of a group that is switched off together: what one does to a few hundred tokens says little of what it does to others."""
_SIZE = {"size": pl.Int32}
_GROUPS = "95 % percentile bootstrap over groups of neurons{resamples}."


@dataclass(frozen=True)
class NecessityStudy:
    """What of it a study sets."""

    groups: int = 300
    """Single neurons that are switched off one by one, spread over layers and deciles of energy."""
    necessity: str | None = None
    """The language whose loss is measured while neurons are off one by one. Default: the first beside the main one."""
    necessity_tokens: Tokens = 350
    """Tokens of that language's parallel text on which the loss is measured then."""

    @property
    def counts(self) -> dict[int, int]:
        """Size of a group -> how many groups of it."""
        return {1: self.groups, GROUP: max(8, self.groups // 3)}


def _run(context: Context, options: NecessityStudy) -> Tables:
    """Single neurons and groups switched off, against what LAPE, probabilities, differences and attributions say of them."""
    tables: dict[str, list[pl.DataFrame]] = {"ablated": [], "correlations": [], "predictions": []}
    for size, count in options.counts.items():
        with in_float32(context.model):  # the damage of one neuron is smaller than the rounding of half precision
            found = _necessity(context, options, size, count)
        for name, some in tables.items():
            table = found[name].with_columns(pl.lit(size).alias("size"))
            some.append(table.drop("neurons") if name == "ablated" else table)
    return {name: pl.concat(some) for name, some in tables.items()}


def _necessity(context: Context, options: NecessityStudy, size: int, count: int) -> Result:
    shared, language = context.options, _language(context, options)
    lines = {language: context.lines[language]}
    return necessity(
        context.model,
        context.tokenizer,
        context.neurons,
        context.stats,
        spread(lines, options.necessity_tokens, context.tokenizer)[1],
        size=size,
        groups=count,
        own=0,
        layerwise=False,
        resamples=shared.resamples,
        seed=shared.seed,
        batch_tokens=shared.batch_tokens,
        folder=context.cells("necessity"),
        progress=context.progress,
    )


def _language(context: Context, options: NecessityStudy) -> str:
    """The language on which single neurons are switched off."""
    wanted = options.necessity or context.over[0]
    if wanted not in context.languages:
        raise OptionError(
            f"necessity is {wanted!r}. Expected a language that was recorded: {', '.join(context.languages)}."
        )
    return wanted


def _cost(_context: Context, options: NecessityStudy) -> Cost:
    """One pass a neuron or group; the estimates, twice, take 13 backward passes, each three times as long; float32 takes three times as long as half
    precision on a CPU.
    """
    passes = sum(options.counts.values())
    return Cost(passes=passes, loss_tokens=3 * (passes + 2 * 3 * 13) * options.necessity_tokens)


EXPERIMENT = Experiment(
    name="necessity",
    title="Frequency or necessity",
    about="whether what is known of a neuron predicts the damage of switching it off",
    options=NecessityStudy,
    run=_run,
    tables={
        "ablated": Table(
            "The damage of each neuron or group (the change of loss with it off, nats per token), and what was known of it beforehand.",
            {name: kind for name, kind in ABLATED.items() if name != "neurons"} | _SIZE,
        ),
        "correlations": Table("Rank correlation of the damage with what was known beforehand.", CORRELATIONS | _SIZE),
        "predictions": Table(
            "How well estimates predict the damage: R² in the text that they were made on and in other text.",
            PREDICTIONS | _SIZE,
        ),
    },
    needs=(MODEL, PARALLEL, SUMS),
    cost=_cost,
    figures=(
        Figure(
            "necessity",
            "Rank correlation with the damage",
            ("correlations",),
            dots("correlations", ["predictor", "size"], "rho", "rank correlation with the damage", 0.0, among="sample"),
            counted(
                "correlations",
                "Rank correlation of the damage (the change of loss with groups of neurons off) with what was known of them beforehand.",
                "groups",
                "groups",
                _GROUPS,
            ),
        ),
        Figure(
            "predictions",
            "Variance of the damage explained",
            ("predictions",),
            dots(
                "predictions",
                ["estimate", "passes", "size"],
                "r2",
                "variance explained in unseen text",
                0.0,
                least=-1.0,
                text="unseen",
            ),
            counted(
                "predictions",
                "Share of the variance of the damage that an estimate explains in unseen text (below 0: worse than the mean; arrow: below −1), with the "
                "passes spent on calibrating its scale.",
                "groups",
                "groups",
                _GROUPS,
            ),
        ),
    ),
    claims=beside(__file__),
)
