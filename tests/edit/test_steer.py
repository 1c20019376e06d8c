"""Steering: which edits lead from one language to another, and with which values."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lape.data.texts import Documents
from lape.edit.edit import Add, Off, Scale, Set, edited
from lape.edit.steer import SteerOptions, steer, steering, value_of
from lape.errors import LapeError, MismatchError, OptionError, TextError
from lape.recording.record import record
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.space import NeuronSpace
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


@pytest.mark.parametrize("number", [2, -0.5])
def test_a_number_is_itself(stats, number):
    assert value_of(stats, "fr", number) == number


@pytest.mark.parametrize("value", ["mean", "firing", "difference", 0.3])
@pytest.mark.parametrize("how", ["off+add", "off+set", "off+scale", "add", "set", "scale", "off"])
def test_the_edits_are_those_of_how(stats, seen, neurons, how, value):
    """Source neurons that are not the target's go off; the target's are set, added to or scaled, times the strength."""
    edits = steering(neurons, stats, source="en", target="fr", how=how, value=value, strength=1.5)
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
    options = SteerOptions(tokens=tokens, first=first)
    with steer(model, neurons, stats, options, source="en", target="fr") as inside:
        assert inside is model
        ours = logits_of(model, IDS)
    assert torch.equal(logits_of(model, IDS), before)
    assert hooks_on(model) == 0
    edits = steering(neurons, stats, source="en", target="fr")
    with edited_where(model, "llama", edits, lambda column: column < columns):
        assert_near(ours, logits_of(model, IDS))


@pytest.mark.parametrize("how", ["off+add", "add"])
def test_without_a_source_nothing_is_switched_off(stats, neurons, how):
    assert [type(one) for one in steering(neurons, stats, target="fr", how=how)] == [Add]


def test_keywords_win_over_options(stats, neurons):
    _off, on = steering(neurons, stats, SteerOptions(how="off+set", strength=9), source="en", target="fr", strength=2)
    assert isinstance(on, Set)
    assert_near(on.value[30:60], 2 * value_of(stats, "fr", "mean")[30:60])


@pytest.mark.parametrize("layers", [(0,), (1,), (0, 1)])
def test_only_neurons_of_those_layers_are_touched(stats, neurons, layers):
    off, on = steering(neurons, stats, source="en", target="fr", layers=layers)
    assert set(off.neurons) == {j for j in range(30) if j // 44 in layers}
    assert set(on.neurons) == {j for j in range(30, 60) if j // 44 in layers}


@pytest.mark.parametrize("how", ["add", "set"])
@pytest.mark.parametrize("value", ["mean", 0.3])
def test_the_value_rises_evenly_from_layer_to_layer(stats, how, value):
    """Once in the first layer, 3 times in the last, and twice in the one between."""
    found = LanguageNeurons(SPACE, {"fr": of([5, 50, 100])})
    (plain,), (risen,) = (
        steering(found, stats, target="fr", how=how, value=value, strength=1.5, rise=rise) for rise in (1.0, 3.0)
    )
    by_layer = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    before = torch.as_tensor(plain.value, dtype=torch.float64).expand(len(SPACE))
    assert_near(risen.value[[5, 50, 100]], before[[5, 50, 100]] * by_layer)


def test_a_code_of_another_kind_names_the_same_language(stats, neurons):
    ours, theirs = (steering(neurons, stats, source=s, target=t) for s, t in [("en", "fr"), ("eng_Latn", "fra_Latn")])
    assert [one.neurons for one in ours] == [one.neurons for one in theirs]
    assert torch.equal(ours[1].value, theirs[1].value)


# --- what is refused ---


@pytest.mark.parametrize("target", ["en", "eng_Latn"])
def test_source_and_target_are_two_languages(stats, neurons, target):
    with pytest.raises(OptionError, match="both en"):
        steering(neurons, stats, source="en", target=target)


@pytest.mark.parametrize(("target", "options"), [("de", {}), ("fr", {"layers": (2,)})])
def test_a_target_without_neurons_is_refused_with_what_to_do(stats, neurons, target, options):
    with pytest.raises(OptionError, match=rf"{target} has no neurons.*--per-language"):
        steering(neurons, stats, source="en", target=target, **options)


def test_a_layer_that_there_is_not_is_refused_with_those_there_are(stats, neurons):
    with pytest.raises(OptionError, match=r"no layer 7.*\[0, 1, 2\]"):
        steering(neurons, stats, source="en", target="fr", layers=(1, 7))


@pytest.mark.parametrize("ends", [{"source": "en", "target": "zh"}, {"source": "zh", "target": "fr"}])
def test_a_language_that_was_not_identified_is_refused_with_those_that_were(stats, neurons, ends):
    with pytest.raises(TextError, match="en, fr, de"):
        steering(neurons, stats, **ends)


@VALUES
def test_a_language_that_was_not_recorded_is_refused_with_those_that_were(stats, neurons, value):
    found = dataclasses.replace(neurons, sets={**neurons.sets, "zh": of([3])})
    with pytest.raises(TextError, match="en, fr, de"):
        steering(found, stats, source="en", target="zh", value=value)


def test_off_alone_needs_a_source(stats, neurons):
    with pytest.raises(OptionError, match="source"):
        steering(neurons, stats, target="fr", how="off")


@pytest.mark.parametrize(
    "options", [{"how": "ad"}, {"value": "median"}, {"tokens": "all"}, {"first": 0}, {"hwo": "add"}]
)
def test_options_that_there_are_not_are_refused_with_those_there_are(stats, neurons, options):
    with pytest.raises(LapeError, match="Expected"):
        steering(neurons, stats, source="en", target="fr", **options)


@pytest.mark.parametrize("how", ["add", "set", "scale"])
def test_a_strength_that_is_no_number_is_refused_before_the_model_is_touched(stats, neurons, how):
    model = model_of("llama")
    with (
        pytest.raises(OptionError, match="finite"),
        steer(model, neurons, stats, target="fr", how=how, strength=float("nan")),
    ):
        pass
    assert hooks_on(model) == 0


def test_statistics_of_another_model_are_refused_with_both_named(stats, neurons):
    other = dataclasses.replace(neurons, manifest={"model": {"checksum": "f" * 64}})
    recorded = stats.manifest["model"]["checksum"]
    with pytest.raises(MismatchError, match=rf"{'f' * 12}.*{recorded[:12]}"):
        steering(other, stats, source="en", target="fr")
    space = NeuronSpace.dense(LAYERS, 45)
    wider = LanguageNeurons(space, {"en": NeuronSet(space, of([1]).flat), "fr": NeuronSet(space, of([2]).flat)})
    with pytest.raises(MismatchError, match=r"3 × 45.*3 × 44"):
        steering(wider, stats, source="en", target="fr")
