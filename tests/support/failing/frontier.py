"""Methods of known curves: at equal own effect LAPE's sets cost the other languages more than others' where it should be less, and the other way round."""

from __future__ import annotations

from functools import partial

import numpy as np

from lape.experiments.frontier.table import advantages
from lape.measure.effects import Effects

LANGUAGES = ("en", "fr", "zh")
REFERENCE = ("published", 1)


def _case(better: bool, *others: str, table: str = "advantages"):
    """`better`: whether LAPE's sets disturb the others less than those of each other method."""
    nats = {}
    for method in ("lape", *others):
        share = 0.1 if better == (method == "lape") else 0.4
        for size, own in ((5, 1.0), (50, 12.0)):
            nats[method, size] = np.where(np.eye(3, dtype=bool), own, share * own)[:, :, None] * np.ones(30)
    nats[REFERENCE] = nats["lape", 50]
    measured = Effects(LANGUAGES, np.ones((3, 30)), nats, dict.fromkeys(nats, (9, 9, 9)))
    return {table: advantages(measured, "lape", others, ["fr", "zh"], reference=REFERENCE, resamples=100)}, ["fr", "zh"]


LARGEST = "difference:against=largest"
FAILING = {
    "LAPE above LAP": partial(_case, False, "lap"),
    "LAPE above LAVE": partial(_case, False, "lave"),
    "LAPE above variation": partial(_case, False, "variation"),
    "LAPE above attribution": partial(_case, False, "attribution"),
    "difference of means above LAPE": partial(_case, True, "difference"),
    "difference from the largest above LAPE": partial(_case, True, LARGEST),
    "difference from the largest above LAPE, worst other": partial(_case, True, LARGEST),
    "difference from the largest above LAPE, on other sentences": partial(
        _case, True, LARGEST, table="final_advantages"
    ),
    "what is written above LAPE": partial(_case, True, "difference:of=written,against=largest"),
    "d-prime above LAPE": partial(_case, True, "difference:of=d-prime,against=largest"),
    "difference of probabilities above LAPE": partial(_case, True, "probability"),
}
