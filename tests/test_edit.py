"""Edits do what they say at the activation, in order, nested, in `generate`, compiled; and undo themselves bit for bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brute import KINDS, assert_near, hooks_on, lively, logits_of, model_of, rewritten, tokenizer_of, width_of
from lape.edit import Add, Off, Scale, Set, edited, steer, steering
from lape.errors import LapeError, MismatchError, OptionError, TextError
from lape.neurons import LanguageNeurons, NeuronSet
from lape.recording import record
from lape.sites import find
from lape.space import NeuronSpace
from lape.texts import Documents
from tiny import LAYERS, PACKING

IDS = torch.tensor([[1, 20, 30, 40, 50, 60, 70], [1, 200, 33, 44, 55, 66, 77]])
SOME = ("llama", "gemma3_text", "gpt2", "bloom", "lfm2")
CACHING = ("llama", "gemma2", "gemma3_text", "phi3", "gpt2", "gpt_neox", "opt", "bloom", "falcon", "mpt", "lfm2")


def chosen(kind, seed=0, share=0.3):
    """Random neurons of every layer."""
    generator = torch.Generator().manual_seed(seed)
    space = NeuronSpace.dense(LAYERS, width_of(kind))
    return NeuronSet(space, torch.nonzero(torch.rand(len(space), generator=generator) < share)[:, 0])


def values(kind, seed=9):
    return torch.randn(LAYERS * width_of(kind), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def apply(edit, layer, a, width):
    """The definition of an edit, neuron by neuron."""
    for flat in edit.neurons:
        if flat // width == layer:
            at = (..., flat % width)
            value = getattr(edit, "value", None)
            value = value[flat] if torch.is_tensor(value) and value.dim() else value
            match edit:
                case Off():
                    a[at] = 0
                case Set():
                    a[at] = value
                case Add():
                    a[at] = a[at] + edit.strength * value
                case Scale():
                    a[at] = a[at] * edit.factor
    return a


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


def one_of_each(kind):
    return [
        Off(chosen(kind, 1)),
        Set(chosen(kind, 2), 0.7),
        Set(chosen(kind, 3), values(kind)),
        Add(chosen(kind, 4), values(kind), -1.5),
        Add(chosen(kind, 5), 0.4),
        Scale(chosen(kind, 6), -2.0),
    ]


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


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=5), st.sampled_from(["llama", "gpt2", "lfm2"]))
def test_any_sequence_of_edits_is_the_sequence_by_hand(order, kind):
    edits = [one_of_each(kind)[which] for which in order]
    assert_near(with_edits(kind, edits), by_hand(kind, *edits))


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
def test_recording_an_edited_model_sees_the_edited_activations(kind):
    neurons, texts = chosen(kind), {"en": Documents(["the cat sat on the mat"])}
    with edited(model_of(kind), Set(neurons, 2.0)):
        stats = record(model_of(kind), tokenizer_of(), texts)["en"]
    tokens = int(stats.tokens.sum())
    assert torch.equal(stats.sums("sum")[neurons.flat], torch.full((len(neurons),), 2.0 * tokens, dtype=torch.float64))


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


# --- steering ---

TEXTS = {"en": Documents(["the cat sat on the mat"] * 3), "fr": Documents(["le chat dort sur le lit"] * 2)}


@pytest.fixture(scope="module")
def stats():
    return record(model_of("llama"), tokenizer_of(), TEXTS)


@pytest.fixture(scope="module")
def neurons():
    space = NeuronSpace.dense(LAYERS, 44)
    sets = {"en": range(40), "fr": range(30, 60), "de": range(0)}
    return LanguageNeurons(space, {k: NeuronSet(space, torch.tensor(list(v))) for k, v in sets.items()})


def test_off_applies_to_source_minus_target(stats, neurons):
    off, _ = steering(neurons, stats, source="en", target="fr")
    assert isinstance(off, Off)
    assert list(off.neurons) == list(range(30))


@pytest.mark.parametrize(("how", "kind"), [("add", Add), ("set", Set)])
def test_the_target_s_neurons_get_its_own_mean_times_the_strength(stats, neurons, how, kind):
    _, on = steering(neurons, stats, source="en", target="fr", how=how, strength=1.5)
    assert isinstance(on, kind)
    assert list(on.neurons) == list(range(30, 60))
    mean = stats["fr"].sums("sum") / int(stats["fr"].tokens.sum())
    amount = torch.as_tensor(on.value) * getattr(on, "strength", 1.0)
    torch.testing.assert_close(amount[30:60], 1.5 * mean[30:60])


def test_without_a_source_nothing_is_switched_off(stats, neurons):
    assert [type(one) for one in steering(neurons, stats, source=None, target="fr")] == [Add]


def test_a_shared_neuron_is_only_added_to(stats, neurons):
    with steer(model_of("llama"), neurons, stats, source="en", target="fr"):
        after = logits_of(model_of("llama"), IDS)
    mean = stats["fr"].sums("sum") / int(stats["fr"].tokens.sum())
    space = neurons.space
    off = Off(NeuronSet(space, torch.arange(30)))
    on = Add(NeuronSet(space, torch.arange(30, 60)), mean)
    assert_near(after, by_hand("llama", off, on))


def test_steering_from_a_language_to_itself_switches_nothing_off(stats, neurons):
    off, _ = steering(neurons, stats, source="fr", target="fr")
    assert len(off.neurons) == 0


def test_a_target_without_neurons_is_refused_with_what_to_do(stats, neurons):
    none = LanguageNeurons(neurons.space, {**neurons.sets, "fr": neurons["de"]})
    with pytest.raises(OptionError, match=r"fr has no neurons.*--rate"):
        steering(none, stats, source="en", target="fr")


@pytest.mark.parametrize("ends", [{"source": "en", "target": "zh"}, {"source": "zh", "target": "fr"}])
def test_a_language_that_was_not_identified_is_refused_with_those_that_were(stats, neurons, ends):
    with pytest.raises(TextError, match="en, fr, de"):
        steering(neurons, stats, **ends)


def test_how_is_add_or_set_and_nothing_else(stats, neurons):
    with pytest.raises(LapeError, match="Expected"):
        steering(neurons, stats, source="en", target="fr", how="ad")
