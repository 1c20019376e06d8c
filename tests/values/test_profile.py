"""What selected neurons carry of their statistics: the same numbers, for them alone, in a file that still refuses what cannot be."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.errors import FileError, OptionError, TextError
from lape.store.tensors import write_tensors
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.profile import Profile
from support.made import DENSE, EXPERTS, made_stats

LAW = settings(deadline=None, max_examples=30)
SPACES = st.sampled_from([DENSE, EXPERTS])
LANGUAGES = ["en", "fr", "zh", "de", "ja", "id"]


def some(space, data, least=0):
    return torch.tensor(sorted(data.draw(st.sets(st.integers(0, len(space) - 1), min_size=least))), dtype=torch.int64)


@LAW
@given(st.integers(0, 99), SPACES, st.integers(2, 6), st.data())
def test_it_says_of_its_neurons_bit_for_bit_what_the_statistics_say(seed, space, count, data):
    stats = made_stats(seed, LANGUAGES[:count], space, sums=True)
    flat, scores = some(space, data), torch.rand(len(space), dtype=torch.float64)
    profile = Profile.of(stats, flat, scores)
    assert profile.languages == tuple(stats.languages)
    assert torch.equal(profile.scores, scores[flat])
    assert torch.equal(profile.probabilities, stats.probabilities()[:, flat])
    for k, language in enumerate(stats.languages):
        assert torch.equal(profile.means[k], stats.mean(language)[flat])
        for name in ("mean", "firing_mean", "others_mean"):
            ours, whole = getattr(profile, name)(language), getattr(stats, name)(language)
            assert torch.equal(ours[flat], whole[flat])
            elsewhere = torch.ones(len(space), dtype=torch.bool).index_fill_(0, flat, False)
            assert not ours[elsewhere].any()


@LAW
@given(SPACES, st.data())
def test_of_fewer_neurons_it_is_what_it_would_have_been_of_those_alone(space, data):
    stats, flat, scores = made_stats(space=space, sums=True), some(space, data), torch.rand(len(space))
    fewer = flat[torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(flat), max_size=len(flat)))).bool()]
    assert Profile.of(stats, flat, scores).narrowed(fewer) == Profile.of(stats, fewer, scores)


def neurons_of(sets, profile, space=DENSE):
    return LanguageNeurons(space, {k: NeuronSet(space, torch.tensor(v)) for k, v in sets.items()}, profile)


def test_neurons_keep_it_for_the_sets_that_they_have_and_refuse_it_for_others():
    stats = made_stats(sums=True)
    profile = Profile.of(stats, torch.tensor([1, 4, 7]))
    whole = neurons_of({"en": [4, 1], "fr": [7]}, profile)
    assert whole.profile == profile
    part = dataclasses.replace(whole, sets={"en": whole["en"]})
    assert part.profile == Profile.of(stats, torch.tensor([1, 4]))
    with pytest.raises(OptionError, match="nothing of 1 of the 2 neurons"):
        neurons_of({"en": [4, 2]}, profile)


def test_a_language_that_was_not_recorded_is_refused_with_those_that_were():
    profile = Profile.of(made_stats(sums=True), torch.tensor([1]))
    assert torch.equal(profile.mean("fra_Latn"), profile.mean("fr"))
    with pytest.raises(TextError, match=r"ja was not recorded.*en, fr, zh"):
        profile.mean("ja")


def test_of_counts_alone_there_are_probabilities_and_no_means():
    profile = Profile.of(made_stats(sums=False), torch.tensor([1]))
    assert profile.probabilities.shape == (3, 1)
    for ask in (profile.mean, profile.firing_mean, profile.others_mean):
        with pytest.raises(OptionError, match="counts alone"):
            ask("fr")


# Its part of the file


@LAW
@given(SPACES, st.booleans(), st.booleans(), st.data())
def test_loading_what_was_saved_is_identity(tmp_path_factory, space, sums, scored, data):
    stats = made_stats(space=space, sums=sums)
    sets = {language: some(space, data).tolist() for language in stats.languages}
    flat = torch.tensor(sorted(set().union(*sets.values())), dtype=torch.int64)
    scores = torch.rand(len(space), dtype=torch.float64) if scored else None
    neurons = neurons_of(sets, Profile.of(stats, flat, scores), space)
    assert LanguageNeurons.load(neurons.save(tmp_path_factory.mktemp("profile") / "a.safetensors")) == neurons


HEADER = {
    "kind": "language neurons",
    "format": 1,
    "languages": ["en", "fr"],
    "space": DENSE.to_json(),
    "method": "lape",
    "options": {},
    "manifest": {},
    "notes": [],
}
SETS = {"set/en": torch.tensor([1, 4]), "set/fr": torch.tensor([4, 9])}


def test_a_file_of_format_1_keeps_the_scores_of_its_neurons_and_is_said_to_carry_no_more(tmp_path):
    scores = torch.rand(len(DENSE), dtype=torch.float64)
    write_tensors(tmp_path / "a.safetensors", {**SETS, "scores": scores}, HEADER)
    neurons = LanguageNeurons.load(tmp_path / "a.safetensors")
    assert torch.equal(neurons.scores, scores[[1, 4, 9]])
    assert neurons.profile.languages == ()
    assert LanguageNeurons.load(neurons.save(tmp_path / "b.safetensors")) == neurons
    write_tensors(tmp_path / "c.safetensors", SETS, HEADER)
    assert LanguageNeurons.load(tmp_path / "c.safetensors").profile is None


GOOD = {
    "profile/probabilities": torch.full((2, 3), 0.5, dtype=torch.float64),
    "profile/means": torch.full((2, 3), -1.0, dtype=torch.float64),
    "profile/firing_means": torch.full((2, 3), 1.0, dtype=torch.float64),
    "profile/scores": torch.tensor([0.1, torch.inf, 0.3], dtype=torch.float64),
}


def altered(name, change):
    return {**GOOD, f"profile/{name}": change(GOOD[f"profile/{name}"])}


def without(*names):
    return {name: one for name, one in GOOD.items() if name.removeprefix("profile/") not in names}


def first(value):
    return lambda t: t.clone().index_put_(tuple(torch.zeros(t.dim(), 1).long()), torch.tensor(value).to(t))


@pytest.mark.parametrize(
    ("tensors", "header"),
    [
        (altered("probabilities", first(1.1)), {}),
        (altered("probabilities", first(-0.1)), {}),
        (altered("firing_means", first(-1.0)), {}),
        (altered("means", first(torch.inf)), {}),
        (altered("scores", first(torch.nan)), {}),
        (altered("means", lambda t: t[:1]), {}),
        (altered("means", lambda t: t[:, 1:]), {}),
        (altered("scores", lambda t: t[1:]), {}),
        (altered("means", lambda t: t.float()), {}),
        (without("means"), {}),
        (without("probabilities"), {}),
        ({**GOOD, "profile/other": torch.zeros(1)}, {}),
        (GOOD, {"recorded": ["en"]}),
        (GOOD, {"recorded": ["en", "en"]}),
        (GOOD, {"recorded": ["en", "!"]}),
        (GOOD, {"recorded": "en"}),
        (GOOD, {"recorded": None}),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, tensors, header):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {**SETS, **GOOD}, {**HEADER, "format": 2, "recorded": ["en", "fr"]})
    assert LanguageNeurons.load(path).profile.scores.tolist() == [0.1, torch.inf, 0.3]
    write_tensors(path, {**SETS, **tensors}, {**HEADER, "format": 2, "recorded": ["en", "fr"], **header})
    with pytest.raises(FileError, match="damaged"):
        LanguageNeurons.load(path)


def test_it_takes_no_room_for_neurons_that_were_not_selected(tmp_path):
    stats = made_stats(space=type(DENSE).dense(10, 5000), sums=True)
    flat = torch.arange(0, 50_000, 500)
    neurons = dataclasses.replace(
        neurons_of({"en": flat.tolist()}, Profile.of(stats, flat, torch.rand(50_000)), stats.space), manifest={}
    )
    most = 100 * 8 * (1 + 3 * 3 + 1)  # indices, three tables of three languages, scores
    assert neurons.save(tmp_path / "a.safetensors").stat().st_size < most + 2500
