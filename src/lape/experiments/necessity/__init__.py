"""Frequency or necessity: what switching sets of neurons off costs, and what predicts it."""

from __future__ import annotations

from dataclasses import dataclass

from lape.errors import OptionError
from lape.experiments.claim import beside
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import MODEL, PARALLEL, SUMS, Cost, Experiment
from lape.experiments.necessity.predictions import PREDICTIONS
from lape.experiments.necessity.run import CORRELATIONS, DAMAGES, NecessityOptions, necessity
from lape.experiments.table import Table
from lape.figures.captions import counted
from lape.figures.dots import dots
from lape.figures.figure import Figure
from lape.model.precision import in_float32
from lape.options import Tokens

__all__ = ["EXPERIMENT", "necessity"]

_GROUPS = "95 % percentile bootstrap over sets of neurons and documents{resamples}."
_SEVERAL = 3
"""Languages on which the damage is measured where none are named: a finding in one says little."""
_ESTIMATES = 32
"""What the estimates of all sets of a language take together, in passes that switch one set off; 10 are single neurons."""


@dataclass(frozen=True)
class NecessityStudy:
    """What of it a study sets."""

    groups: int = 60
    """Random sets of 16 neurons, and as many random subsets of the language's own set, that are switched off one after the other."""
    necessity: tuple[str, ...] | None = None
    """The languages whose loss is measured while sets are off. Default: the first three beside the main one."""
    necessity_tokens: Tokens = 2000
    """Tokens of each such language's parallel text on which the loss is measured then. What holds on unseen text takes more for random groups, whose
    damage is small: 8,000."""


def _run(context: Context, options: NecessityStudy) -> Tables:
    """Random groups and subsets of own sets switched off, against what LAPE, probabilities, differences and attributions say of them."""
    shared, languages = context.options, _languages(context, options)
    _, texts = context.spread(options.necessity_tokens, languages)
    with in_float32(context.model):  # the damage of few neurons is smaller than the rounding of half precision
        found = necessity(
            context.model,
            context.tokenizer,
            context.neurons,
            context.stats,
            texts,
            options=NecessityOptions(
                languages=languages,
                groups=options.groups,
                own=options.groups,
                resamples=shared.resamples,
                seed=shared.seed,
                batch_tokens=shared.batch_tokens,
            ),
            folder=context.cells("necessity"),
            progress=context.progress,
        )
    return {name: table.drop("neurons", strict=False) for name, table in found.items()}


def _languages(context: Context, options: NecessityStudy) -> tuple[str, ...]:
    """The languages on which sets are switched off."""
    wanted = options.necessity or tuple(context.over[:_SEVERAL])
    unknown = [language for language in wanted if language not in context.languages]
    if unknown:
        raise OptionError(
            f"necessity names {', '.join(unknown)}. Expected languages that were recorded: {', '.join(context.languages)}."
        )
    return tuple(wanted)


def _cost(context: Context, options: NecessityStudy) -> Cost:
    """One pass a set and language, and the estimates; float32 takes three times as long as half precision on a CPU."""
    languages = len(_languages(context, options))
    passes = languages * 2 * options.groups
    return Cost(passes=passes, loss_tokens=3 * (passes + languages * _ESTIMATES) * options.necessity_tokens)


EXPERIMENT = Experiment(
    name="necessity",
    title="Frequency or necessity",
    about="whether what is known of neurons predicts the damage of switching them off",
    options=NecessityStudy,
    run=_run,
    tables={
        "damages": Table(
            "The damage of each set (the change of loss with it off, nats per token), and what was known and estimated of it.",
            {name: kind for name, kind in DAMAGES.items() if name != "neurons"},
        ),
        "damage_correlations": Table(
            "Rank correlation of the damage with what the statistics say of a set.", CORRELATIONS
        ),
        "damage_predictions": Table(
            "How well estimates predict the damage: R² in the text that they were made on, and in other text as a share of what can be attained there.",
            PREDICTIONS,
        ),
    },
    needs=(MODEL, PARALLEL, SUMS),
    cost=_cost,
    figures=(
        Figure(
            "necessity",
            "Rank correlation with the damage",
            ("damage_correlations",),
            dots(
                "damage_correlations",
                ["language", "predictor", "size"],
                "rho",
                "rank correlation with the damage",
                0.0,
                among="own",
            ),
            counted(
                "damage_correlations",
                "Rank correlation of the damage (the change of loss with subsets of a language's own neurons off) with what was known of them beforehand.",
                "groups",
                "sets",
                _GROUPS,
            ),
        ),
        Figure(
            "predictions",
            "Variance of the damage explained",
            ("damage_predictions",),
            dots(
                "damage_predictions",
                ["language", "among", "estimate", "passes"],
                "r2",
                "variance explained in the same text",
                0.0,
                least=-1.0,
                text="same",
                size=0,
            ),
            counted(
                "damage_predictions",
                "Share of the variance of the damage that an estimate explains in the text that it was made on (below 0: worse than the mean; arrow: "
                "below −1), with the passes spent on fitting its link.",
                "groups",
                "sets",
                _GROUPS,
            ),
        ),
    ),
    claims=beside(__file__),
)
