"""Sites that were proven are proven again where what runs there was changed since, and only there."""

from __future__ import annotations

import gc
from weakref import ref

import pytest
import torch
from torch import nn

from lape.edit.edit import Off, edited
from lape.errors import LapeWarning, MismatchError, ModelError
from lape.model import find as module
from lape.model.find import find
from lape.values.neurons import NeuronSet
from support.brute import lively
from support.by_hand import chosen


class Nothing(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) * 0


def wrapped(layer):
    layer.mlp = Nothing(layer.mlp)


def replaced(layer):
    layer.mlp.forward = lambda x: x


def hooked(layer):
    layer.mlp.register_forward_hook(lambda _module, _args, out: out * 0)


def of_another_class(layer):
    layer.mlp.__class__ = type("Other", (type(layer.mlp),), {"forward": lambda _self, x: x})


def written_anew(layer):
    layer.mlp.down_proj.forward = lambda x: x[..., :32] * 0


@pytest.mark.parametrize("change", [wrapped, replaced, hooked, of_another_class, written_anew])
def test_neurons_whose_mlp_was_changed_after_they_were_found_are_refused(change):
    model = lively("llama")
    space = find(model).space
    layer = NeuronSet(space, torch.arange(len(space) // 3, 2 * len(space) // 3))
    change(model.model.layers[1])
    for _ in range(2):
        with pytest.raises((ModelError, MismatchError)), edited(model, Off(layer)):
            pass


def test_neurons_that_are_gone_are_said_to_be():
    model = lively("llama")
    find(model)
    replaced(model.model.layers[1])
    with pytest.warns(LapeWarning, match="88 neurons .* had 132"):
        assert len(find(model).space) == 88


def test_neurons_that_are_back_are_found_again():
    model = lively("llama")
    replaced(model.model.layers[1])
    assert len(find(model).space) == 88
    del model.model.layers[1].mlp.forward
    with pytest.warns(LapeWarning, match="132 neurons .* had 88"):
        assert len(find(model).space) == 132


@pytest.fixture
def proofs(monkeypatch):
    counted = []
    prove = module.prove
    monkeypatch.setattr(module, "prove", lambda *given: counted.append(1) or prove(*given))
    return counted


def test_a_change_that_leaves_the_neurons_is_proven_once(proofs):
    model = lively("llama")
    find(model)
    model.model.layers[0].mlp.act_fn = nn.ReLU()
    for _ in range(3):
        find(model)
    assert len(proofs) == 2


def test_what_does_not_concern_the_mlps_is_not_proven_again(proofs):
    model = lively("llama")
    find(model)
    model.model.layers[0].register_forward_hook(lambda *_: None)
    model.lm_head.register_forward_hook(lambda *_: None)
    with edited(model, Off(chosen("llama"))):
        find(model)
    find(model)
    assert len(proofs) == 1


def test_a_change_inside_of_an_edit_is_not_judged_there():
    model = lively("llama")
    with edited(model, Off(chosen("llama"))):
        model.model.layers[0].mlp.act_fn = nn.ReLU()
        with pytest.raises(ModelError, match="MLPs were changed"):
            find(model)


def test_a_model_that_was_found_is_not_kept_alive():
    model = lively("llama")
    model.model.layers[0].mlp.forward = type(model.model.layers[0].mlp).forward.__get__(model.model.layers[0].mlp)
    find(model)
    with edited(model, Off(chosen("llama"))):
        pass
    gone = ref(model)
    del model
    gc.collect()
    assert gone() is None
