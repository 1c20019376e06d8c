"""Chosen neurons that are any neurons: their entropies are no lower than those of stretches of one language,
whose neurons follow the topic."""

from __future__ import annotations

import torch

from lape.experiments.null.run import null_entropy
from lape.values.neurons import LanguageNeurons, NeuronSet
from support.failing.amount import SPACE, noisy


def _any():
    chosen = NeuronSet(SPACE, torch.arange(0, len(SPACE), 3))
    topics = {language: noisy(k, lasting=True) for k, language in enumerate(("fr", "zh"), start=5)}
    neurons = LanguageNeurons(SPACE, {"fr": chosen, "zh": chosen})
    return {"null": null_entropy(neurons, noisy(0, lasting=False), topics=topics)}, ["fr", "zh"]


FAILING = {"entropies below the null of topics": _any}
