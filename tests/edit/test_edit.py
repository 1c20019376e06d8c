"""Edits do what they say at the activation, in order, nested, in `generate`, compiled; and undo themselves bit for bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.edit.edit import Add, Off, Scale, Set, edited
from lape.errors import LapeError, MismatchError, OptionError
from lape.model.find import find
from lape.model.hooks import watching
from lape.values.neurons import NeuronSet
from support.brute import KINDS, assert_near, hooks_on, lively, logits_of, model_of, rewritten, width_of
from support.by_hand import apply, chosen, one_of_each, values
from support.tiny import LAYERS, PACKING

IDS = torch.tensor([[1, 20, 30, 40, 50, 60, 70], [1, 200, 33, 44, 55, 66, 77]])
SOME = ("llama", "gemma3_text", "gpt2", "bloom", "lfm2")
CACHING = ("llama", "gemma2", "gemma3_text", "phi3", "gpt2", "gpt_neox", "opt", "bloom", "falcon", "mpt", "lfm2")


def by_hand(kind, *edits, ids=IDS):
    """Logits of a model whose MLPs are computed by hand, with the edits."""

    def change(layer, a):
        for one in edits:
            a = apply(one, layer, a, width_of(kind))
        return a

    with rewritten(model_of(kind), kind, change):
        return logits_of(model_of(kind), ids)


def with_edits(kind, edits, ids=IDS):
    with edited(model_of(kind), edits):
        return logits_of(model_of(kind), ids)


# --- what an edit does ---


@pytest.mark.parametrize("which", range(6), ids=["off", "set", "set each", "add each", "add", "scale"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_does_to_the_activation_what_it_says(kind, which):
    edit = one_of_each(kind)[which]
    after = with_edits(kind, edit)
    assert_near(after, by_hand(kind, edit))
    assert not torch.equal(after, logits_of(model_of(kind), IDS))


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_of_edits_applies_in_order(kind):
    edits = one_of_each(kind)
    assert_near(with_edits(kind, edits), by_hand(kind, *edits))
    assert_near(with_edits(kind, edits[::-1]), by_hand(kind, *edits[::-1]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_inner_edit_changes_what_the_outer_one_left(kind):
    outer, inner = (
        [Set(chosen(kind, 1), 0.7), Off(chosen(kind, 2))],
        [Add(chosen(kind, 3), 0.5), Scale(chosen(kind, 4), 3)],
    )
    with edited(model_of(kind), outer):
        nested = with_edits(kind, inner)
    assert_near(nested, by_hand(kind, *outer, *inner))


@pytest.mark.parametrize("kind", SOME)
def test_leaving_the_inner_edit_leaves_the_outer_one(kind):
    outer, inner = Set(chosen(kind, 1), 0.7), Off(chosen(kind, 2))
    with edited(model_of(kind), outer):
        alone = logits_of(model_of(kind), IDS)
        with_edits(kind, inner)
        assert torch.equal(logits_of(model_of(kind), IDS), alone)


def an_edit(kind):
    neurons = st.builds(chosen, st.just(kind), st.integers(0, 9), st.sampled_from([0.1, 0.6]))
    number = st.floats(-3, 3)
    value = st.one_of(number, st.builds(values, st.just(kind), st.integers(0, 9)))
    return st.one_of(
        st.builds(Off, neurons),
        st.builds(Set, neurons, value),
        st.builds(Add, neurons, value, number),
        st.builds(Scale, neurons, number),
    )


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["llama", "gpt2", "lfm2"]).flatmap(
        lambda k: st.tuples(st.just(k), st.lists(an_edit(k), max_size=5))
    )
)
def test_any_sequence_of_edits_is_the_sequence_by_hand(case):
    kind, edits = case
    assert_near(with_edits(kind, edits), by_hand(kind, *edits))


@pytest.mark.parametrize("kind", SOME)
def test_what_is_set_last_is_what_counts(kind):
    last = Set(chosen(kind), values(kind))
    before = [type(one)(chosen(kind), *list(vars(one).values())[1:]) for one in one_of_each(kind)]
    assert torch.equal(with_edits(kind, [*before, last]), with_edits(kind, last))


@pytest.mark.parametrize("kind", SOME)
def test_edits_that_cancel_out_change_no_bit(kind):
    neurons = chosen(kind)
    pairs = [Add(neurons, values(kind)), Add(neurons, values(kind), -1.0), Scale(neurons, 4.0), Scale(neurons, 0.25)]
    assert torch.equal(with_edits(kind, pairs), logits_of(model_of(kind), IDS))


def test_off_is_scaling_by_zero():
    neurons = chosen("llama")
    assert_near(with_edits("llama", Off(neurons)), with_edits("llama", Scale(neurons, 0.0)))


@pytest.mark.parametrize("kind", SOME)
def test_edits_that_change_nothing_change_no_bit(kind):
    empty = NeuronSet(find(model_of(kind)).space, torch.empty(0))
    nothing = [Off(empty), Set(empty, 1.0), Scale(chosen(kind), 1.0), Add(chosen(kind), 0.0)]
    assert torch.equal(with_edits(kind, nothing), logits_of(model_of(kind), IDS))
    assert torch.equal(with_edits(kind, []), logits_of(model_of(kind), IDS))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("kind", SOME)
def test_edits_keep_the_number_format(kind, dtype):
    model = lively(kind, dtype)
    with edited(model, one_of_each(kind)):
        logits = logits_of(model, IDS)
    assert logits.dtype == dtype
    assert bool(torch.isfinite(logits).all())


def test_a_value_for_every_neuron_touches_the_set_alone():
    kind, neurons = "llama", chosen("llama")
    value = torch.full((len(neurons.space),), torch.nan, dtype=torch.float64)
    value[neurons.flat] = 0.3
    assert torch.equal(with_edits(kind, Set(neurons, value)), with_edits(kind, Set(neurons, 0.3)))


@pytest.mark.parametrize("kind", SOME)
def test_who_watches_inside_of_an_edit_sees_the_edited_activations(kind):
    neurons, seen, sites = chosen(kind), {}, find(model_of(kind)).sites
    with (
        edited(model_of(kind), Set(neurons, 2.0)),
        watching(model_of(kind), sites, lambda k, a, _rows: seen.update({k: a.clone()})),
    ):
        logits_of(model_of(kind), IDS)
    activations = torch.cat([seen[k].reshape(IDS.numel(), -1) for k in range(len(sites))], 1)
    assert torch.equal(activations[:, neurons.flat], torch.full((IDS.numel(), len(neurons)), 2.0).to(activations))


# --- undoing ---


@pytest.mark.parametrize("kind", KINDS)
def test_on_leaving_the_model_is_what_it_was_bit_for_bit(kind):
    model = model_of(kind)
    before, weights = logits_of(model, IDS), {k: v.clone() for k, v in model.state_dict().items()}
    with_edits(kind, one_of_each(kind))
    assert torch.equal(logits_of(model, IDS), before)
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert hooks_on(model) == 0


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_undoes_the_edit_and_goes_on(error):
    model = model_of("lfm2")
    before = logits_of(model, IDS)
    with pytest.raises(error), edited(model, one_of_each("lfm2")):
        raise error
    assert hooks_on(model) == 0
    assert torch.equal(logits_of(model, IDS), before)


def test_an_edit_that_is_refused_leaves_nothing_on():
    neurons = chosen("llama")
    with pytest.raises(OptionError), edited(model_of("llama"), [Off(neurons), Set(neurons, torch.zeros(3))]):
        pass
    assert hooks_on(model_of("llama")) == 0


def test_an_edit_touches_no_other_model():
    other = lively("llama")
    before = logits_of(other, IDS)
    with edited(model_of("llama"), Off(chosen("llama"))):
        assert torch.equal(logits_of(other, IDS), before)


# --- generating ---


def written(kind, ids=IDS[:1], **options):
    out = model_of(kind).generate(
        ids,
        max_new_tokens=12,
        min_new_tokens=12,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        pad_token_id=0,
        **{"attention_mask": torch.ones_like(ids), **options},
    )
    return out.sequences[:, ids.shape[1] :], torch.stack(out.logits, 1).double()


@pytest.mark.parametrize("kind", CACHING)
def test_generating_with_a_cache_is_generating_without(kind):
    with edited(model_of(kind), one_of_each(kind)):
        cached, fresh = written(kind), written(kind, use_cache=False)
    assert torch.equal(cached[0], fresh[0])
    assert_near(cached[1], fresh[1], 1e-4 if kind not in PACKING or kind == "gemma2" else 1e-6)


@pytest.mark.parametrize("kind", CACHING)
def test_generating_follows_the_edited_logits(kind):
    edits = one_of_each(kind)
    with edited(model_of(kind), edits):
        tokens, logits = written(kind)
    rows = torch.cat([IDS[:1], tokens], 1)
    assert_near(logits, by_hand(kind, *edits, ids=rows)[:, IDS.shape[1] - 1 : -1], 1e-4)


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "gpt2", "opt", "falcon", "lfm2"])
def test_a_batch_padded_on_the_left_is_its_rows_alone(kind):
    short, long = [1, 20, 30], [1, 200, 33, 44, 55, 66]
    ids = torch.tensor([[0, 0, 0, *short], long])
    mask = torch.tensor([[0, 0, 0, 1, 1, 1], [1] * 6])
    with edited(model_of(kind), one_of_each(kind)):
        together = written(kind, ids, attention_mask=mask)
        alone = [written(kind, torch.tensor([row])) for row in (short, long)]
    for row, (tokens, logits) in enumerate(alone):
        assert torch.equal(together[0][row], tokens[0])
        assert_near(together[1][row], logits[0], 1e-4)


# --- what is refused ---


def test_neurons_of_another_model_are_refused_with_both_named():
    with pytest.raises(MismatchError, match=r"3 × 128.*3 × 44"), edited(model_of("llama"), Off(chosen("bloom"))):
        pass


@pytest.mark.parametrize("value", [torch.zeros(3), torch.zeros(LAYERS, 44), torch.zeros(1, LAYERS * 44)])
@pytest.mark.parametrize("kind", [Set, Add])
def test_a_value_of_another_shape_is_refused_with_the_one_expected(kind, value):
    with pytest.raises(OptionError, match=r"Expected one number, or \(132,\)"):
        with_edits("llama", kind(chosen("llama"), value))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "edit",
    [
        lambda n, bad: Set(n, bad),
        lambda n, bad: Add(n, bad),
        lambda n, bad: Add(n, 1.0, bad),
        lambda n, bad: Scale(n, bad),
        lambda n, bad: Set(n, torch.full((len(n.space),), bad)),
    ],
    ids=["set", "add", "add strength", "scale", "set each"],
)
def test_what_is_not_finite_is_refused(edit, bad):
    with pytest.raises(OptionError, match="finite"):
        with_edits("llama", edit(chosen("llama"), bad))


@pytest.mark.parametrize("what", ["fr", [None], 3])
def test_what_is_no_edit_is_refused(what):
    with pytest.raises(LapeError, match="Expected Off, Set, Add or Scale"):
        with_edits("llama", what)


@pytest.mark.parametrize(
    ("options", "says"), [({"tokens": "all"}, "both, prompt, generated"), ({"first": 0}, "1 or more")]
)
def test_positions_that_there_are_not_are_refused(options, says):
    with pytest.raises(OptionError, match=says), edited(model_of("llama"), Off(chosen("llama")), **options):
        pass


def test_a_model_edited_in_inference_mode_still_gives_gradients_there():
    model = lively("llama", torch.float32)
    with edited(model, one_of_each("llama")):
        with torch.inference_mode():
            model(input_ids=IDS)
        model(input_ids=IDS).logits.sum().backward()
    assert float(model.get_input_embeddings().weight.grad.abs().sum()) > 0


# --- compiled models ---


@pytest.fixture
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def wrapped(model, backend):
    return torch.compile(model, backend=backend)


def in_place(model, backend):
    model.compile(backend=backend)
    return model


@pytest.mark.parametrize(
    ("kind", "compiled", "backend"),
    [("llama", wrapped, "aot_eager"), ("lfm2", wrapped, "eager"), ("gpt2", in_place, "eager")],
)
def test_a_compiled_model_is_edited_and_restored(kind, compiled, backend, fresh_compiler):
    model = compiled(lively(kind), backend)
    edits = one_of_each(kind)
    before = logits_of(model, IDS)
    with edited(model, edits):
        during = logits_of(model, IDS)
        again = logits_of(model, IDS)
    after = logits_of(model, IDS)
    assert_near(during, by_hand(kind, *edits))
    assert torch.equal(during, again)
    assert torch.equal(before, after)


def test_a_model_compiled_after_entering_is_edited_and_restored(fresh_compiler):
    model = lively("llama")
    with edited(model, Off(chosen("llama"))):
        compiled = torch.compile(model, backend="eager")
        assert_near(logits_of(compiled, IDS), by_hand("llama", Off(chosen("llama"))))
    assert_near(logits_of(compiled, IDS), logits_of(model, IDS))


def test_nested_edits_of_a_compiled_model_undo_one_by_one(fresh_compiler):
    model, outer, inner = (
        torch.compile(lively("llama"), backend="eager"),
        Off(chosen("llama", 1)),
        Off(chosen("llama", 2)),
    )
    logits_of(model, IDS)
    with edited(model, outer):
        with edited(model, inner):
            assert_near(logits_of(model, IDS), by_hand("llama", outer, inner))
        assert_near(logits_of(model, IDS), by_hand("llama", outer))
    assert_near(logits_of(model, IDS), by_hand("llama"))
