"""Which experts of a mixture a language's tokens go to: routing itself is a result."""

from __future__ import annotations

import polars as pl
import torch

from lape.errors import OptionError
from lape.values.stats import ActivationStats

EXPERTS = {
    "language": pl.String,
    **dict.fromkeys(("layer", "expert", "routed"), pl.Int64),
    **dict.fromkeys(("share", "lowest", "highest", "others", "ratio"), pl.Float64),
    "apart": pl.Boolean,
}
"""Columns of `affinity`."""


def affinity(stats: ActivationStats) -> pl.DataFrame:
    """How much each expert is used by each language (ours).

    One row per language and routed expert: `routed`, the counted tokens that were sent to it; `share` of all counted tokens (0 to
    1; with k experts per token the shares of a layer add up to k); `lowest` and `highest` of that share over the folds of the text
    (null where there is one fold): with 8 folds there are too few units for an interval; `others`, the mean share over the other
    languages; `ratio`, share / others (null where that is 0); `apart`, whether the folds' range lies wholly above or below the
    range of every other language.

    Raises OptionError for a model without routed experts, and for a single language, which has no others.

    Example:
        >>> from lape.experiments.routing.run import affinity
        >>> affinity(stats)
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
    used = tokens > 0  # a short text leaves folds empty
    low = by_fold.where(used[:, :, None], torch.inf).amin(1)
    high = by_fold.where(used[:, :, None], -torch.inf).amax(1)
    share = routed.sum(1) / tokens.sum(1).clamp_min(1)[:, None]
    rows = []
    for k, language in enumerate(stats.languages):
        rest = torch.arange(len(stats.languages)) != k
        others = share[rest].mean(0)
        apart = (low[k] > high[rest].amax(0)) | (high[k] < low[rest].amin(0))
        several = stats.folds > 1
        for place, one in enumerate(places):
            stretch = stats.space.stretches[one]
            rows.append(
                {
                    "language": language,
                    "layer": stretch.layer,
                    "expert": stretch.expert,
                    "routed": int(routed[k, :, place].sum()),
                    "share": float(share[k, place]),
                    "lowest": float(low[k, place]) if several else None,
                    "highest": float(high[k, place]) if several else None,
                    "others": float(others[place]),
                    "ratio": float(share[k, place] / others[place]) if others[place] > 0 else None,
                    "apart": bool(apart[place]) if several else None,
                }
            )
    return pl.DataFrame(rows, schema=EXPERTS)
