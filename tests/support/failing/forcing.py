"""Random neurons, and prompts, give as many good answers as language neurons do, or more."""

from __future__ import annotations

import numpy as np
import polars as pl

from lape.experiments.forcing.table import differences
from lape.measure.answers import ANSWERS

PAIRS = (("en", "fr"), ("fr", "zh"), ("zh", "en"), ("fr", "en"))
LEVELS = {"neurons": 0.5, "random": 0.5, "prompt": 0.8}


def _as_many():
    random, rows = np.random.default_rng(0), []
    cells = [("ceiling", (target, target), 0.9) for target in ("en", "fr", "zh")]
    cells += [(family, pair, level) for family, level in LEVELS.items() for pair in PAIRS]
    for family, (source, target), level in cells:
        of = {"split": "report", "family": family, "setting": family, "source": source, "target": target}
        for question, good in enumerate(random.random(60) < level):
            rows.append({**of, "question": question, "in_language": True, "good": bool(good)})
    return {"forcing_differences": differences(pl.DataFrame(rows, schema=ANSWERS), 300, 0)}, []


FAILING = {
    "good answers, steering above random neurons": _as_many,
    "good answers, steering above prompting": _as_many,
}
