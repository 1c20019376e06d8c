"""What the loss owes each neuron: against finite differences of the loss, and the sets chosen by it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from lape import Off, Scale, edited, record
from lape.data.corpus import TextOptions, prepare
from lape.data.texts import Documents
from lape.detect.attribution import attribution
from lape.model.attribution import _draw, _gradients, attribute
from lape.model.find import find
from lape.model.loss import Head, find_head, line_loss
from lape.values.neurons import NeuronSet
from lape.values.stats import merge
from support.made import DENSE, made_stats
from support.tiny import tiny, tiny_tokenizer

WORDS = ["the cat sat on the mat", "le chat dort sur le lit et le chien mange", "the dog ate"]
TEXT = Documents(WORDS)
OPTIONS = TextOptions(row_tokens=64, batch_tokens=48)
KINDS = ("llama", "gemma3_text", "phi3", "gpt2", "opt", "bloom", "falcon", "mpt", "lfm2")
LAW = settings(deadline=None, max_examples=30)


def corpus_of(text=TEXT, tokenizer=None):
    return prepare("fr", text, tokenizer or tiny_tokenizer(), OPTIONS, lines=True)


def total(model):
    """The loss in double precision, document by document, in nats."""
    loss = 0.0
    for text in WORDS:
        ids = torch.tensor([tiny_tokenizer()(text)["input_ids"]])
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[0]
        loss += float(functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="sum"))
    return loss


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_slope_of_the_loss_as_a_neuron_is_turned_down(kind):
    model, corpus = tiny(kind), corpus_of()
    owed, scored = attribute(model, find_head(model), corpus, OPTIONS, 10**6)
    assert scored == int(line_loss(model, find_head(model), corpus, OPTIONS).tokens.sum())
    space = find(model).space
    for flat in torch.randint(len(space), (6,), generator=torch.Generator().manual_seed(3)).tolist():
        one, step = NeuronSet(space, torch.tensor([flat])), 1e-3
        with edited(model, Scale(one, 1 - step)):
            less = total(model)
        with edited(model, Scale(one, 1 + step)):
            more = total(model)
        assert float(owed[flat]) == pytest.approx((less - more) / (2 * step), rel=5e-3, abs=2e-3)


def test_a_weak_neuron_owes_what_zeroing_it_costs():
    model, corpus = tiny("llama"), corpus_of()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.mul_(1e-3)
    owed, _ = attribute(model, find_head(model), corpus, OPTIONS, 10**6)
    space, base = find(model).space, total(model)
    flat = int(owed.abs().argmax())
    with edited(model, Off(NeuronSet(space, torch.tensor([flat])))):
        assert total(model) - base == pytest.approx(float(owed[flat]), rel=0.02)


def test_it_stops_after_enough_tokens_and_leaves_the_model_as_it_was():
    model, corpus = tiny("llama"), corpus_of(Documents([text * 3 for text in WORDS]))
    model.train()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    _, few = attribute(model, find_head(model), corpus, TextOptions(row_tokens=24, batch_tokens=24), 1)
    _, all_of_it = attribute(model, find_head(model), corpus, OPTIONS, 10**6)
    assert 0 < few < all_of_it
    assert model.training
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_what_is_recorded_is_the_mean_over_scored_tokens_and_merges():
    model, tokenizer = tiny("llama"), tiny_tokenizer()
    other = Documents(["the rat sat on the cat"])
    plain = {"row_tokens": 24, "batch_tokens": 48, "attribution": 10**6}
    parts = [record(model, tokenizer, {"fr": text}, **plain) for text in (TEXT, other)]
    for text, stats in zip((TEXT, other), parts, strict=True):
        owed, scored = attribute(model, find_head(model), corpus_of(text), OPTIONS, 10**6)
        assert torch.allclose(stats.attribution("fr"), owed / scored)
    both = merge(parts)
    sums = sum(one["fr"].sums("attribution") for one in parts)
    tokens = sum(int(one["fr"].sums("attributed")) for one in parts)
    assert torch.allclose(both.attribution("fr"), sums / tokens)


@pytest.mark.parametrize("ending", ["plain", "capped"])
def test_the_gradients_of_drawn_tokens_are_those_of_their_loss(ending):
    """Against autograd through the head, a pass for each draw; the same tokens are drawn from the same seed."""
    random = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(6, 40, bias=True).requires_grad_(False)
    after = {"plain": lambda x: x, "capped": lambda x: torch.tanh(x / 2) * 2}[ending]
    head, hidden = Head(linear, after, ending), torch.randn(300, 6, generator=random)
    targets = torch.randint(40, (300,), generator=random)
    every = _gradients(head, hidden, targets, 2, torch.Generator().manual_seed(3))
    assert every.shape == (3, 300, 6)

    seeds, ids = torch.Generator().manual_seed(3), [targets]
    p = after(linear(hidden)).softmax(1)
    drawn = torch.cat([_draw(p[at : at + 128], 2, seeds) for at in range(0, 300, 128)])
    for wanted, found in zip([*ids, *drawn.T], every, strict=True):
        x = hidden.clone().requires_grad_()
        functional.cross_entropy(after(linear(x)), wanted, reduction="sum").backward()
        assert torch.allclose(found, x.grad, atol=1e-5)


def test_tokens_are_drawn_as_often_as_is_expected():
    p = torch.tensor([[0.0, 0.5, 0.2, 0.3, 0.0]]).repeat(2, 1)
    drawn = _draw(p, 20_000, torch.Generator().manual_seed(0))
    for row in drawn:
        assert torch.bincount(row, minlength=5) / 20_000 == pytest.approx(p[0], abs=0.02)


def made(seed, languages=("en", "fr", "zh")):
    stats = made_stats(seed, languages)
    generator = torch.Generator().manual_seed(seed)
    for one in stats.by_language.values():
        one.tensors["attribution"] = torch.randn(len(DENSE), generator=generator, dtype=torch.float64)
        one.tensors["attributed"] = torch.tensor([7])
    return stats


def scores(stats, language, by):
    """From the definition, neuron by neuron."""
    result = []
    for j in range(len(stats.space)):
        owed = {k: float(stats[k].sums("attribution")[j]) / 7 for k in stats.languages}
        own = owed[language]
        others = [owed[k] for k in stats.languages if k != language]
        positive = sum(max(value, 0.0) for value in owed.values())
        share = max(own, 0.0) / positive if positive else 0.0
        values = {"own": own, "difference": own - sum(others) / len(others), "share": share, "product": own * share**2}
        result.append(values[by] if own > 0 else 0.0)
    return result


@LAW
@given(st.integers(0, 2**32), st.sampled_from(["own", "difference", "share", "product"]), st.integers(1, 12))
def test_the_neurons_of_largest_score_are_chosen(seed, by, count):
    stats = made(seed)
    found = attribution(stats, by=by, per_language=count)
    for language in stats.languages:
        score = scores(stats, language, by)
        above = sorted((j for j in range(len(DENSE)) if score[j] > 0), key=lambda j: (-score[j], j))
        kept = set(found[language])
        assert len(kept) == min(count, len(above))
        # Shares of 1 are equal: any order among equals is as good.
        assert sorted(score[j] for j in kept) == pytest.approx(sorted(score[j] for j in above[:count]))


def test_entropy_among_those_that_matter_takes_the_lowest_of_the_largest_attributions():
    stats = made(3)
    found = attribution(stats, by="entropy", matters=0.5, per_language=3)
    p = stats.probabilities()
    for k, language in enumerate(stats.languages):
        owed = stats[language].sums("attribution")
        mattering = set(owed.topk(10).indices.tolist())
        able = [j for j in mattering if owed[j] > 0 and p[k, j] > p[:, j].mean()]

        def entropy(j):
            share = p[:, j] / p[:, j].sum()
            return -sum(float(s) * float(s.log()) for s in share if s > 0)

        assert set(found[language]) == set(sorted(able, key=entropy)[:3])
