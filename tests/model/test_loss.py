"""The loss of a line is that of its tokens' log-probabilities, each document read alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModel

from lape.data.corpus import TextOptions, prepare
from lape.data.texts import Documents
from lape.errors import LapeError, ModelError
from lape.model import loss as nll
from lape.model.loss import Head, find_head, line_loss
from support.brute import KINDS, hooks_on, lively, model_of, some_texts, tokenizer_of
from support.tiny import CONFIGS

CLOSE = {"rtol": 2e-6, "atol": 2e-5}
SCALED = {"granite": {"logits_scaling": 6.0}, "cohere": {"logit_scale": 0.0625}}


def documents(count=9, lines=3):
    texts = some_texts(count * lines, 5, (1, 6))
    return ["\n".join(texts[at : at + lines]) for at in range(0, len(texts), lines)]


def measured(model, texts, tokenizer=None, **options):
    options = TextOptions(**{"row_tokens": 128, "batch_tokens": 256, **options})
    corpus = prepare("en", Documents(texts), tokenizer or tokenizer_of(), options, lines=True)
    return line_loss(model, find_head(model), corpus, options)


def by_hand(model, texts, bos=True):
    """(lines,) nats and scored tokens, from the full logits of one document at a time."""
    nats, tokens = [], []
    for text in texts:
        encoded = tokenizer_of(False)(text, add_special_tokens=False, return_offsets_mapping=True)
        line = [text[:start].count("\n") for start, _ in encoded["offset_mapping"]]
        ids = torch.tensor([[1] * bos + encoded["input_ids"]])
        with torch.no_grad():
            logs = model(input_ids=ids, use_cache=False).logits[0].double().log_softmax(-1)
        first = len(nats)
        nats += [0.0] * (max(line) + 1)
        tokens += [0] * (max(line) + 1)
        for position in range(1, ids.shape[1]):
            target = int(ids[0, position])
            if target > 2:
                at = first + line[position - bos]
                nats[at] -= float(logs[position - 1, target])
                tokens[at] += 1
    return np.array(nats), np.array(tokens)


def assert_is_by_hand(model, texts, bos=True, close=CLOSE, **options):
    loss = measured(model, texts, tokenizer_of(bos), **options)
    nats, tokens = by_hand(model, texts, bos)
    np.testing.assert_array_equal(loss.tokens, tokens)
    np.testing.assert_allclose(loss.nll, nats, **close)


@pytest.mark.parametrize("bos", [True, False], ids=["bos", "no bos"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_line_s_loss_is_that_of_the_full_logits(kind, bos):
    assert_is_by_hand(model_of(kind), documents(), bos)


@pytest.mark.parametrize("options", [{"one_per_row": True}, {"batch_tokens": 1}, {"row_tokens": 64}])
@pytest.mark.parametrize("bos", [True, False], ids=["bos", "no bos"])
def test_how_documents_share_rows_changes_no_loss(bos, options):
    assert_is_by_hand(model_of("llama"), documents(), bos, **options)


@pytest.mark.parametrize(("rows", "words"), [(1, 1), (7, 13), (5, 299), (4, 300), (1000, 1000)])
def test_the_vocabulary_s_slices_change_no_loss(monkeypatch, rows, words):
    monkeypatch.setattr(nll, "_ROWS", rows)
    monkeypatch.setattr(nll, "_WORDS", words)
    assert_is_by_hand(model_of("phi"), documents(3))  # its head has a bias


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 40), st.floats(-300, 300), st.integers(0, 99))
def test_the_loss_of_any_logits_is_finite_and_exact(rows, words, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, 3, generator=generator, dtype=torch.float64) * scale
    linear = nn.Linear(3, words, dtype=torch.float64)
    targets = torch.randint(0, words, (rows,), generator=generator)
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(nll, "_ROWS", 4)
        patch.setattr(nll, "_WORDS", 7)
        loss = Head(linear, lambda x: x, "plain").nll(hidden, targets)
        expected = nn.functional.cross_entropy(linear(hidden), targets, reduction="none")
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6 * (1 + abs(scale)))


def test_no_text_has_no_loss():
    assert find_head(model_of("llama")).nll(torch.empty(0, 32, dtype=torch.float64), torch.empty(0).long()).shape == (
        0,
    )


# --- what follows the head ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_head_of_every_architecture_is_found_in_every_precision(kind, dtype):
    what = find_head(lively(kind, dtype)).what
    assert what.startswith("soft-capped at 30" if kind == "gemma2" else "plain")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_soft_cap_is_applied_however_small_the_logits(dtype):
    model = lively("gemma2", dtype)
    with torch.no_grad():
        model.lm_head.weight.mul_(0.05)
    assert find_head(model).what.startswith("soft-capped")


def test_losses_are_soft_capped_where_the_model_s_logits_are():
    assert_is_by_hand(lively("gemma2", final_logit_softcapping=2.0), documents(3))


@pytest.mark.parametrize("kind", SCALED)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_losses_are_scaled_where_the_model_s_logits_are(monkeypatch, kind, dtype):
    monkeypatch.setitem(CONFIGS, kind, SCALED[kind])
    assert_is_by_hand(lively(kind, dtype), documents(3), close={"rtol": 1e-5, "atol": 1e-4})


@pytest.mark.parametrize("kind", SCALED)
def test_a_scaled_head_is_found_in_bfloat16(monkeypatch, kind):
    monkeypatch.setitem(CONFIGS, kind, SCALED[kind])
    assert find_head(lively(kind, torch.bfloat16)).what.startswith("scaled")


def test_a_head_whose_output_is_changed_otherwise_is_refused():
    model = lively("llama")
    model.register_forward_hook(lambda _m, _i, out: setattr(out, "logits", out.logits.square()))
    with pytest.raises(ModelError, match="soft-capped or scaled"):
        find_head(model)


def test_a_model_without_a_head_is_refused_with_what_to_load():
    with pytest.raises(ModelError, match="causal language model"):
        find_head(AutoModel.from_config(model_of("llama").config))


# --- what is scored ---


@pytest.mark.parametrize(("bos", "lost"), [(True, 0), (False, 1)])
def test_a_row_s_first_token_is_scored_only_behind_bos(bos, lost):
    text = " ".join(some_texts(10))
    ids = tokenizer_of()(text, add_special_tokens=False)["input_ids"]
    rows = -(-len(ids) // (16 - bos))
    loss = measured(model_of("llama"), [text], tokenizer_of(bos), row_tokens=16)
    assert loss.tokens.sum() == len(ids) - lost * rows


def test_each_part_of_a_long_document_is_scored_as_if_alone():
    text = " ".join(some_texts(10))
    ids = tokenizer_of()(text, add_special_tokens=False)["input_ids"]
    expected = 0.0
    for at in range(0, len(ids), 15):
        row = torch.tensor([[1, *ids[at : at + 15]]])
        with torch.no_grad():
            logs = model_of("llama")(input_ids=row, use_cache=False).logits[0].log_softmax(-1)
        expected -= float(logs[:-1].gather(1, row[0, 1:, None]).sum())
    loss = measured(model_of("llama"), [text], row_tokens=16)
    np.testing.assert_allclose(loss.nll.sum(), expected, rtol=1e-6)


def test_special_tokens_that_a_text_spells_out_are_read_but_not_scored():
    assert_is_by_hand(model_of("llama"), ["the cat</s> sat\n<pad>on<s> the mat", "le chat"])


def test_empty_lines_have_no_number_of_their_own():
    texts = ["the cat\n\n\nsat on\n", "\nle chat"]
    loss = measured(model_of("llama"), texts)
    assert len(loss.nll) == 3
    plain = sum(len(tokenizer_of()(text, add_special_tokens=False)["input_ids"]) for text in texts)
    assert loss.tokens.sum() == plain


def test_a_corpus_without_its_lines_is_refused_with_how_to_prepare_it():
    options = TextOptions()
    corpus = prepare("en", Documents(["the cat"]), tokenizer_of(), options)
    with pytest.raises(LapeError, match="lines=True"):
        line_loss(model_of("llama"), find_head(model_of("llama")), corpus, options)


def test_measuring_leaves_no_hook_and_no_change_behind():
    model = model_of("llama")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measured(model, documents(3))
    assert hooks_on(model) == 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_dropout_never_enters_a_loss():
    model = lively("gpt2", resid_pdrop=0.5, embd_pdrop=0.5)
    expected = measured(model.eval(), documents(3))
    np.testing.assert_array_equal(measured(model.train(), documents(3)).nll, expected.nll)


def test_a_compiled_model_s_loss_is_the_model_s():
    compiled = torch.compile(model_of("llama"), backend="eager")
    np.testing.assert_array_equal(measured(compiled, documents(3)).nll, measured(model_of("llama"), documents(3)).nll)
