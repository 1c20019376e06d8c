"""All neurons in the middle of the model."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from lape.experiments import experiments
from lape.experiments.experiment import NoOptions
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.space import NeuronSpace

WIDTH, LAYERS = 100, 8


def _middle():
    space = NeuronSpace.dense(LAYERS, WIDTH)
    chosen = torch.arange(3 * WIDTH, 5 * WIDTH, 4)
    neurons = LanguageNeurons(space, {"fr": NeuronSet(space, chosen), "zh": NeuronSet(space, chosen + 1)})
    context = SimpleNamespace(neurons=neurons, options=SimpleNamespace(resamples=200, seed=0))
    return experiments()["layers"].run(context, NoOptions()), ["fr", "zh"]


FAILING = dict.fromkeys(("first layer", "bottom layers", "top layers"), _middle)
