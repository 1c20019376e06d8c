"""Controls of a steering edit: other neurons or values in other places, and as strong."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.edit.edit import Add, Off, Scale, Set
from lape.measure.steering_controls import change_norms, matched_norm, permuted, randomised, transplanted
from lape.values.neurons import NeuronSet
from lape.values.space import NeuronSpace
from support.brute import MLPS, affine, branches, hooks_on, logits_of, model_of, width_of
from support.by_hand import apply, chosen, values
from support.tiny import LAYERS

LAW = settings(deadline=None, max_examples=40)
SPACE = NeuronSpace.of([(0, None, 60), (1, 0, 50), (1, 1, 50)])
SEED = st.integers(0, 10**6)
SETS = st.sets(st.integers(0, len(SPACE) - 1), min_size=1, max_size=15)


def of(flat):
    return NeuronSet(SPACE, torch.tensor(sorted(flat), dtype=torch.int64))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def spread(seed=7):
    return torch.randn(len(SPACE), generator=seeded(seed), dtype=torch.float64)


def steering_edits(source, target):
    """As `steering` makes them: off, and one that puts values on."""
    off, own = of(source - target), of(target)
    return [[Off(off), on] for on in (Set(own, spread()), Add(own, spread(), 1.5), Add(own, 0.3), Scale(own, 2.0))]


def held(edit):
    """How often each value is held by the edit's neurons."""
    value = torch.as_tensor(edit.value, dtype=torch.float64)
    return Counter((value[edit.neurons.flat] if value.dim() else value.expand(len(edit.neurons))).tolist())


def kept(one, other):
    """The same kind of edit with the same strength or factor."""
    return type(one) is type(other) and all(
        getattr(one, k, None) == getattr(other, k, None) for k in ("strength", "factor")
    )


@LAW
@given(SETS, SETS, SEED)
def test_permuted_edits_have_the_same_neurons_and_the_same_values(source, target, seed):
    for edits in steering_edits(source, target):
        for before, after in zip(edits, permuted(edits, seeded(seed)), strict=True):
            assert kept(before, after)
            assert after.neurons == before.neurons
            assert not hasattr(before, "value") or held(after) == held(before)


@LAW
@given(SETS, SETS, SETS, SEED)
def test_transplanted_values_go_to_the_other_language_s_neurons(source, target, third, seed):
    for edits in steering_edits(source, target):
        off, on = transplanted(edits, of(third), seeded(seed))
        assert kept(edits[1], on)
        assert set(off.neurons) == source - target - third
        assert set(on.neurons) == third
        if hasattr(on, "value"):
            dealt, whole = held(on), held(edits[1])
            least = len(third) // len(target)
            assert dealt.total() == len(third)
            assert all(least * whole[v] <= dealt[v] <= (least + 1) * whole[v] for v in {*dealt, *whole})


@LAW
@given(SETS, SETS, SETS, SEED)
def test_random_neurons_are_as_many_in_each_stretch_and_none_that_is_excluded(source, target, more, seed):
    excluded = of(source | target | more)
    for edits in steering_edits(source, target):
        for before, after in zip(edits, randomised(edits, excluded, seeded(seed)), strict=True):
            assert kept(before, after)
            assert torch.equal(SPACE.counts(after.neurons.flat), SPACE.counts(before.neurons.flat))
            assert len(after.neurons & excluded) == 0
            assert not hasattr(before, "value") or held(after) == held(before)


