"""The conditions in which a task is run: control neurons are matched and nobody's, and edits act where and how they are asked to."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

from lape.edit.edit import Scale, edited
from lape.edit.steer import PUBLISHED
from lape.measure.conditions import conditions, energy
from lape.measure.generation import GenerationOptions, generate
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.space import NeuronSpace
from support.brute import lively, logits_of, some_texts, tokenizer_of
from support.made import made_stats
from support.tiny import LAYERS

SPACE = NeuronSpace.dense(LAYERS, 44)
STATS = made_stats(languages=("en", "fr", "sw"), space=SPACE, sums=True, written=True, of=None)
SETS = {"en": range(12), "fr": [*range(8, 16), *range(50, 58), *range(90, 93)], "sw": range(60, 64), "de": range(0)}


def neurons_of(sets=SETS, space=SPACE):
    return LanguageNeurons(space, {k: NeuronSet(space, torch.tensor(list(v))) for k, v in sets.items()})


@cache
def model_of():
    return lively("llama", torch.float32)


def test_control_neurons_match_layers_are_nobody_s_and_follow_the_seed():
    neurons, model = neurons_of(), model_of()
    kinds, notes = conditions(model, neurons, STATS, "fr", steer=None, draws=2, seed=0)
    assert [(one.name, one.draw) for one in kinds] == [("off", 0), ("control", 0), ("control", 1)]
    assert notes == []
    own, first, second = (one.edits[0].neurons for one in kinds)
    assert own == neurons["fr"]
    assert first != second
    for control in (first, second):
        assert {k: len(v) for k, v in control.by_layer().items()} == {k: len(v) for k, v in own.by_layer().items()}
        assert len(control & neurons.union) == 0
    again, _ = conditions(model, neurons, STATS, "fr", steer=None, draws=1, seed=0)
    other, _ = conditions(model, neurons, STATS, "fr", steer=None, draws=1, seed=1)
    assert again[1].edits[0].neurons == first
    assert other[1].edits[0].neurons != first


def test_control_neurons_are_matched_by_what_they_write_in_the_language():
    model, by = model_of(), energy(model_of(), STATS, "fr")
    for layer in range(LAYERS):
        columns = model.model.layers[layer].mlp.down_proj.weight.detach().double()
        for index in (0, 7, 43):
            flat = 44 * layer + index
            mean = STATS["fr"].sums("written_square")[flat] / STATS["fr"].tokens.sum()
            assert float(by[flat]) == pytest.approx(float(mean * columns[:, index].square().sum()), rel=1e-6)


def test_a_set_too_large_for_a_control_is_switched_off_without_one():
    kinds, notes = conditions(model_of(), neurons_of({"fr": range(40)}), STATS, "fr", steer=None, draws=1, seed=0)
    assert [one.name for one in kinds] == ["off"]
    assert "fr has no control" in notes[0]


def test_a_language_without_neurons_has_no_condition():
    kinds, notes = conditions(model_of(), neurons_of(), STATS, "de", steer=None, draws=1, seed=0)
    assert kinds == []
    assert "de has no neurons" in notes[0]


def test_how_it_is_steered_is_an_option():
    model, own = model_of(), neurons_of()["fr"]
    how = replace(PUBLISHED, how="scale", strength=3.0, tokens="generated", first=2)
    kinds, _ = conditions(model, neurons_of(), STATS, "fr", steer=how, draws=0, seed=0)
    assert [kind.name for kind in kinds] == ["off", "steered"]
    options, prompts = GenerationOptions(new_tokens=6, repetition_penalty=1.0), some_texts(2)
    with kinds[1].on(model):
        found = generate(model, tokenizer_of(), prompts, options)
    with edited(model, Scale(own, 3.0), tokens="generated", first=2):
        assert found == generate(model, tokenizer_of(), prompts, options)
    assert found != generate(model, tokenizer_of(), prompts, options)


def test_the_model_is_afterwards_as_it_was():
    ids = torch.tensor([[1, 20, 30, 40]])
    before = logits_of(model_of(), ids)
    kinds, _ = conditions(model_of(), neurons_of(), STATS, "fr", steer=PUBLISHED, draws=1, seed=0)
    for kind in kinds:
        with kind.on(model_of()):
            assert not logits_of(model_of(), ids).equal(before)
    assert logits_of(model_of(), ids).equal(before)
