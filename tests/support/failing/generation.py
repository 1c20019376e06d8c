"""Control neurons cost as many good answers as the language's own, and its own cost the other languages as many as itself."""

from __future__ import annotations

import numpy as np
import polars as pl

from lape.experiments.generation.run import ANSWERS
from lape.experiments.generation.table import drops

LANGUAGES = ("en", "fr", "zh")


def _alike():
    random, rows = np.random.default_rng(0), []
    pairs = [(off, language) for off in LANGUAGES for language in LANGUAGES]
    cells = [("none", language, False, 0, 0.9) for language in LANGUAGES]
    cells += [(off, language, False, 0, 0.4) for off, language in pairs]
    cells += [(off, language, True, draw, 0.4) for off, language in pairs for draw in range(3)]
    for off, language, control, draw, level in cells:
        of = {"off": off, "language": language, "control": control, "draw": draw, "in_language": True, "fluent": True}
        for question, good in enumerate(random.random(60) < level):
            rows.append({**of, "question": question, "on_topic": bool(good), "good": bool(good)})
    return {"drops": drops(pl.DataFrame(rows, schema=ANSWERS), resamples=300)}, ["fr", "zh"]


FAILING = {"good answers lost, above control neurons": _alike, "good answers lost in other languages": _alike}
