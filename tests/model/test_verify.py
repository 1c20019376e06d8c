"""A model that is not what its sites say is refused: every way in which a site could be silently wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from lape.errors import ModelError
from lape.model.experts import Runner
from lape.model.find import find
from lape.model.verify import prove
from support.brute import lively
from support.zoo.table import KINDS
from support.zoo.written import build

pytestmark = pytest.mark.usefixtures("one_thread")


def mlp_of(model, layer=1):
    return model.model.layers[layer].mlp


def rewrite(mlp, forward):
    """Give one MLP another way from its input to its output."""
    mlp.forward = lambda x: mlp.down_proj(forward(mlp, x))


MUTATIONS = {
    "activation after the product": lambda m, x: m.act_fn(m.gate_proj(x) * m.up_proj(x)),
    "activation called twice": lambda m, x: (m.act_fn(m.gate_proj(x)), m.act_fn(m.gate_proj(x)))[0] * m.up_proj(x),
    "activation of the activation": lambda m, x: m.act_fn(m.act_fn(m.gate_proj(x))) * m.up_proj(x),
    "activation bypassed by a function": lambda m, x: F.silu(m.gate_proj(x)) * m.up_proj(x),
    "activation run but not used": lambda m, x: m.act_fn(m.gate_proj(x)) * 0 + F.silu(m.gate_proj(x)) * m.up_proj(x),
    "gate and up swapped": lambda m, x: m.gate_proj(x) * m.act_fn(m.up_proj(x)),
    "only half of it arrives": lambda m, x: m.act_fn(m.gate_proj(x)) * m.up_proj(x) + m.gate_proj(x),
    "neurons in another order": lambda m, x: (m.act_fn(m.gate_proj(x)) * m.up_proj(x)).roll(1, -1),
    "of another token": lambda m, x: m.act_fn(m.gate_proj(x)).roll(1, 1) * m.up_proj(x),
}
OTHER_MLPS = {
    "activation bypassed by a function",
    "gate and up swapped",
    "activation called twice",
    "activation of the activation",
}
"""These are MLPs too, with sites of their own."""


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_sites_of_an_mlp_that_was_changed_are_refused(mutation):
    model = lively("llama")
    sites = find(model).sites
    prove(model, sites)
    rewrite(mlp_of(model), MUTATIONS[mutation])
    with pytest.raises(ModelError):
        prove(model, sites)


@pytest.mark.parametrize(
    "mutation",
    sorted(MUTATIONS.keys() - OTHER_MLPS),
)
def test_such_a_model_is_not_found_to_be_in_order(mutation):
    model = lively("llama")
    rewrite(mlp_of(model), MUTATIONS[mutation])
    with pytest.raises(ModelError):
        find(model)


def test_an_mlp_of_one_layer_that_is_not_understood_is_not_left_out():
    model = lively("llama")
    rewrite(mlp_of(model), lambda m, x: torch.sinh(m.gate_proj(x)) * torch.sigmoid(m.up_proj(x)))
    with pytest.raises(ModelError, match=r"Layer 1.*layers.1.mlp \(LlamaMLP\).*sites="):
        find(model)


def test_swapped_branches_are_refused():
    model = lively("llama")
    sites = [replace(site, gate=site.up, up=site.gate) for site in find(model).sites]
    with pytest.raises(ModelError, match="recomputation"):
        prove(model, sites)


def experts():
    return build("mixtral", KINDS["mixtral"])


def test_an_expert_whose_rows_are_permuted_is_refused(monkeypatch):
    model = experts()
    sites = find(model).sites
    rows = Runner._rows

    def permuted(self, hidden, given):
        for expert, place, token, weight in rows(self, hidden, given):
            yield expert, place, token.roll(1) if expert == 1 else token, weight

    monkeypatch.setattr(Runner, "_rows", permuted)
    with pytest.raises(ModelError, match="expert 1: its activations do not follow"):
        prove(model, sites)


def test_rows_of_another_expert_are_refused(monkeypatch):
    model = experts()
    sites = find(model).sites
    rows = Runner._rows

    def swapped(self, hidden, given):
        for expert, *rest in rows(self, hidden, given):
            yield (3 - expert, *rest)

    monkeypatch.setattr(Runner, "_rows", swapped)
    with pytest.raises(ModelError):
        prove(model, sites)


@pytest.mark.parametrize("changes", [{"halves": "interleaved"}, {"neutral": 0.5}], ids=lambda c: next(iter(c)))
def test_another_layout_is_refused(changes):
    model = experts()
    sites = [replace(site, layout=replace(site.layout, **changes)) for site in find(model).sites]
    with pytest.raises(ModelError):
        prove(model, sites)


def test_experts_that_bypass_their_activation_are_refused():
    model = experts()
    sites = find(model).sites
    module = model.model.layers[1].mlp.experts
    module.act_fn = torch.nn.ReLU()
    module._apply_gate = lambda z: F.silu(z.chunk(2, -1)[0]) * torch.tanh(z.chunk(2, -1)[1])
    with pytest.raises(ModelError):
        prove(model, sites)
