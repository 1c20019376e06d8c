"""A change beside its interval over units of text, from what each line has of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lape.measure.bootstrap import Resamples, by_unit
from lape.model.loss import Loss


def resampled_ends(
    unit: NDArray[np.int64], amount: ArrayLike, size: ArrayLike, drawn: Resamples
) -> dict[str, float | None]:
    """`low` and `high` of Σ amount / Σ size, resampled over units; `unit`, `amount` and `size` are of each line."""
    ratio = drawn.ratio(by_unit(unit, amount, drawn.count), by_unit(unit, size, drawn.count))
    return dict(zip(("low", "high"), drawn.interval(ratio)[1:], strict=True))


def loss_change(name: str, unit: NDArray[np.int64], before: Loss, after: Loss, drawn: Resamples) -> dict[str, Any]:
    """`tokens` (scored), under a name the change of loss in nats per token, and its interval `low`, `high`."""
    change = after.nll - before.nll
    nats, tokens = (float(by_unit(unit, one, drawn.count).sum()) for one in (change, before.tokens))
    return {"tokens": int(tokens), name: nats / max(tokens, 1), **resampled_ends(unit, change, before.tokens, drawn)}
