"""Sets of neurons: the algebra of sets, our file, and the published format."""

from __future__ import annotations

import os
import pickle
import tracemalloc
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.errors import FileError, LapeError, MismatchError, OptionError, TextError
from lape.values.neurons import LanguageNeurons, NeuronSet, jaccard
from lape.values.profile import Profile
from lape.values.space import NeuronSpace
from support.made import EXPERTS, made_stats

LAW = settings(deadline=None, max_examples=50)
SPACE = NeuronSpace.dense(3, 7)
INDICES = st.sets(st.integers(0, len(SPACE) - 1), max_size=12)
SETS = st.dictionaries(st.sampled_from(["en", "fr", "zh-Hant", "fr-x-shuffled"]), INDICES, min_size=1)


def of(indices, space: NeuronSpace = SPACE) -> NeuronSet:
    return NeuronSet(space, torch.tensor(list(indices), dtype=torch.int64))


def neurons_of(sets: dict[str, set[int]], **more) -> LanguageNeurons:
    return LanguageNeurons(SPACE, {language: of(indices) for language, indices in sets.items()}, **more)


# A mapping


def test_a_missing_language_is_missing_as_from_any_mapping():
    neurons = neurons_of({"en": {1, 2}, "fr": {2, 3}})
    assert neurons.get("de") is None
    assert neurons.get("no tag at all", "default") == "default"
    assert ("de" in neurons, "fra_Latn" in neurons) == (False, True)
    with pytest.raises(KeyError) as missing:
        neurons["de"]
    assert isinstance(missing.value, TextError)
    assert str(missing.value) == "There are no neurons of de. Languages here: en, fr."
    assert dict(neurons) == dict(zip(neurons.keys(), neurons.values(), strict=True)) == dict(neurons.items())
    assert neurons == neurons_of({"en": {1, 2}, "fr": {2, 3}})
    assert neurons != neurons_of({"en": {1, 2}})
    assert neurons != dict(neurons), "a plain mapping says less"


# Algebra


@LAW
@given(INDICES, INDICES)
def test_union_intersection_and_difference_are_those_of_sets(a, b):
    assert set(of(a) | of(b)) == a | b
    assert set(of(a) & of(b)) == a & b
    assert set(of(a) - of(b)) == a - b


@LAW
@given(INDICES, INDICES, INDICES)
def test_the_laws_of_set_algebra_hold(a, b, c):
    x, y, z = of(a), of(b), of(c)
    assert x | y == y | x
    assert x & y == y & x
    assert (x | y) | z == x | (y | z)
    assert (x & y) & z == x & (y & z)
    assert x & (y | z) == (x & y) | (x & z)
    assert x - (y | z) == (x - y) - z
    assert (x - y) | (x & y) == x


@LAW
@given(st.lists(st.integers(0, len(SPACE) - 1)))
def test_a_set_is_sorted_and_holds_each_neuron_once(indices):
    made = of(indices)
    assert list(made) == sorted(set(indices))
    assert len(made) == len(set(indices))
    assert all((j in made) == (j in indices) for j in range(len(SPACE)))


@LAW
@given(INDICES, INDICES)
def test_sets_are_equal_and_hash_alike_when_their_neurons_are_the_same(a, b):
    assert (of(a) == of(b)) == (a == b)
    assert hash(of(a)) == hash(of(sorted(a, reverse=True)))


@LAW
@given(INDICES, INDICES)
def test_jaccard_is_shared_by_either(a, b):
    assert jaccard(of(a), of(b)) == (len(a & b) / len(a | b) if a | b else 0)


