"""Steering: which edits lead from one language to another, and with which values."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lape.data.texts import Documents
from lape.detect.identify import identify
from lape.edit.edit import Add, Off, Scale, Set, edited
from lape.edit.steer import PUBLISHED, SteerOptions, steer, steering, value_of
from lape.errors import LapeError, MismatchError, OptionError, TextError
from lape.measure.conditions import Condition
from lape.measure.methods import tried
from lape.recording.record import record
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.profile import Profile
from lape.values.space import NeuronSpace
from lape.values.stats import LanguageStats
from support.brute import activations, assert_near, hooks_on, logits_of, model_of, row_of, tokenizer_of
from support.by_hand import edited_where
from support.tiny import LAYERS

IDS = torch.tensor([[1, 20, 30, 40, 50, 60, 70], [1, 200, 33, 44, 55, 66, 77]])
SPACE = NeuronSpace.dense(LAYERS, 44)
TEXTS = {
    "en": ["the cat sat on the mat"] * 3,
    "fr": ["le chat dort sur le lit", "le chien mange"],
    "de": ["mat dog lit"],
}


def of(flat):
    return NeuronSet(SPACE, torch.tensor(list(flat), dtype=torch.int64))


@pytest.fixture(scope="module")
def stats():
    return record(model_of("llama"), tokenizer_of(), {k: Documents(v) for k, v in TEXTS.items()})


@pytest.fixture(scope="module")
def seen():
    """Language -> (tokens, neurons) activations, by hand."""
    result = {}
    for language, texts in TEXTS.items():
        rows = [row_of(text, tokenizer_of(), True) for text in texts]
        result[language] = torch.cat([activations(model_of("llama"), "llama", ids)[kept] for ids, kept in rows])
    return result


@pytest.fixture(scope="module")
def neurons():
    return LanguageNeurons(SPACE, {"en": of(range(40)), "fr": of(range(30, 60)), "de": of([])})


def edits_of(neurons, stats, *, to, source=None, **options):
    """The edits with everything as published that is not said."""
    return steering(neurons, stats, dataclasses.replace(PUBLISHED, **options), to=to, source=source)


def value_by_hand(seen, target, value):
    mean = {language: a.mean(0) for language, a in seen.items()}
    if value == "mean":
        return mean[target]
    if value == "firing":
        a = seen[target]
        return torch.stack([row[row > 0].mean() if bool((row > 0).any()) else row.new_zeros(()) for row in a.T])
    others = [one for language, one in mean.items() if language != target]
    return mean[target] - sum(others) / len(others)


VALUES = pytest.mark.parametrize("value", ["mean", "firing", "difference"])


@VALUES
def test_a_value_is_what_its_name_says(stats, seen, value):
    assert_near(value_of(stats, "fr", value), value_by_hand(seen, "fr", value))
    assert torch.equal(value_of(stats, "fra_Latn", value), value_of(stats, "fr", value))


@pytest.mark.parametrize("value", ["mean", "firing", "difference", 0.3])
@pytest.mark.parametrize("how", ["off+add", "off+set", "off+scale", "add", "set", "scale", "off"])
def test_the_edits_are_those_of_how(stats, seen, neurons, how, value):
    """Source neurons that are not the target's go off; the target's are set, added to or scaled, times the strength."""
    edits = edits_of(neurons, stats, source="en", to="fr", how=how, value=value, strength=1.5)
    expected, on = [], how.split("+")[-1]
    if how.startswith("off"):
        expected.append(Off(of(range(30))))
    amount = 1.5 * (value_by_hand(seen, "fr", value) if isinstance(value, str) else value)
    own = of(range(30, 60))
    expected += {"add": [Add(own, amount)], "set": [Set(own, amount)], "scale": [Scale(own, 1.5)], "off": []}[on]
    assert [(type(one), one.neurons) for one in edits] == [(type(one), one.neurons) for one in expected]
    with edited(model_of("llama"), edits):
        ours = logits_of(model_of("llama"), IDS)
    with edited_where(model_of("llama"), "llama", expected, lambda _: True):
        assert_near(ours, logits_of(model_of("llama"), IDS))


@pytest.mark.parametrize(("tokens", "first", "columns"), [("both", None, 7), ("prompt", None, 6), ("both", 1, 7)])
def test_steer_makes_those_edits_and_undoes_them(stats, neurons, tokens, first, columns):
    model, before = model_of("llama"), logits_of(model_of("llama"), IDS)
    options = dataclasses.replace(PUBLISHED, tokens=tokens, first=first)
    with steer(model, neurons, stats=stats, source="en", to="fr", **vars(options)) as inside:
        assert inside is model
        ours = logits_of(model, IDS)
    assert torch.equal(logits_of(model, IDS), before)
    assert hooks_on(model) == 0
    edits = edits_of(neurons, stats, source="en", to="fr")
    with edited_where(model, "llama", edits, lambda column: column < columns):
        assert_near(ours, logits_of(model, IDS))


@pytest.mark.parametrize("how", ["off+add", "add"])
def test_without_a_source_nothing_is_switched_off(stats, neurons, how):
    assert [type(one) for one in edits_of(neurons, stats, to="fr", how=how)] == [Add]


@pytest.mark.parametrize("layers", [(0,), (1,), (0, 1)])
def test_only_neurons_of_those_layers_are_touched(stats, neurons, layers):
    off, on = edits_of(neurons, stats, source="en", to="fr", layers=layers)
    assert set(off.neurons) == {j for j in range(30) if j // 44 in layers}
    assert set(on.neurons) == {j for j in range(30, 60) if j // 44 in layers}


@pytest.mark.parametrize("how", ["add", "set"])
@pytest.mark.parametrize("value", ["mean", 0.3])
def test_the_value_rises_evenly_from_layer_to_layer(stats, how, value):
    """Once in the first layer, 3 times in the last, and twice in the one between."""
    found = LanguageNeurons(SPACE, {"fr": of([5, 50, 100])})
    (plain,), (risen,) = (
        edits_of(found, stats, to="fr", how=how, value=value, strength=1.5, rise=rise) for rise in (1.0, 3.0)
    )
    by_layer = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    before = torch.as_tensor(plain.value, dtype=torch.float64).expand(len(SPACE))
    assert_near(risen.value[[5, 50, 100]], before[[5, 50, 100]] * by_layer)


def test_a_code_of_another_kind_names_the_same_language(stats, neurons):
    ours, theirs = (edits_of(neurons, stats, source=s, to=t) for s, t in [("en", "fr"), ("eng_Latn", "fra_Latn")])
    assert [one.neurons for one in ours] == [one.neurons for one in theirs]
    assert torch.equal(ours[1].value, theirs[1].value)


# --- what is refused ---


@pytest.mark.parametrize("target", ["en", "eng_Latn"])
def test_source_and_target_are_two_languages(stats, neurons, target):
    with pytest.raises(OptionError, match="both en"):
        edits_of(neurons, stats, source="en", to=target)


@pytest.mark.parametrize(("target", "options"), [("de", {}), ("fr", {"layers": (2,)})])
def test_a_target_without_neurons_is_refused_with_what_to_do(stats, neurons, target, options):
    with pytest.raises(OptionError, match=rf"{target} has no neurons.*--per-language"):
        edits_of(neurons, stats, source="en", to=target, **options)


def test_a_layer_that_there_is_not_is_refused_with_those_there_are(stats, neurons):
    with pytest.raises(OptionError, match=r"no layer 7.*\[0, 1, 2\]"):
        edits_of(neurons, stats, source="en", to="fr", layers=(1, 7))


@pytest.mark.parametrize("ends", [{"source": "en", "to": "zh"}, {"source": "zh", "to": "fr"}])
def test_a_language_that_was_not_identified_is_refused_with_those_that_were(stats, neurons, ends):
    with pytest.raises(TextError, match="en, fr, de"):
        edits_of(neurons, stats, **ends)


@VALUES
def test_a_language_that_was_not_recorded_is_refused_with_those_that_were(stats, neurons, value):
    found = dataclasses.replace(neurons, sets={**neurons.sets, "zh": of([3])})
    with pytest.raises(TextError, match="en, fr, de"):
        edits_of(found, stats, source="en", to="zh", value=value)


def test_off_alone_needs_a_source(stats, neurons):
    with pytest.raises(OptionError, match="source"):
        edits_of(neurons, stats, to="fr", how="off")


@pytest.mark.parametrize("options", [{"how": "ad"}, {"value": "median"}, {"tokens": "all"}, {"first": 0}])
def test_options_that_there_are_not_are_refused_with_those_there_are(stats, neurons, options):
    with pytest.raises(LapeError, match="Expected"):
        edits_of(neurons, stats, source="en", to="fr", **options)


@pytest.mark.parametrize("how", ["add", "set", "scale"])
def test_a_strength_that_is_no_number_is_refused_before_the_model_is_touched(stats, neurons, how):
    model = model_of("llama")
    with (
        pytest.raises(OptionError, match="finite"),
        steer(model, neurons, stats=stats, to="fr", how=how, strength=float("nan")),
    ):
        pass
    assert hooks_on(model) == 0


def test_statistics_of_another_model_are_refused_with_both_named(stats, neurons):
    other = dataclasses.replace(neurons, manifest={"model": {"checksum": "f" * 64}})
    recorded = stats.manifest["model"]["checksum"]
    with pytest.raises(MismatchError, match=rf"{'f' * 12}.*{recorded[:12]}"):
        edits_of(other, stats, source="en", to="fr")
    space = NeuronSpace.dense(LAYERS, 45)
    wider = LanguageNeurons(space, {"en": NeuronSet(space, of([1]).flat), "fr": NeuronSet(space, of([2]).flat)})
    with pytest.raises(MismatchError, match=r"3 × 45.*3 × 44"):
        edits_of(wider, stats, source="en", to="fr")


# --- by what the neurons carry alone ---


def bits(edits):
    """What edits do, number by number."""
    return [
        (type(one), list(one.neurons), getattr(one, "strength", getattr(one, "factor", None)), values(one))
        for one in edits
    ]


def values(edit):
    value = torch.as_tensor(getattr(edit, "value", 0.0))
    return (value[edit.neurons.flat] if value.dim() else value).tolist()


@pytest.fixture(scope="module")
def carried(stats, neurons):
    """The same neurons, with what they carry of the statistics."""
    return dataclasses.replace(neurons, profile=Profile.of(stats, neurons.union.flat))


@pytest.mark.parametrize("value", ["mean", "firing", "difference", 0.3])
@pytest.mark.parametrize("how", ["off+add", "off+set", "off+scale", "add", "set", "scale", "off"])
@pytest.mark.parametrize("rise", [1.0, 1.5])
def test_neurons_alone_make_the_very_edits_that_the_statistics_make(stats, carried, how, value, rise):
    options = SteerOptions(how=how, value=value, rise=rise)
    ours, theirs = (steering(carried, one, options, to="fr", source="en") for one in (None, stats))
    assert bits(ours) == bits(theirs)


def test_neurons_of_a_file_steer_a_model_as_the_statistics_do(stats, tmp_path):
    model, options = model_of("llama"), {"per_language": 20, "reliability": False}
    neurons = identify(stats, "difference", **options)
    loaded = LanguageNeurons.load(neurons.save(tmp_path / "a.safetensors"))
    seen = []
    for inside in (
        steer(model, loaded, to="fr", source="en", strength=3.0),
        steer(model, loaded, to="fr", source="en", strength=3.0),
        steer(model, neurons, stats=stats, to="fr", source="en", strength=3.0),
    ):
        with inside:
            seen.append(logits_of(model, IDS))
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], logits_of(model, IDS))


def test_by_default_the_target_s_neurons_are_set_where_an_answer_begins(stats, carried):
    """Twice its mean, three times in the last layer, from the position whose output picks the first new token on."""
    model = model_of("llama")
    with steer(model, carried, to="fr"):
        ours = logits_of(model, IDS)
    by_layer = torch.tensor([2.0, 2.5, 3.0], dtype=torch.float64).repeat_interleave(44)
    with edited_where(
        model, "llama", [Set(of(range(30, 60)), by_layer * stats.mean("fr"))], lambda column: column == 6
    ):
        assert_near(ours, logits_of(model, IDS))


def test_a_number_or_a_factor_needs_no_statistics(neurons):
    assert bits(steering(neurons, None, SteerOptions(how="scale", strength=3.0), to="fr")) == bits(
        [Scale(neurons["fr"], 3.0)]
    )
    (on,) = steering(neurons, None, SteerOptions(value=0.5, rise=1.0), to="fr")
    assert on.value == 1.0


def test_neurons_given_by_hand_say_what_they_need(neurons):
    with pytest.raises(OptionError, match=r"carry no activations.*stats"):
        steer(model_of("llama"), neurons, to="fr")


def test_neurons_of_counts_alone_say_so(stats, neurons):
    counts = {
        k: LanguageStats({name: one.tensors[name] for name in ("tokens", "routed", "fires")})
        for k, one in stats.by_language.items()
    }
    profile = Profile.of(dataclasses.replace(stats, by_language=counts), neurons.union.flat)
    with pytest.raises(OptionError, match="counts alone"):
        steer(model_of("llama"), dataclasses.replace(neurons, profile=profile), to="fr")


def test_a_language_without_neurons_is_refused_in_one_sentence(carried):
    with pytest.raises(OptionError) as refused:
        steer(model_of("llama"), carried, to="de")
    assert str(refused.value).count(". ") == 0


def test_neurons_of_another_model_are_refused(carried):
    other = dataclasses.replace(carried, manifest={"model": {"id": "other", "checksum": "f" * 64}})
    with pytest.raises(MismatchError, match="other"), steer(model_of("llama"), other, to="fr"):
        pass


def test_what_was_measured_as_published_is_said_field_by_field():
    """Tang et al. 2024: on and off everywhere, once the mean. Measured numbers depend on it."""
    assert vars(PUBLISHED) == {
        "how": "off+add", "value": "mean", "strength": 1.0, "rise": 1.0, "tokens": "both", "first": None, "fade": 1.0, "layers": None,
        "at": "activation",
    }  # fmt: skip
    assert Condition("off").where == PUBLISHED
    assert [one.steer for one in tried("neurons", 12)][:2] == [PUBLISHED, SteerOptions()]
