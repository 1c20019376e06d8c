"""What a study is going to run, and for how long: said before it starts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl
import torch

from lape.data.corpus import TextOptions, prepare
from lape.data.texts import Documents
from lape.data.windows import batch, batches
from lape.experiments.context import Context
from lape.experiments.experiment import Cost, Experiment, taken
from lape.model.body import evaluating, run_batch
from lape.model.find import find
from lape.model.loss import find_head, line_loss

PLAN = {
    "part": pl.String,
    "about": pl.String,
    **dict.fromkeys(("passes", "loss_tokens", "body_tokens", "new_tokens"), pl.Int64),
    "seconds": pl.Float64,
    "not_run": pl.String,
}
"""Columns of a plan: `not_run` says why a part is left out."""
_PROBE = 1024
_LINES = 50


@dataclass(frozen=True)
class Speed:
    """Seconds per token."""

    loss: float
    body: float
    new: float


def speed(model: Any, tokenizer: Any, lines: Mapping[str, Sequence[str]], batch_tokens: int) -> Speed:
    """Measured on about a thousand tokens of some lines."""
    language, some = next(iter(lines.items()))
    texts = [*some[:_LINES]] * (_PROBE // max(len(some[:_LINES]), 1) + 1)
    options = TextOptions(tokens=_PROBE, batch_tokens=batch_tokens)
    corpus = prepare(language, Documents(texts), tokenizer, options, lines=True)
    head = find_head(model)
    line_loss(model, head, prepare(language, Documents(texts[:2]), tokenizer, options, lines=True), options)
    started = time.perf_counter()
    line_loss(model, head, corpus, options)
    loss = (time.perf_counter() - started) / len(corpus.tokens)
    started = time.perf_counter()
    _bodies(model, corpus, options)
    body = (time.perf_counter() - started) / len(corpus.tokens)
    return Speed(loss, body, _new(model, corpus.tokens[:16]))


@torch.inference_mode()
def _bodies(model: Any, corpus: Any, options: TextOptions) -> None:
    with evaluating(model):
        for some in batches(corpus, options, packs=find(model).packs):
            run_batch(model, batch(corpus, some))


@torch.inference_mode()
def _new(model: Any, tokens: Any) -> float:
    """Seconds of one step of generation for a batch of 20 prompts."""
    ids = torch.tensor(tokens.tolist()).expand(20, -1).to(next(model.parameters()).device)
    model.generate(ids, max_new_tokens=2, do_sample=False, pad_token_id=0)
    started = time.perf_counter()
    model.generate(ids, max_new_tokens=6, min_new_tokens=6, do_sample=False, pad_token_id=0)
    return (time.perf_counter() - started) / 6


def plan(context: Context, parts: Sequence[Experiment[Any]]) -> pl.DataFrame:
    """One row a part: what it runs, the seconds that takes at the measured speed, or why it is not run."""
    measured = speed(context.model, context.tokenizer, context.lines, context.options.batch_tokens)
    rows = []
    for part in parts:
        missing = part.missing(context, context.options)
        cost = Cost() if missing else part.cost(context, taken(part.options, context.options))
        seconds = cost.loss_tokens * measured.loss + cost.body_tokens * measured.body + cost.new_tokens * measured.new
        rows.append(
            {
                "part": part.name,
                "about": part.about,
                **asdict(cost),
                "seconds": seconds,
                "not_run": missing,
            }
        )
    return pl.DataFrame(rows, schema=PLAN)
