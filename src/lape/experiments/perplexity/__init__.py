"""What switching each language off does to each language's loss, beside controls."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from lape.errors import OptionError
from lape.experiments.claim import beside
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import MODEL, PARALLEL, Cost, Experiment
from lape.experiments.perplexity.captions import matrix_caption, own_caption
from lape.experiments.perplexity.figures import own as draw_own
from lape.experiments.perplexity.figures import perplexity as draw_matrix
from lape.experiments.perplexity.run import SUMMARY, PerplexityOptions, losses, perplexity, summary
from lape.experiments.perplexity.section import section
from lape.experiments.table import Table
from lape.figures.figure import Figure
from lape.measure.controlled import ADDED_DISSOCIATED, CONTROLLED, DISSOCIATED, control_passes, controlled, dissociated
from lape.measure.controls import MATCHED, kinds_of
from lape.measure.effects import effects
from lape.measure.frontier import FRONTIER, frontier
from lape.options import Options, Positive

__all__ = ["EXPERIMENT", "perplexity"]


@dataclass(frozen=True)
class PerplexityStudy(Options):
    """What of it a study sets."""

    draws: Positive = 20
    """Draws of each kind of control neurons, on the language's own text."""
    elsewhere: Positive = 4
    """How many of the draws are measured on every other language too; random ones never are."""
    controls: tuple[str, ...] = ("random", "matched")
    """Kinds of control neurons: random, matched (in written energy), matched-apart, gate, gate-apart."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if MATCHED.name not in {one.name for one in kinds_of(self.controls)}:
            raise OptionError(
                f"controls are {', '.join(self.controls)}. Expected {MATCHED.name} among them: claims are judged on it."
            )


def _run(context: Context, own_options: PerplexityStudy) -> Tables:
    """LAPE's sets under the published rule, off: each language on each, with controls."""
    shared, neurons = context.options, context.neurons
    options = PerplexityOptions(**vars(own_options), resamples=shared.resamples, seed=shared.seed)
    lines = losses(context.work, neurons, options, context.progress)
    measured = effects(context.work, {("lape", len(neurons.union)): neurons}, context.languages, context.progress)
    published = frontier(measured, context.over, options.resamples, options.seed)
    tables = {
        "perplexity": summary(lines, neurons, options),
        "controlled": controlled(lines, context.languages, resamples=options.resamples, seed=options.seed),
        "dissociated": dissociated(lines, context.languages, resamples=options.resamples, seed=options.seed),
        "published": published,
    }
    if shared.main in context.languages:
        tables["main"] = published.filter(pl.col("language") == shared.main)
    return tables


def _cost(context: Context, options: PerplexityStudy) -> Cost:
    """The matrix, the controls, and the unedited model."""
    languages = len(context.languages)
    drawn = control_passes(options.controls, draws=options.draws, elsewhere=options.elsewhere, others=languages - 1)
    passes = languages * (languages + sum(drawn) + 1)
    return Cost(passes, passes * context.options.tokens)


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
            added=("matched_energy",),
        ),
        "controlled": Table(
            "Change of loss with a language's set off less that with control neurons off, paired: of the language's own loss (difference), and how much more "
            "that changes than the mean of the other languages' does (more).",
            CONTROLLED,
            labels={
                "energy_ratio": "energy, set ÷ control",
                "own": "own (nats per token)",
                "of_control": "control's (nats per token)",
                "largest": "control's largest draw",
                "own_more": "own − others' (nats per sentence)",
                "control_more": "the same of the control",
                "unlike": "why the energies differ",
            },
            file="perplexity/controlled.parquet",
            key=("language", "control"),
        ),
        "dissociated": Table(
            "Two languages come apart: half of how much more each set costs its own language than the other, added up over both, nats per sentence, beside the "
            "same of matched control neurons; and both ways: of the two sets the smaller difference, less its control's.",
            DISSOCIATED,
            labels={"interaction": "of sets", "of_control": "of control neurons", "weaker": "the weaker way"},
            added=ADDED_DISSOCIATED,
            key=("language", "other"),
        ),
        "published": Table(
            "LAPE's sets under the published rule: own effect, others and worst other, in nats per sentence, and selectivity.",
            FRONTIER,
        ),
        "main": Table(
            "Own effect, others and worst other, in nats per sentence, and selectivity of the main language's set.",
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
    command="lape perplexity {run} --text TAG=PATH",
)
