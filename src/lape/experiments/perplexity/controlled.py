"""A language's own change of loss beside that of its control neurons, paired."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from lape.errors import OptionError
from lape.measure.bootstrap import Resamples
from lape.measure.changes import resampled_ends

CONTROLLED = {
    **dict.fromkeys(("language", "control"), pl.String),
    **dict.fromkeys(("own", "of_control", "difference", "low", "high"), pl.Float64),
}
"""Columns of `controlled`."""


def controlled(lines: pl.DataFrame, languages: Sequence[str], *, resamples: int = 2000, seed: int = 0) -> pl.DataFrame:
    """Own minus the mean of the control draws: one row per language and kind of control (random, matched).

    `lines`: as `lape.experiments.perplexity.run.line_losses` gives them. `own`, `of_control`: change of loss in nats per token; `difference` with
    its paired 95 % interval over units of text, null under 20 units. A language without control neurons (its set is empty, or too few
    others are left) has nulls for them: it is not left out, since what has no control shows nothing.
    Raises OptionError for a language that was not evaluated, or whose set was not switched off.

    Example:
        >>> from lape.experiments.perplexity.controlled import controlled
        >>> from lape.experiments.perplexity.run import PerplexityOptions, line_losses
        >>> options = PerplexityOptions(tokens=200, draws=1)
        >>> lines = line_losses(model, tokenizer, neurons, {"fr": texts["fr"]}, options)
        >>> controlled(lines, ["fr"])["control"].to_list()
        ['random', 'matched']
    """
    if not len(lines):
        raise OptionError("There are no losses. Give the lines of lape.experiments.perplexity.run.line_losses.")
    drawn = Resamples(1 + max(lines["unit"].to_list()), resamples, seed)
    rows = []
    for language in languages:
        mine = lines.filter(pl.col("language") == language)
        base = mine.filter(pl.col("kind") == "base").sort("line")
        own = mine.filter((pl.col("kind") == "own") & (pl.col("off") == language)).sort("line")
        if not len(base) or not len(own):
            raise OptionError(f"There is no loss of {language} with its own neurons off. Evaluate it, or leave it out.")
        for kind in ("random", "matched"):
            draws = mine.filter((pl.col("kind") == kind) & (pl.col("off") == language))
            control = draws.group_by("line").agg(pl.col("nll").mean()).sort("line") if len(draws) else None
            rows.append({"language": language, "control": kind, **_row(base, own, control, drawn)})
    return pl.DataFrame(rows, schema=CONTROLLED)


def _row(base: pl.DataFrame, own: pl.DataFrame, control: pl.DataFrame | None, drawn: Resamples) -> dict[str, Any]:
    unit, tokens = base["unit"].to_numpy(), base["tokens"].to_numpy()
    if control is None:
        return {"own": float((own["nll"] - base["nll"]).sum() / tokens.sum())}
    before, after, with_control = (frame["nll"].to_numpy() for frame in (base, own, control))
    changes = [float((values - before).sum() / tokens.sum()) for values in (after, with_control)]
    row = {"own": changes[0], "of_control": changes[1], "difference": changes[0] - changes[1]}
    return row | resampled_ends(unit, after - with_control, tokens, drawn)
