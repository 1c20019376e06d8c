"""What an edit costs: the change of loss on text of the source, the target and third languages while it acts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from lape.data.corpus import Corpus, TextOptions, prepare_all
from lape.data.languages import tag
from lape.data.texts import Source, Texts, preview
from lape.errors import certain
from lape.measure.bench import Bench, both_ways
from lape.measure.bootstrap import Resamples, units
from lape.measure.changes import loss_change
from lape.measure.methods import Setting
from lape.measure.prompts import ask
from lape.model.loss import Loss, line_loss
from lape.progress import Progress, each, shown

COSTS = {
    **dict.fromkeys(("family", "setting", "source", "target", "language", "role"), pl.String),
    "tokens": pl.Int64,
    **dict.fromkeys(("delta_token", "low", "high"), pl.Float64),
}
"""A row per setting, pair and language: `family`, `setting`, `source`, `target`, `language` (of the text), `role` (what it is to the pair: source,
target or third), `tokens` (scored), `delta_token` (change of loss, nats per token) with its 95 % interval `low`, `high` over documents (null under 20).
"""
_MEASURED = 6
"""Lines on which a control's strength is matched."""


def costs(
    bench: Bench,
    edits: Sequence[tuple[Setting, tuple[str, str]]],
    texts: Texts,
    options: TextOptions,
    *,
    resamples: int = 2000,
    seed: int = 0,
    progress: Progress = shown,
) -> pl.DataFrame:
    """The change of loss in nats per token, with its 95 % interval over documents (none under 20), for each setting on its pair.

    The edit acts on every token of the text, prompt and generated alike, so an edit that spares some costs less than this.
    """
    corpora = prepare_all(texts, bench.tokenizer, options, lines=True)
    plain = {language: line_loss(bench.model, bench.head, corpus, options) for language, corpus in corpora.items()}
    beginnings = {tag(language): lines_in(source) for language, source in texts.items()}
    rows = []
    for setting, (source, target) in each(edits, "cost on text", progress):
        prompts = [
            ask(bench.tokenizer, line, source=source, target=target) for line in beginnings.get(source, [])[:_MEASURED]
        ]
        with bench.under(both_ways(setting), source, target, prompts):
            for language, corpus in corpora.items():
                loss = line_loss(bench.model, bench.head, corpus, options)
                role = "source" if language == source else "target" if language == target else "third"
                named = {"family": setting.family, "setting": setting.name, "source": source, "target": target}
                change = _change(corpus, plain[language], loss, resamples, seed)
                rows.append({**named, "language": language, "role": role, **change})
    return pl.DataFrame(rows, schema=COSTS)


def lines_in(source: Source) -> list[str]:
    """The lines of a text, of its beginning at least."""
    return [line for piece in preview(source, rule="file", column="text") for line in piece.split("\n") if line.strip()]


def _change(corpus: Corpus, before: Loss, after: Loss, resamples: int, seed: int) -> dict[str, Any]:
    unit = units(certain(corpus.lines).document)
    count = int(unit.max()) + 1 if len(unit) else 1
    return loss_change("delta_token", unit, before, after, Resamples(count, resamples, seed))