@LAW
@given(INDICES)
def test_by_layer_gives_the_indices_within_each_layer(indices):
    by_hand: dict[int, list[int]] = {}
    for j in sorted(indices):
        by_hand.setdefault(j // 7, []).append(j % 7)
    assert of(indices).by_layer() == by_hand
    assert of(indices).addresses().rows() == [(layer, None, i) for layer, some in by_hand.items() for i in some]


@LAW
@given(SETS)
def test_a_language_is_in_under_any_of_its_codes_and_others_are_not(sets):
    neurons = neurons_of(sets)
    assert [language in neurons for language in ("en", "eng_Latn", "fra_Latn", "zho_Hant")] == [
        "en" in sets,
        "en" in sets,
        "fr" in sets,
        "zh-Hant" in sets,
    ]
    assert not any(other in neurons for other in ("de", "no language", "", 3))


@LAW
@given(st.sampled_from([SPACE, EXPERTS]), st.data())
def test_in_layers_are_those_whose_address_is_there(space, data):
    indices = data.draw(st.sets(st.integers(0, len(space) - 1)))
    layers = data.draw(st.sets(st.sampled_from(space.layers)))
    layer_of = [stretch.layer for stretch in space for _ in range(stretch.width)]
    assert set(of(indices, space).in_layers(layers)) == {j for j in indices if layer_of[j] in layers}


def test_a_layer_without_neurons_is_refused_naming_those_with():
    with pytest.raises(OptionError, match=r"no layer 3.*\[0, 1, 2\]"):
        of([1]).in_layers([0, 3])


@pytest.mark.parametrize("index", [-1, len(SPACE)])
def test_a_neuron_outside_the_space_is_refused(index):
    with pytest.raises(OptionError, match="expected 0 to 20"):
        of([0, index])


@pytest.mark.parametrize("operation", ["__or__", "__and__", "__sub__"])
def test_sets_of_different_models_do_not_mix(operation):
    with pytest.raises(MismatchError, match=r"21 neurons.*15 neurons"):
        getattr(of([1]), operation)(of([1], NeuronSpace.dense(3, 5)))


def test_equal_indices_in_different_spaces_are_not_equal_sets():
    assert of([1]) != of([1], NeuronSpace.dense(7, 3))


# Languages


@LAW
@given(SETS)
def test_a_neuron_is_a_languages_only_where_no_other_has_it(sets):
    neurons = neurons_of(sets)
    for language in sets:
        others = set().union(*(indices for other, indices in sets.items() if other != language))
        assert set(neurons.only(language)) == sets[language] - others


@LAW
@given(SETS)
def test_the_union_holds_every_neuron_once(sets):
    assert set(neurons_of(sets).union) == set().union(*sets.values())


@LAW
@given(SETS)
def test_overlap_has_one_row_for_every_ordered_pair(sets):
    rows = neurons_of(sets).overlap().rows_by_key(["a", "b"], named=True, unique=True)
    assert set(rows) == {(a, b) for a in sets for b in sets}
    for (a, b), row in rows.items():
        shared, either = len(sets[a] & sets[b]), len(sets[a] | sets[b])
        assert row["shared"] == shared
        assert row["jaccard"] == (shared / either if either else 0)


@LAW
@given(SETS)
def test_by_layer_counts_every_language_in_every_layer(sets):
    rows = neurons_of(sets).by_layer().rows()
    assert rows == [(k, layer, sum(j // 7 == layer for j in sets[k])) for k in sets for layer in range(3)]


def test_a_language_answers_to_any_of_its_codes():
    neurons = neurons_of({"fr": {1}, "zh-Hant": {2}})
    assert set(neurons["fra_Latn"]) == {1}
    assert set(neurons["zho_Hant"]) == {2}
    assert set(neurons.only("fra_Latn")) == {1}


def test_an_unknown_language_is_refused_naming_those_there_are():
    with pytest.raises(TextError, match=r"de.*fr, en"):
        neurons_of({"fr": {1}, "en": set()})["de"]


def test_neurons_are_a_mapping_in_the_order_given():
    neurons = neurons_of({"zh": {1}, "en": {2, 3}})
    assert list(neurons) == neurons.languages == ["zh", "en"]
    assert {language: len(found) for language, found in neurons.items()} == {"zh": 1, "en": 2}


def test_neurons_are_equal_when_all_they_hold_is():
    def made(score: float) -> LanguageNeurons:
        profile = Profile.of(made_stats(space=SPACE), torch.tensor([1, 2]), torch.full((21,), score))
        return neurons_of({"fr": {1, 2}}, profile=profile, stability={"fr": torch.ones(2)})

    assert made(0.5) == made(0.5)
    assert made(0.5) != made(0.6)


# Our file


@LAW
@given(SETS)
def test_loading_what_was_saved_is_identity(tmp_path_factory, sets):
    neurons = neurons_of(
        sets,
        stability={language: torch.rand(len(indices), dtype=torch.float64) for language, indices in sets.items()},
        method="lape",
        options={"rate": 0.01, "per_language": None, "bars": {"fr": 0.1 + 0.2}},
        manifest=made_stats().manifest,
        fingerprints=torch.tensor([-(2**62), 0, 2**62]),
        notes=("fr: lowered", "日本語"),
    )
    loaded = LanguageNeurons.load(neurons.save(tmp_path_factory.mktemp("neurons") / "a.safetensors"))
    assert dict(loaded) == dict(neurons)
    assert list(loaded) == list(neurons)
    assert torch.equal(loaded.fingerprints, neurons.fingerprints)
    assert all(torch.equal(loaded.stability[language], neurons.stability[language]) for language in sets)
    for name in ("space", "method", "options", "manifest", "notes"):
        assert getattr(loaded, name) == getattr(neurons, name)


def test_what_was_not_measured_stays_so(tmp_path):
    loaded = LanguageNeurons.load(neurons_of({"fr": {1}}).save(tmp_path / "a.safetensors"))
    assert loaded.profile is None
    assert loaded.scores is None
    assert loaded.fingerprints is None
    assert loaded.stability == {}


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_two_languages_may_share_one_set(tmp_path, name):
    shared = of({1, 8})
    path = LanguageNeurons(SPACE, {"no": shared, "da": shared}).save(tmp_path / name)
    loaded = LanguageNeurons.load(path, languages=["no", "da"], width=7)
    assert loaded["no"] == loaded["da"] == shared


def test_a_runs_folder_is_opened_by_its_name(tmp_path):
    neurons_of({"fr": {1}}).save(tmp_path / "run" / "neurons.safetensors")
    assert set(LanguageNeurons.load(tmp_path / "run")["fr"]) == {1}


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_an_existing_file_is_refused_and_kept(tmp_path, name):
    path = neurons_of({"fr": {1}}).save(tmp_path / name)
    before = path.read_bytes()
    with pytest.raises(FileError, match="overwrite=True"):
        neurons_of({"fr": {2}}).save(path)
    assert path.read_bytes() == before
    assert neurons_of({"fr": {2}}).save(path, overwrite=True).read_bytes() != before


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_a_truncated_or_missing_file_is_refused_naming_it(tmp_path, name):
    path = neurons_of({"fr": {1, 2, 3}}).save(tmp_path / name)
    data = path.read_bytes()
    for keep in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:keep])
        with pytest.raises(FileError, match=name):
            LanguageNeurons.load(path, languages=["fr"], width=7)
    path.unlink()
    with pytest.raises(FileError, match=name):
        LanguageNeurons.load(path, languages=["fr"], width=7)


def test_statistics_are_no_neurons(tmp_path):
    path = made_stats().save(tmp_path / "a.safetensors")
    with pytest.raises(FileError, match=r"activation statistics.*language neurons"):
        LanguageNeurons.load(path)


# The published format


@LAW
@given(SETS)
def test_the_published_format_gives_back_the_sets_empty_ones_too(tmp_path_factory, sets):
    neurons = neurons_of(sets)
    path = neurons.save(tmp_path_factory.mktemp("published") / "a.pth")
    assert dict(LanguageNeurons.load(path, languages=list(sets), width=7)) == dict(neurons)


@LAW
@given(SETS)
def test_the_published_format_is_a_list_of_layers_of_sorted_indices(tmp_path_factory, sets):
    path = neurons_of(sets).save(tmp_path_factory.mktemp("published") / "a.pth")
    data = torch.load(path, weights_only=True)
    assert all(layer.dtype == torch.int64 for layers in data for layer in layers)
    by_hand = [[sorted(j % 7 for j in indices if j // 7 == layer) for layer in range(3)] for indices in sets.values()]
    assert [[layer.tolist() for layer in layers] for layers in data] == by_hand


def published(path, data):
    torch.save(data, path)
    return path


DATA = [[torch.tensor([6, 2]), torch.tensor([], dtype=torch.int64)], [torch.tensor([0]), torch.tensor([1])]]


def test_a_file_made_elsewhere_is_read(tmp_path):
    neurons = LanguageNeurons.load(published(tmp_path / "a.pth", DATA), languages=["en", "zho_Hant"], width=7)
    assert list(neurons) == ["en", "zh-Hant"]
    assert neurons["en"].by_layer() == {0: [2, 6]}
    assert neurons["zh-Hant"].by_layer() == {0: [0], 1: [1]}


@pytest.mark.parametrize("name", ["llama-1", "llama-3.1-5", "mask.pt", "mask"])
def test_a_mask_is_known_by_what_it_holds_whatever_it_is_called(tmp_path, name):
    neurons = LanguageNeurons.load(published(tmp_path / name, DATA), languages=["en", "fr"], width=7)
    assert {k: one.by_layer() for k, one in neurons.items()} == {"en": {0: [2, 6]}, "fr": {0: [0], 1: [1]}}
    assert neurons.options == {"file": name}


@pytest.mark.parametrize("old", [False, True], ids=["zip", "pickle"])
@pytest.mark.parametrize("kind", [list, tuple], ids=["lists", "tuples"])
def test_a_mask_may_say_which_languages_it_holds(tmp_path, kind, old):
    data = {"eng_Latn": kind(DATA[0]), "fr": kind(DATA[1])}
    torch.save(data, tmp_path / "mask", _use_new_zipfile_serialization=not old)
    neurons = LanguageNeurons.load(tmp_path / "mask", width=7)
    assert {k: one.by_layer() for k, one in neurons.items()} == {"en": {0: [2, 6]}, "fr": {0: [0], 1: [1]}}
    assert list(LanguageNeurons.load(tmp_path / "mask", languages=["de", "zh"], width=7)) == ["de", "zh"]
    with pytest.raises(OptionError, match=r"2 languages × 2 layers, without width.*Give width="):
        LanguageNeurons.load(tmp_path / "mask")


@pytest.mark.parametrize(
    "given_", [{}, {"languages": ["en", "zh"]}, {"width": 7}], ids=["nothing", "no width", "no languages"]
)
def test_languages_and_width_are_asked_for_saying_how_many(tmp_path, given_):
    with pytest.raises(OptionError, match=r"2 languages × 2 layers"):
        LanguageNeurons.load(published(tmp_path / "a.pth", DATA), **given_)


@pytest.mark.parametrize(
    ("languages", "width"),
    [(["en"], 7), (["en", "fr", "zh"], 7), (["en", "en"], 7), (["fr", "fra_Latn"], 7), (["en", "zh"], 6)],
)
def test_names_or_a_width_that_do_not_fit_are_refused(tmp_path, languages, width):
    with pytest.raises(OptionError, match=r"a\.pth|twice"):
        LanguageNeurons.load(published(tmp_path / "a.pth", DATA), languages=languages, width=width)


@pytest.mark.parametrize(
    "data",
    [
        {"en": 1},
        [],
        [[]],
        [1, 2],
        [[1, 2]],
        torch.ones(3),
        [torch.ones(3)],
        [[torch.tensor([0])], []],
        [[torch.tensor([-1])]],
        [[torch.tensor([0.5])]],
        [[torch.ones(3, dtype=torch.int64, device="meta")]],
    ],
    ids=repr,
)
def test_what_is_no_list_of_layers_of_indices_is_refused(tmp_path, data):
    languages = ["en", "zh"][: max(1, len(data))] if isinstance(data, list) else ["en"]
    with pytest.raises(LapeError, match=r"a\.pth"):
        LanguageNeurons.load(published(tmp_path / "a.pth", data), languages=languages, width=7)


def _expanded():
    return [[torch.zeros(1, dtype=torch.int64).expand(10**9)] * 3] * 3


def _lists_in_lists():
    return [[torch.zeros(1, dtype=torch.int64)] * 30_000] * 30_000


def _views_of_one():
    numbers = torch.arange(1000)
    return [[numbers[k:] for k in range(900)]]


@pytest.mark.parametrize("make", [_expanded, _lists_in_lists, _views_of_one])
def test_more_neurons_than_the_file_has_room_for_take_no_memory(tmp_path, make):
    path = published(tmp_path / "a.pth", make())
    tracemalloc.start()
    with pytest.raises(FileError, match="has room for"):
        LanguageNeurons.load(path, languages=["en", "fr", "zh"], width=10**6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_a_published_file_that_was_packed_again_is_not_unpacked(tmp_path):
    path = published(tmp_path / "plain.pth", [[torch.zeros(10**6, dtype=torch.int64)]])
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(FileError, match="more than its own size"):
        LanguageNeurons.load(tmp_path / "a.pth", languages=["en"], width=10**6)


class Code:
    """An object whose unpickling runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_file_that_holds_code_is_refused_and_the_code_not_run(tmp_path, writer):
    path, trace = tmp_path / "a.pth", tmp_path / "trace"
    data = [[torch.tensor([1]), Code(f"touch {trace}")]]
    if writer == "torch":
        torch.save(data, path)
    else:
        path.write_bytes(pickle.dumps(data))
    with pytest.raises(FileError, match=r"a\.pth.*never run"):
        LanguageNeurons.load(path, languages=["en"], width=7)
    assert not trace.exists()


def test_experts_do_not_fit_the_published_format(tmp_path):
    neurons = LanguageNeurons(EXPERTS, {"fr": of([1, 6], EXPERTS)})
    with pytest.raises(OptionError, match="safetensors"):
        neurons.save(tmp_path / "a.pth")
    assert list(tmp_path.iterdir()) == []


def test_two_mlps_of_a_layer_do_not_fit_the_published_format(tmp_path):
    space = NeuronSpace.of([(0, None, 5), (0, None, 4)])
    with pytest.raises(OptionError, match="several"):
        LanguageNeurons(space, {"fr": of([1, 6], space)}).save(tmp_path / "a.pth")
    assert list(tmp_path.iterdir()) == []


def test_the_published_format_gives_a_layer_without_neurons_an_empty_list(tmp_path):
    space = NeuronSpace.of([(1, None, 5), (3, None, 4)])
    path = LanguageNeurons(space, {"fr": of([1, 6], space)}).save(tmp_path / "a.pth")
    assert [part.tolist() for part in torch.load(path)[0]] == [[], [1], [], [1]]
