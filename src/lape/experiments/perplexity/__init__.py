"""What switching each language off does to each language's loss, beside controls."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from lape.errors import OptionError
from lape.experiments.claim import beside
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import MODEL, PARALLEL, Cost, Experiment
from lape.experiments.perplexity.captions import matrix_caption, own_caption
from lape.experiments.perplexity.controlled import CONTROLLED, controlled
from lape.experiments.perplexity.figures import own as draw_own
from lape.experiments.perplexity.figures import perplexity as draw_matrix
from lape.experiments.perplexity.run import SUMMARY, PerplexityOptions, losses, perplexity, summary
from lape.experiments.perplexity.section import section
from lape.experiments.table import Table
from lape.figures.figure import Figure
from lape.measure.effects import effects
from lape.measure.frontier import FRONTIER, frontier

__all__ = ["EXPERIMENT", "controlled", "perplexity"]


@dataclass(frozen=True)
class PerplexityStudy:
    """What of it a study sets."""

    draws: int = 3
    """Draws of each kind of control neurons."""

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise OptionError(f"draws is {self.draws}. Expected 1 or more: no claim is judged without a control.")


def _run(context: Context, own_options: PerplexityStudy) -> Tables:
    """LAPE's sets under the published rule, off: each language on each, with controls (a) and (b)."""
    shared, neurons = context.options, context.neurons
    options = PerplexityOptions(draws=own_options.draws, resamples=shared.resamples, seed=shared.seed)
    lines = losses(context.work, neurons, options, context.progress)
    measured = effects(context.work, {("lape", len(neurons.union)): neurons}, context.languages, context.progress)
    published = frontier(measured, context.over, options.resamples, options.seed)
    tables = {
        "perplexity": summary(lines, neurons, options),
        "controlled": controlled(lines, context.languages, resamples=options.resamples, seed=options.seed),
        "published": published,
    }
    if shared.main in context.languages:
        tables["main"] = published.filter(pl.col("language") == shared.main)
    return tables


def _cost(context: Context, options: PerplexityStudy) -> Cost:
    """The matrix, the controls on their own language, and the unedited model."""
    own, controls = len(context.languages) ** 2, 2 * options.draws * len(context.languages)
    base = len(context.languages)
    return Cost(own + controls + base, (own + controls + base) * context.options.tokens)


EXPERIMENT = Experiment(
    name="perplexity",
    title="Change of loss with neurons off",
    about="change of loss with LAPE's sets off, beside random and matched neurons",
    options=PerplexityStudy,
    run=_run,
    tables={
        "perplexity": Table(
            "Change of loss with a language's neurons off, on text of each language, nats per token unless a column says otherwise.",
            SUMMARY,
            file="perplexity/perplexity.parquet",
            key=("off", "language"),
            known=("neurons", "tokens", "units", "delta_token"),
        ),
        "controlled": Table(
            "Change of a language's own loss, in nats per token, less that with control neurons off, paired.",
            CONTROLLED,
        ),
        "published": Table(
            "LAPE's sets under the published rule: own effect and others, in nats per token, and selectivity.", FRONTIER
        ),
        "main": Table(
            "Own effect and others, in nats per token, and selectivity of the main language's set.",
            FRONTIER,
            optional=True,
        ),
    },
    needs=(MODEL, PARALLEL),
    cost=_cost,
    figures=(
        Figure("perplexity", "Change of loss with neurons off", ("perplexity",), draw_matrix, matrix_caption),
        Figure("own", "Own effect beside controls", ("perplexity",), draw_own, own_caption),
    ),
    section=section,
    claims=beside(__file__),
    study="always",
    command="lape perplexity {model} {run} {other}",
)
