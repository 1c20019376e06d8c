"""Neurons that write nothing restore nothing, and larger doses that do less."""

from __future__ import annotations

import numpy as np
import torch

from lape import record
from lape.data.corpus import TextOptions
from lape.data.texts import Documents
from lape.experiments.sufficiency.run import keeping
from lape.measure.ablation import Ablations
from lape.measure.effects import Effects
from lape.measure.frontier import growth
from lape.values.neurons import LanguageNeurons, NeuronSet
from support.brute import some_texts, tokenizer_of, trained

CHOSEN = [3, 7, 20]


def _silent():
    lines = {language: some_texts(22, k, words=(4, 9)) for k, language in enumerate(("en", "fr"))}
    model = trained("llama", [*lines["en"], *lines["fr"]])
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[:, CHOSEN] = 0
    texts = {language: Documents(some) for language, some in lines.items()}
    read = {"row_tokens": 64, "batch_tokens": 128}
    stats = record(model, tokenizer_of(), texts, **read)
    neurons = LanguageNeurons(stats.space, {"fr": NeuronSet(stats.space, torch.tensor(CHOSEN))})
    work = Ablations(model, tokenizer_of(), texts, TextOptions(**read))
    work.base()
    table = keeping(work, neurons, stats.overall_mean(), draws=2, resamples=100)
    assert table.drop_nulls("restored")["restored"].abs().max() < 1e-6
    return {"keeping": table}, ["fr"]


def _falling():
    random, languages = np.random.default_rng(0), ("en", "fr", "zh")
    nats = {("set", dose): random.normal(10 - dose / 20, 0.5, (3, 3, 30)) for dose in (25, 50, 75, 100)}
    effects = Effects(languages, np.full((3, 30), 10.0), nats, dict.fromkeys(nats, (5,) * 3))
    return {"dose_growth": growth(effects, "set", ["fr", "zh"], 200, 0)}, ["fr", "zh"]


FAILING = {
    "enough, first layer": _silent,
    "enough, fullest layer": _silent,
    "the more is taken, the more is lost": _falling,
}
