"""The null distribution of LAPE's entropy: slices of one language."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from lape.data.texts import Source, documents
from lape.experiments.claim import beside
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import Cost, Experiment, Need
from lape.experiments.null.run import NULL, null_entropy, topic_slices
from lape.experiments.table import Table
from lape.figures.captions import counted
from lape.figures.dots import dots
from lape.figures.figure import Figure
from lape.options import Tokens, positive
from lape.recording.record import record

__all__ = ["EXPERIMENT", "null_entropy"]


@dataclass(frozen=True)
class NullStudy:
    """What of it a study sets."""

    topic_tokens: Tokens = 2000
    """Tokens of each slice of neighbouring text that are recorded, as many slices of each language as there are languages."""

    def __post_init__(self) -> None:
        positive(self, "topic_tokens")


def _run(context: Context, options: NullStudy) -> Tables:
    """Slices that are folds of the counts, and where a model and the recorded text are there, slices of neighbouring text."""
    seed = context.options.seed
    table = null_entropy(context.neurons, context.stats, seed=seed)
    topics, count = {}, len(context.languages)
    for language in _texts(context):
        pieces = _pieces(context.texts[language], count)
        if len(pieces) < count:
            context.note("null", f"{language}: {len(pieces)} pieces of text do not make {count} slices of topics")
            continue
        topics[language] = record(
            context.model,
            context.tokenizer,
            topic_slices(language, pieces, count),
            tokens=options.topic_tokens,
            batch_tokens=context.options.batch_tokens,
            progress=context.progress,
        )
    if not topics:
        return {"null": table}
    return {"null": pl.concat([table, null_entropy(context.neurons, context.stats, seed=seed, topics=topics)])}


def _texts(context: Context) -> list[str]:
    """Languages of which slices of neighbouring text can be recorded."""
    return [language for language in context.over if context.model is not None and language in context.texts]


def _pieces(source: Source, count: int) -> list[str]:
    """The documents of a text in order; the lines of one that has fewer than slices are to be."""
    whole = ["".join(pieces) for pieces in documents(source)]
    if len(whole) < count:
        whole = [line for one in whole for line in one.split("\n")]
    return [one for one in whole if one.strip()]


def _cost(context: Context, options: NullStudy) -> Cost:
    """Recording slices of neighbouring text."""
    return Cost(body_tokens=options.topic_tokens * len(context.languages) * len(_texts(context)))


def _missing(context: Context, _options: NullStudy) -> str | None:
    """As many slices as languages are made of the folds."""
    count = len(context.languages)
    if context.stats.folds < count:
        return f"{count} languages need as many slices of one language, and the statistics have {context.stats.folds} folds to make them of"
    empty = [k for k in context.languages if not bool(context.stats[k].tokens[:count].all())]
    return f"{', '.join(empty)}: too little text was recorded for {count} slices" if empty else None


EXPERIMENT = Experiment(
    name="null",
    title="The null entropy",
    about="entropies of slices of one language, beside those of the chosen neurons",
    options=NullStudy,
    run=_run,
    tables={
        "null": Table(
            "Entropies over slices of one language, folds of its counts or stretches of neighbouring text (topics), beside those of the chosen neurons "
            "over languages; intervals over neurons, not over text.",
            NULL,
            added=("kind",),
        )
    },
    needs=(Need(_missing),),
    cost=_cost,
    figures=(
        Figure(
            "null",
            "Entropies beside slices of one language",
            ("null",),
            dots("null", ["language", "kind"], "share_below", "share below the null's 1st percentile", 0.9),
            counted(
                "null",
                "Share of chosen neurons whose entropy lies below the 1st percentile of entropies over slices of one language: folds of its counts, "
                "which differ by chance alone, or stretches of neighbouring text (topics); dotted: nine in ten.",
                "neurons",
                "neurons",
                "Wilson's 95 % interval over neurons, not over text.",
            ),
        ),
    ),
    claims=beside(__file__),
    study="always",
)
