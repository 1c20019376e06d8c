"""Edits on models that inductor has compiled: they take effect, and leave no trace. Compiling takes seconds, so only a few kinds."""

from __future__ import annotations

import pytest
import torch

from lape.edit.edit import edited
from lape.model.find import find
from support.brute import assert_near
from support.conformance import IDS, some_edits
from support.zoo.table import KINDS
from support.zoo.written import build, logits_of


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("name", ["llama", "phi3", "mixtral"], ids=["dense", "fused", "experts"])
def test_an_edit_of_a_model_compiled_by_inductor(name):
    model = build(name, KINDS[name], torch.float32)
    if name == "mixtral":
        model.set_experts_implementation("batched_mm")
    edits = some_edits(find(model).space)
    with edited(model, edits):
        expected = logits_of(model, IDS)
    compiled = torch.compile(model)
    before = logits_of(compiled, IDS)
    assert_near(before, logits_of(model, IDS), 1e-4)
    with edited(compiled, edits):
        assert_near(logits_of(compiled, IDS), expected, 1e-4)
    assert torch.equal(logits_of(compiled, IDS), before)
