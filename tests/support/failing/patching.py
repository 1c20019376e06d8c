"""Neurons that write nothing: whatever they are set to, no loss changes."""

from __future__ import annotations

import copy

import torch

from lape import record
from lape.data.texts import Documents
from lape.experiments.patching import patching
from lape.values.neurons import LanguageNeurons, NeuronSet
from support.brute import model_of, some_texts, tokenizer_of

CHOSEN = [3, 7, 20]


def _silent():
    model = copy.deepcopy(model_of("llama"))
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[:, CHOSEN] = 0
    texts = {language: Documents(some_texts(22, k, words=(4, 9))) for k, language in enumerate(("en", "fr"))}
    read = {"row_tokens": 64, "batch_tokens": 128}
    stats = record(model, tokenizer_of(), texts, **read)
    neurons = LanguageNeurons(stats.space, {"fr": NeuronSet(stats.space, torch.tensor(CHOSEN))})
    return patching(model, tokenizer_of(), neurons, stats, texts, draws=3, elsewhere=3, resamples=100, **read), ["fr"]


FAILING = {"own effect of mean ablation": _silent}
