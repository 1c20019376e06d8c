"""Sentence similarity and dominance across layers."""

from __future__ import annotations

from dataclasses import dataclass

from lape.experiments.context import Context, Tables
from lape.experiments.experiment import MODEL, PARALLEL, Cost, Experiment
from lape.experiments.similarity.run import DOMINANCE, PAIRS, SimilarityOptions, similarity
from lape.experiments.table import Table
from lape.figures.captions import plain
from lape.figures.figure import Figure
from lape.figures.lines import by_layer
from lape.options import Options, Positive

__all__ = ["EXPERIMENT", "similarity"]


@dataclass(frozen=True)
class SimilarityStudy(Options):
    """What of it a study sets."""

    sentences: Positive = 400
    """Parallel sentences whose similarity is measured."""


def _run(context: Context, options: SimilarityStudy) -> Tables:
    shared = context.options
    return similarity(
        context.model,
        context.tokenizer,
        {language: context.lines[language] for language in context.languages},
        options=SimilarityOptions(
            sentences=options.sentences, resamples=shared.resamples, seed=shared.seed, batch_tokens=shared.batch_tokens
        ),
        progress=context.progress,
    )


def _cost(context: Context, options: SimilarityStudy) -> Cost:
    """One pass of the body over the sentences."""
    count = min(options.sentences, len(next(iter(context.lines.values()))))
    per_line = context.options.tokens / max(len(context.evaluation[0]), 1)
    return Cost(body_tokens=round(count * per_line * len(context.languages)))


EXPERIMENT = Experiment(
    name="similarity",
    title="Similarity of translations",
    about="sentence similarity and dominance across layers",
    options=SimilarityStudy,
    run=_run,
    tables={
        "dominance": Table(
            "How strongly each language dominates each layer, and the share of translations that are found.", DOMINANCE
        ),
        "pairs": Table("How alike the sentences of two languages are in each layer, as cosines.", PAIRS),
    },
    needs=(MODEL, PARALLEL),
    cost=_cost,
    figures=(
        Figure(
            "retrieval",
            "Translations found across layers",
            ("dominance",),
            by_layer("dominance", "p_at_1", "P@1 of the translation", "p_at_1_chance"),
            plain(
                "dominance",
                "Share of sentences to which their own translation is nearer than any other sentence, by layer; dotted: chance.",
            ),
        ),
        Figure(
            "dominance",
            "Dominance across layers",
            ("dominance",),
            by_layer("dominance", "difference", "dominance, matched − mismatched"),
            plain(
                "dominance",
                "How strongly each language's direction dominates each layer: cosine matched less mismatched.",
            ),
        ),
    ),
)
