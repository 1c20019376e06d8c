"""Sets whose damage is not what attribution says of them, nor what their entropy or recorded attribution says."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
import torch

from lape.experiments import experiments
from lape.experiments.claim import read
from lape.experiments.necessity.groups import own_subsets, sample, split
from lape.experiments.necessity.predictions import Readings, predictions
from lape.experiments.necessity.run import PREDICTORS, NecessityOptions, correlations
from lape.values.neurons import NeuronSet
from lape.values.space import NeuronSpace


def planted_readings(kind: str, seed: int = 0) -> Readings:
    """A language's sets whose damage is what attribution says of it (through a ceiling), something else, or what attribution says but not in other text."""
    random = np.random.default_rng(seed)
    space = NeuronSpace.of([(layer, None, 200) for layer in range(4)])
    generator = torch.Generator().manual_seed(seed)
    groups = sample(space, 40, 16, generator) + own_subsets(
        NeuronSet(space, torch.arange(150)), 40, (5, 20, 50), generator
    )
    sizes = np.array([len(group.neurons) for group in groups], float)
    units, tokens = 60, np.full(60, 30.0)
    size = sizes * random.gamma(3.0, 0.02, len(groups))
    size[:40] /= 20  # of random groups, small enough for no ceiling
    noise = random.normal(size=(len(groups), units)) * 0.3 * size[:, None]
    bent = size[:, None] + noise
    half = np.arange(units) % 2 == 0
    if kind == "explained":
        true = 1.5 * -np.expm1(-size / 1.5)
        damage = true[:, None] * (1 + 0.2 * random.normal(size=(1, units))) + noise / 10
        bent = bent / bent.mean(1, keepdims=True) * size[:, None]
    elif kind == "not explained":
        damage = random.permutation(size)[:, None] + noise
    else:  # only on the text itself
        damage = bent.copy()
        damage[:, half] += 3 * size.mean() * random.normal(size=(len(groups), 1))
        bent[:, half] = damage[:, half]
    fitted = np.array(split(groups, 10, generator))
    terms = {"first": tokens * bent, "second": np.zeros_like(bent), "bent": tokens * bent, "along": tokens * bent}
    terms["mended"] = terms["along"]
    told = {"counted": sizes, "energy": sizes**2}
    return Readings("fr", groups, fitted, half, tokens, tokens * damage, {"same": terms, "unseen": terms}, {}, told)


def planted_correlations(told: bool, seed: int = 0) -> pl.DataFrame:
    """Of sets whose damage grows, or falls, with all that the statistics say."""
    random = np.random.default_rng(seed)
    damage = random.gamma(2.0, 0.1, 120)
    known = (1 if told else -1) * damage + 0.02 * random.normal(size=(4, 120))
    frame = pl.DataFrame({"language": "fr", "among": ["sample"] * 60 + ["own"] * 60, "damage": damage})
    frame = frame.with_columns(pl.Series("size", [16] * 60 + [5, 20, 50] * 20, pl.Int32))
    frame = frame.with_columns(pl.Series(name, one) for name, one in zip(PREDICTORS, known, strict=True))
    return correlations(frame, NecessityOptions(resamples=400))


@cache
def tables(kind: str) -> dict[str, pl.DataFrame]:
    """`explained`, or `not explained`."""
    return {
        "damage_predictions": predictions(planted_readings(kind), 400, 0),
        "damage_correlations": planted_correlations(kind == "explained"),
    }


CLAIMS = {claim.name: claim for claim in read(experiments()["necessity"].claims)}
FAILING = dict.fromkeys(CLAIMS, lambda: (tables("not explained"), ["fr"]))
