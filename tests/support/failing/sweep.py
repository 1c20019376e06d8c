"""Larger sets do less."""

from __future__ import annotations

import numpy as np

from lape.measure.effects import Effects
from lape.measure.frontier import growth


def _shrinking():
    random, languages = np.random.default_rng(0), ("en", "fr", "zh")
    nats = {("lape", size): random.normal(10 - size / 10, 0.5, (3, 3, 30)) for size in (10, 50)}
    effects = Effects(languages, np.full((3, 30), 10.0), nats, {key: (key[1],) * 3 for key in nats})
    return {"sweep_growth": growth(effects, "lape", ["fr", "zh"], 200, 0)}, ["fr", "zh"]


FAILING = {"more neurons, more effect": _shrinking}
