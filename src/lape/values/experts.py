"""How much each expert of a mixture is used by each language: routing itself is a result."""

from __future__ import annotations

from typing import Any

import polars as pl
import torch

from lape.errors import OptionError
from lape.values.stats import ActivationStats

EXPERTS: dict[str, Any] = {
    "language": pl.String,
    **dict.fromkeys(("layer", "expert", "routed"), pl.Int64),
    **dict.fromkeys(("share", "lowest", "highest", "others", "ratio"), pl.Float64),
    "apart": pl.Boolean,
}
"""Columns of `measure_expert_use`."""


def measure_expert_use(stats: ActivationStats) -> pl.DataFrame:
    """Measure how much each language uses each expert (ours).

    One row per language and routed expert: `routed`, the counted tokens that were sent to it; `share` of all counted tokens (0 to
    1; with k experts per token the shares of a layer add up to k); `lowest` and `highest` of that share over the folds of the text
    (null where there is one fold): with 8 folds there are too few units for an interval; `others`, the mean share over the other
    languages; `ratio`, share / others (null where that is 0); `apart`, whether the folds' range lies wholly above or below the
    range of each other language (null where there is one fold).

    Raises OptionError for a model without routed experts, and for a single language, which has no others.

    Example:
        >>> from lape.values.experts import measure_expert_use
        >>> measure_expert_use(stats)
        Traceback (most recent call last):
        lape.errors.OptionError: This model has no routed experts. Expected statistics of a mixture of experts.
    """
    stats.check_whole()
    places = [k for k, stretch in enumerate(stats.space) if stretch.expert is not None]
    if not places:
        raise OptionError("This model has no routed experts. Expected statistics of a mixture of experts.")
    if len(stats.languages) < 2:
        raise OptionError(
            "Only one language was recorded, so there are no others to compare it with. Record two or more."
        )
    tokens = torch.stack([stats[language].tokens for language in stats.languages]).double()
    routed = torch.stack([stats[language].routed for language in stats.languages])[:, :, places].double()
    by_fold = routed / tokens[:, :, None].clamp_min(1)
    used = (tokens > 0)[:, :, None]  # a short text leaves folds empty
    low, high = by_fold.where(used, torch.inf).amin(1), by_fold.where(used, -torch.inf).amax(1)
    share = routed.sum(1) / tokens.sum(1).clamp_min(1)[:, None]
    stretches = [stats.space.stretches[place] for place in places]
    tables = []
    for k, language in enumerate(stats.languages):
        rest = torch.arange(len(stats.languages)) != k
        columns: dict[str, Any] = {
            "language": [language] * len(places),
            "layer": [stretch.layer for stretch in stretches],
            "expert": [stretch.expert for stretch in stretches],
            "routed": routed[k].sum(0).long().numpy(),
            "share": share[k].numpy(),
            "lowest": low[k].numpy(),
            "highest": high[k].numpy(),
            "others": share[rest].mean(0).numpy(),
            "ratio": (share[k] / share[rest].mean(0)).numpy(),
            "apart": ((low[k] > high[rest].amax(0)) | (high[k] < low[rest].amin(0))).numpy(),
        }
        tables.append(pl.DataFrame(columns, schema=EXPERTS))
    table = pl.concat(tables).with_columns(ratio=pl.when(pl.col("others") > 0).then(pl.col("ratio")))
    if stats.folds > 1:
        return table
    return table.with_columns(pl.lit(None, dtype=EXPERTS[name]).alias(name) for name in ("lowest", "highest", "apart"))
