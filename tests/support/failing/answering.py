"""Steered, or with the set off and not its control, the model answers as it does unedited in one language, and worse or better in the other."""

from __future__ import annotations

import numpy as np
import polars as pl

from lape.experiments.answering.run import ANSWERS, AnsweringOptions, table_of


def _no_better():
    random, rows = np.random.default_rng(0), []
    for language, worse in (("fr", 0.0), ("zh", 0.3)):
        base = random.random(60)
        steered = np.clip(base + random.normal(-worse, 0.2, 60), 0, 1)
        for condition, scores in (("none", base), ("steered", steered)):
            of = {"language": language, "condition": condition, "draw": 0}
            rows += [
                {**of, "number": k, "passage": k, "exact": 0.0, "f1": f1, "rouge_l": f1} for k, f1 in enumerate(scores)
            ]
    return {"answering": table_of(pl.DataFrame(rows, schema=ANSWERS), AnsweringOptions(resamples=300))}, ["fr", "zh"]


def _no_worse():
    random, rows = np.random.default_rng(0), []
    for language, better in (("fr", 0.0), ("zh", 0.3)):
        control = random.random(60)
        off = np.clip(control + random.normal(better, 0.2, 60), 0, 1)
        controls = [("control", draw, control) for draw in range(3)]
        for condition, draw, scores in (("none", 0, control), ("off", 0, off), *controls):
            of = {"language": language, "condition": condition, "draw": draw}
            rows += [
                {**of, "number": k, "passage": k, "exact": 0.0, "f1": f1, "rouge_l": f1} for k, f1 in enumerate(scores)
            ]
    return {"answering": table_of(pl.DataFrame(rows, schema=ANSWERS), AnsweringOptions(resamples=300))}, ["fr", "zh"]


FAILING = {
    "F1 of answers about passages, steered above unedited": _no_better,
    "F1 of answers about passages, below that with control neurons off": _no_worse,
}