@pytest.mark.parametrize(
    "make",
    [permuted, lambda e, g: randomised(e, of(range(20)), g), lambda e, g: transplanted(e, of(range(50)), g)],
    ids=["permuted", "random", "other"],
)
def test_the_same_seed_deals_the_same_and_another_seed_otherwise(make):
    edit = Set(of(range(20)), spread())
    a, b, c = (make([edit], seeded(seed))[0].value for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


# --- strength ---

KINDS = ("llama", "phi3", "gpt2", "opt", "lfm2")
PROMPTS = [torch.tensor([[1, 20, 30, 40, 50, 60, 70]]), torch.tensor([[1, 200, 33]])]


def edits_of(kind, how, seed=0):
    off, own = chosen(kind, seed + 1), chosen(kind, seed + 2)
    on = {
        "off+add": Add(own, values(kind, seed), 1.5),
        "off+set": Set(own, values(kind, seed)),
        "off+scale": Scale(own, 3.0),
    }.get(how)
    return [edit for edit in (Off(off - own), on) if edit is not None]


def inputs_of(kind, ids):
    """What each unedited MLP reads."""
    inputs = []
    gates = [model_of(kind).get_submodule(MLPS[kind].gate.format(layer)) for layer in range(LAYERS)]
    handles = [gate.register_forward_pre_hook(lambda _m, args: inputs.append(args[0])) for gate in gates]
    logits_of(model_of(kind), ids)
    for handle in handles:
        handle.remove()
    return inputs


def norms_by_hand(kind, edits, tokens):
    """Root mean square over tokens of ‖down(edited activation · up) - down(activation · up)‖, layer by layer."""
    total, count = torch.zeros(LAYERS, dtype=torch.float64), sum(ids.numel() for ids in PROMPTS)
    for ids in PROMPTS:
        inputs = inputs_of(kind, ids)
        for layer in range(LAYERS):
            a, up = branches(model_of(kind), kind, layer, inputs[layer].reshape(ids.shape[1], -1))
            after = a.clone()
            for edit in edits:
                apply(edit, layer, after, width_of(kind))
            picks = torch.arange(ids.shape[1]) == ids.shape[1] - 1
            where = {"both": picks | ~picks, "generated": picks, "prompt": ~picks}[tokens]
            change = (after - a) * where[:, None] * (1 if up is None else up)
            total[layer] += (change @ affine(model_of(kind), MLPS[kind].down.format(layer))[0].T).square().sum()
    return (total / count).sqrt()


@pytest.mark.parametrize("tokens", ["both", "prompt", "generated"])
@pytest.mark.parametrize("how", ["off", "off+add", "off+set", "off+scale"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_s_norm_is_that_of_the_change_of_each_mlp_s_output(kind, how, tokens):
    model, edits = model_of(kind), edits_of(kind, how)
    before = logits_of(model, PROMPTS[0])
    norms = change_norms(model, edits, PROMPTS, tokens)
    torch.testing.assert_close(norms, norms_by_hand(kind, edits, tokens), rtol=1e-5, atol=1e-7)
    assert hooks_on(model) == 0
    assert torch.equal(logits_of(model, PROMPTS[0]), before)


@pytest.mark.parametrize("tokens", ["both", "generated"])
@pytest.mark.parametrize("how", ["off+add", "off+set"])
@pytest.mark.parametrize("kind", KINDS)
def test_matched_edits_change_as_much_in_every_layer(kind, how, tokens):
    edits, like = edits_of(kind, how), [Add(chosen(kind, 8, 0.6), values(kind, 8), 4.0)]
    matched = matched_norm(model_of(kind), edits, like, PROMPTS, tokens)
    assert [(type(one), one.neurons) for one in matched] == [(type(one), one.neurons) for one in edits]
    torch.testing.assert_close(
        norms_by_hand(kind, matched, tokens), norms_by_hand(kind, like, tokens), rtol=1e-3, atol=1e-6
    )
    for before, after in zip(edits[1:], matched[1:], strict=True):
        at = before.neurons.flat
        factor = after.value[at] / before.value[at]
        for layer in range(LAYERS):
            inside = factor[at // width_of(kind) == layer]
            assert bool((inside >= 0).all())
            torch.testing.assert_close(inside, inside[:1].expand(len(inside)))


def test_where_switching_off_alone_changes_more_nothing_is_added():
    kind = "llama"
    edits, like = edits_of(kind, "off+add"), [Add(chosen(kind, 8, 0.05), 0.01)]
    matched = matched_norm(model_of(kind), edits, like, PROMPTS)
    assert float(matched[1].value[matched[1].neurons.flat].abs().max()) == 0


@pytest.mark.parametrize("how", ["off", "off+scale"])
def test_what_holds_no_value_stays_as_it_is(how):
    edits = edits_of("llama", how)
    matched = matched_norm(model_of("llama"), edits, [Off(chosen("llama", 5))], PROMPTS)
    assert all(kept(a, b) and a.neurons == b.neurons for a, b in zip(edits, matched, strict=True))
