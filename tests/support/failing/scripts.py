"""A model of random weights, in which no neuron is of a language: what its neurons cost in one writing says nothing of another."""

from __future__ import annotations

from functools import cache

import pytest

from lape.data import samples
from lape.data.rewriting import libraries_missing
from lape.data.texts import Documents
from lape.detect.lape import LapeOptions
from lape.experiments.scripts.run import scripts
from lape.recording.record import record
from support.brute import tokenizer_of
from support.tiny import tiny


@cache
def _random():
    if lacking := libraries_missing():
        pytest.skip(lacking)
    languages, model = ("en", "zh"), tiny("llama", seed=1)
    lines = {
        k: [line for text in samples.texts("all")[k].texts for line in text.split("\n") if line.strip()]
        for k in languages
    }
    recorded = {k: Documents(found[:40]) for k, found in lines.items()}
    stats = record(model, tokenizer_of(), recorded, row_tokens=64, document="line")
    table = scripts(
        model,
        tokenizer_of(),
        stats,
        {"zh": recorded["zh"]},
        {"zh": Documents(["\n".join(lines["zh"][40:65])])},
        kinds=("romanised", "converted"),
        apart=True,
        resamples=200,
        rule=LapeOptions(rate=0.4, filter=0.5, bar=0.5),
    )
    return {"scripts": table}, ["zh"]


FAILING = {"half of the damage in Latin letters": _random, "half of the damage in other characters": _random}
