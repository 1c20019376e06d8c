"""Neurons whose probabilities are drawn anew in every fold: what one half finds, the other does not."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from lape.detect.lape import lape
from lape.experiments.amount.run import amount
from lape.values.space import NeuronSpace
from lape.values.stats import ActivationStats, LanguageStats

SPACE = NeuronSpace.dense(2, 150)
FIND = partial(lape, rate=0.2, filter=0.5, bar=0.5)


def noisy(seed: int, *, lasting: bool) -> ActivationStats:
    """Counts of 8 folds of 500 tokens; `lasting`: the probabilities of a neuron are those of all folds."""
    random = np.random.default_rng(seed)
    by_language = {}
    for language in ("en", "fr", "zh"):
        chance = random.beta(0.5, 2, (1 if lasting else 8, len(SPACE)))
        fires = random.binomial(500, np.broadcast_to(chance, (8, len(SPACE))))
        tokens = torch.full((8,), 500)
        routed = tokens[:, None].expand(8, len(list(SPACE))).contiguous()
        by_language[language] = LanguageStats({"tokens": tokens, "routed": routed, "fires": torch.tensor(fires)})
    return ActivationStats(SPACE, by_language, {})


def _amount():
    return {"amount": amount(noisy(0, lasting=False), FIND)}, ["fr", "zh"]


FAILING = {"enough text": _amount}
