"""Losses in which a set does what its claim denies: it hurts all languages alike, its control does as much, or the main language loses."""

from __future__ import annotations

import numpy as np
import polars as pl

from lape.measure.controlled import LINES, controlled, dissociated
from lape.measure.effects import Effects
from lape.measure.frontier import frontier

LANGUAGES = ("en", "fr", "zh")


def _table(own: float, elsewhere: float, drawn: float):
    """`controlled` and `dissociated` of 40 sentences of 20 tokens: what is added by a set to its language and to the others, and by its control to its own."""
    random, rows = np.random.default_rng(0), []
    for language in LANGUAGES:
        conditions = [("", "base", 0, 0.0, None)]
        for off in LANGUAGES:
            mine = off == language
            conditions.append((off, "own", 0, own if mine else elsewhere, None))
            conditions += [(off, "matched", draw, drawn if mine else 0.0, 1.0) for draw in range(5)]
        for off, kind, draw, more, ratio in conditions:
            noise = random.normal(0, 1, 40)
            rows += [(off, kind, draw, language, k, k, k, 20, 90, 60 + more + noise[k], ratio) for k in range(40)]
    lines = pl.DataFrame(rows, schema=LINES, orient="row")
    made = [of(lines, LANGUAGES, resamples=200) for of in (controlled, dissociated)]
    return dict(zip(("controlled", "dissociated"), made, strict=True)), ["fr", "zh"]


def _main():
    nats = np.full((3, 3, 40), 0.1) + 5.0 * np.eye(3)[:, :, None]
    table = frontier(
        Effects(LANGUAGES, np.ones((3, 40)), {("lape", 9): nats}, {("lape", 9): (9, 9, 9)}), ["fr"], 100, 0
    )
    return {"main": table.filter(language="en")}, ["fr", "zh"]


FAILING = {
    "own": lambda: _table(own=20.0, elsewhere=20.0, drawn=0.0),
    "own loss alone": lambda: _table(own=20.0, elsewhere=0.0, drawn=20.0),
    "two languages come apart": lambda: _table(own=20.0, elsewhere=20.0, drawn=0.0),
    "two languages come apart both ways": lambda: _table(own=20.0, elsewhere=20.0, drawn=0.0),
    "main language": _main,
}
