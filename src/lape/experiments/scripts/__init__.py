"""Script or language: the same sentences, written otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from lape.data.rewriting import libraries_missing
from lape.data.texts import Documents
from lape.experiments.claim import beside
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import MODEL, PARALLEL, Cost, Experiment, Need
from lape.experiments.scripts.run import SCRIPTS, scripts
from lape.experiments.table import Table
from lape.figures.captions import sentences
from lape.figures.dots import dots
from lape.figures.figure import Figure
from lape.options import Tokens, positive

__all__ = ["EXPERIMENT", "scripts"]


@dataclass(frozen=True)
class ScriptsStudy:
    """What of it a study sets."""

    script_tokens: Tokens = 4000
    """Tokens of each language's recorded text that are recorded again, romanised, converted, shuffled and noised."""

    def __post_init__(self) -> None:
        positive(self, "script_tokens")


def _run(context: Context, options: ScriptsStudy) -> Tables:
    languages, shared = context.over, context.options
    table = scripts(
        context.model,
        context.tokenizer,
        context.stats,
        {language: context.texts[language] for language in languages},
        {language: Documents(["\n".join(context.evaluated_lines(language))]) for language in languages},
        tokens=options.script_tokens,
        evaluation_tokens=2 * shared.tokens,  # all of the evaluated lines
        apart=True,
        steps=4,
        resamples=shared.resamples,
        seed=shared.seed,
        progress=context.progress,
    )
    return {"scripts": table}


def _missing(context: Context, _options: ScriptsStudy) -> str | None:
    """The recorded text itself is read again, and libraries write it differently."""
    lacking = [language for language in context.over if language not in context.texts]
    if lacking:
        return f"the recorded text of {', '.join(lacking)} was not given (--text, beside --run)"
    return libraries_missing()


def _cost(context: Context, options: ScriptsStudy) -> Cost:
    """About four writings per language, recorded; each measured under two sets and without."""
    languages = len(context.over)
    return Cost(
        passes=19 * languages,
        loss_tokens=19 * languages * context.options.tokens,
        body_tokens=4 * languages * options.script_tokens,
    )


EXPERIMENT = Experiment(
    name="scripts",
    title="Script or language",
    about="effect of the neurons on the same sentences in other scripts",
    options=ScriptsStudy,
    run=_run,
    tables={
        "scripts": Table(
            "Neurons found and damage (change of loss, nats per sentence) where the same sentences are rewritten: romanised, converted, shuffled or noised.",
            SCRIPTS,
        )
    },
    needs=(MODEL, PARALLEL, Need(_missing, "{recorded}")),
    cost=_cost,
    figures=(
        Figure(
            "scripts",
            "Script or language",
            ("scripts",),
            dots("scripts", ["language", "kind"], "kept", "damage after rewriting ÷ damage before", 0.5),
            sentences(
                "scripts",
                "Damage (change of loss in nats per sentence) by the neurons found in native writing on the same sentences rewritten, over that on "
                "native writing.",
            ),
        ),
    ),
    claims=beside(__file__),
)
