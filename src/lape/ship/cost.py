"""What an adapter costs: the change of loss on text while it acts on every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from lape.data.corpus import BosRule, TextOptions, prepare_all
from lape.data.texts import DocumentRule, Texts
from lape.errors import certain
from lape.measure.bootstrap import Resamples, units
from lape.measure.changes import loss_change
from lape.model.loss import find_head, line_loss
from lape.progress import Progress, each, shown
from lape.ship.changes import LowRank
from lape.ship.fit import served

COST = {"language": pl.String, "tokens": pl.Int64, **dict.fromkeys(("cost", "low", "high"), pl.Float64)}
"""A row per language: `tokens` (scored), `cost` (change of loss, nats per token) with its 95 % interval `low`, `high` over documents (null under 20)."""


def cost(
    model: Any,
    tokenizer: Any,
    parts: Sequence[LowRank],
    texts: Texts,
    *,
    tokens: int = 1000,
    document: DocumentRule = "file",
    column: str = "text",
    bos: BosRule = "auto",
    resamples: int = 2000,
    seed: int = 0,
    progress: Progress = shown,
) -> pl.DataFrame:
    """The change of loss on `tokens` tokens of each language: `COST`."""
    options, head = TextOptions(tokens=tokens, document=document, column=column, bos=bos), find_head(model)
    rows = []
    corpora = prepare_all(texts, tokenizer, options, lines=True)
    for language, corpus in each(list(corpora.items()), "cost on text", progress):
        before = line_loss(model, head, corpus, options)
        with served(model, parts):
            after = line_loss(model, head, corpus, options)
        unit = units(certain(corpus.lines).document)
        drawn = Resamples(int(unit.max()) + 1 if len(unit) else 1, resamples, seed)
        rows.append({"language": language, **loss_change("cost", unit, before, after, drawn)})
    return pl.DataFrame(rows, schema=COST)
