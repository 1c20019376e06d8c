"""Models that something else has hold of: adapters, and weights that are not where they run."""

from __future__ import annotations

import pytest
import torch

from brute import assert_near, lively, logits_of, some_texts, tokenizer_of
from lape.edit import Off, edited
from lape.neurons import NeuronSet
from lape.recording import record
from lape.sites import find
from lape.texts import Documents
from zoo.table import KINDS
from zoo.written import build

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = torch.randint(40, 300, (2, 9), generator=torch.Generator().manual_seed(1))
TEXTS = {"en": Documents(some_texts(6))}


def with_adapters(model, *targets):
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(model, LoraConfig(r=4, target_modules=list(targets), lora_dropout=0.1)).eval()
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.1)
    return wrapped


def third(space):
    return NeuronSet(space, torch.arange(0, len(space), 3))


@pytest.mark.parametrize("kind", ["llama", "phi3", "gpt_neox", "lfm2"])
def test_a_model_with_adapters_is_its_merged_self(kind):
    targets = {
        "llama": ("gate_proj", "up_proj", "down_proj", "q_proj"),
        "phi3": ("gate_up_proj", "down_proj"),
        "gpt_neox": ("dense_h_to_4h", "dense_4h_to_h"),
        "lfm2": ("w1", "w2", "w3"),
    }[kind]
    wrapped = with_adapters(lively(kind, torch.float32), *targets)
    counts = record(wrapped, tokenizer_of(), TEXTS)["en"]
    with edited(wrapped, Off(third(find(wrapped).space))):
        off = logits_of(wrapped, IDS)
    assert not torch.equal(off, logits_of(wrapped, IDS))
    merged = wrapped.merge_and_unload()
    expected = record(merged, tokenizer_of(), TEXTS)["en"]
    assert find(merged).space == find(wrapped).space
    assert float((counts.fires - expected.fires).abs().sum() / expected.fires.sum()) < 1e-3
    assert_near(counts.sums("sum"), expected.sums("sum"), 1e-4)
    with edited(merged, Off(third(find(merged).space))):
        assert_near(off, logits_of(merged, IDS), 1e-4)


def offloaded(model, tmp_path, where):
    """The middle block's weights away from where they are used."""
    from accelerate import cpu_offload, disk_offload

    block = model.model.layers[1]
    if where == "cpu":
        cpu_offload(block, execution_device=torch.device("cpu"))
    else:
        disk_offload(block, str(tmp_path / "weights"), execution_device=torch.device("cpu"))
    return model


@pytest.mark.parametrize("where", ["cpu", "disk"])
@pytest.mark.parametrize("name", ["llama", "qwen3_moe"])
def test_weights_that_are_brought_when_they_are_used(name, where, tmp_path):
    plain, away = (build(name, KINDS[name]) for _ in range(2))
    offloaded(away, tmp_path, where)
    assert find(away).space == find(plain).space
    chosen = third(find(plain).space)
    with edited(plain, Off(chosen)):
        expected = logits_of(plain, IDS)
    with edited(away, Off(chosen)):
        assert_near(logits_of(away, IDS), expected)
    assert_near(logits_of(away, IDS), logits_of(plain, IDS))
