"""The tokens that a neuron's output row promotes and suppresses, against the whole product sorted in Python."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

from lape.experiments.examples import words as module
from lape.experiments.examples.words import WORDS, down_columns, usable, words
from lape.model.find import find
from lape.model.loss import find_head
from lape.model.weights import down_norms
from lape.values.neurons import NeuronSet
from support.brute import MLPS, affine, lively, model_of, tokenizer_of
from support.tiny import LAYERS, tiny_tokenizer, word_tokenizer
from support.zoo.table import KINDS
from support.zoo.written import build

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS_HERE = ("llama", "gpt2", "phi3", "gemma2", "mixtral")


def made(kind):
    return build("mixtral", KINDS["mixtral"], torch.float64) if kind == "mixtral" else model_of(kind)


def columns_by_hand(model, kind):
    """(neurons, hidden) columns of all down projections."""
    if kind == "mixtral":
        stacks = [model.get_parameter(f"model.layers.{k}.mlp.experts.down_proj").detach() for k in range(LAYERS)]
        return torch.cat([expert.T for stack in stacks for expert in stack])
    return torch.cat([affine(model, MLPS[kind].down.format(k))[0].T for k in range(LAYERS)])


def chosen_of(model):
    space = find(model).space
    return NeuronSet(space, torch.arange(0, len(space), 7))


@pytest.mark.parametrize("kind", KINDS_HERE)
@pytest.mark.parametrize(("neurons", "entries"), [(1024, 8192), (3, 7)])
def test_words_are_the_ends_of_the_sorted_product(monkeypatch, kind, neurons, entries):
    monkeypatch.setattr(module, "_NEURONS", neurons)
    monkeypatch.setattr(module, "_ENTRIES", entries)
    model, tokenizer = made(kind), tokenizer_of()
    chosen = chosen_of(model)
    found = words(model, tokenizer, find_head(model), chosen)
    assert found.schema == WORDS
    assert list(found.schema) == ["flat", "kind", "rank", "token", "score"]
    assert len(found) == len(chosen) * 20
    columns = columns_by_hand(model, kind)
    rows = model.get_output_embeddings().weight.detach()
    allowed = [k for k in range(len(rows)) if 2 < k < len(tokenizer)]
    for j in chosen:
        scores = {k: float(columns[j] @ rows[k]) for k in allowed}
        ranked = sorted(allowed, key=lambda k: -scores[k])
        for name, expected in (("promotes", ranked[:10]), ("suppresses", ranked[::-1][:10])):
            part = found.filter((found["flat"] == j) & (found["kind"] == name))
            assert part["rank"].to_list() == list(range(10))
            assert part["score"].to_list() == pytest.approx([scores[k] for k in expected], rel=1e-5)
            names = [tokenizer.decode([k]) for k in expected]
            entries_ = tokenizer.convert_ids_to_tokens(expected)
            shown = [entry if "�" in name else name for name, entry in zip(names, entries_, strict=True)]
            assert part["token"].to_list() == shown


@pytest.mark.parametrize("kind", KINDS_HERE)
def test_columns_are_those_whose_norms_are_measured(kind):
    model = made(kind)
    flat = torch.arange(len(find(model).space))
    columns = down_columns(model, flat)
    torch.testing.assert_close(columns, columns_by_hand(model, kind))
    norms = torch.cat([down_norms(model, site) for site in find(model).sites])
    torch.testing.assert_close(columns.square().sum(1), norms)


def test_an_adapter_on_the_down_projection_is_part_of_the_column():
    model = get_peft_model(
        lively("llama"), LoraConfig(target_modules=["down_proj"], r=2, lora_alpha=4, init_lora_weights=False)
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora" in name:
                parameter.normal_()
    model = model.double().eval()
    down = model.base_model.model.model.layers[1].mlp.down_proj
    a, b = down.lora_A["default"].weight, down.lora_B["default"].weight
    expected = (down.base_layer.weight + 2 * b @ a).detach()[:, [3, 9]].T
    torch.testing.assert_close(down_columns(model, torch.tensor([44 + 3, 44 + 9])), expected)


def test_special_and_unused_tokens_are_left_out():
    tokens = [
        "<pad>",
        "<s>",
        "</s>",
        "<unk>",
        "cat",
        "<unused7>",
        "[unused12]",
        "<|reserved_special_token_3|>",
        "unused",
    ]
    tokenizer = word_tokenizer([*tokens, "<b>", "chat"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<extra>"]})
    assert usable(tokenizer, 100) == {4: "cat", 8: "unused", 9: "<b>", 10: "chat"}
    assert usable(tokenizer, 9) == {4: "cat", 8: "unused"}


def test_spaces_before_tokens_are_kept():
    tokenizer = tiny_tokenizer()
    number = tokenizer.convert_tokens_to_ids("Ġthe")
    assert module.token_text(tokenizer, number, "Ġthe") == " the"
    assert module.token_text(tokenizer, number, "▁the") == " the"
