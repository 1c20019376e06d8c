"""`ActivationStats`: counts merge exactly, files give back what was saved, other models are refused."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lape.errors import FileError, LapeError, LapeWarning, MismatchError, OptionError, TextError
from lape.store.tensors import write_tensors
from lape.values.space import NeuronSpace
from lape.values.stats import KIND, ActivationStats, LanguageStats, merge
from support.made import DENSE, EXPERTS, made_stats, same_tensors

LAW = settings(deadline=None, max_examples=25)
SEED = st.integers(0, 2**32)
SPACE = st.sampled_from([DENSE, EXPERTS])


def with_manifest(stats: ActivationStats, **changes) -> ActivationStats:
    return dataclasses.replace(stats, manifest={**stats.manifest, **changes})


# Merging


@LAW
@given(SEED, SPACE)
def test_merging_counts_is_commutative(seed, space):
    a, b = made_stats(seed, space=space), made_stats(seed + 1, space=space)
    assert same_tensors(a.merge(b), b.merge(a))


@LAW
@given(SEED, SPACE)
def test_merging_counts_is_associative(seed, space):
    a, b, c = (made_stats(seed + k, space=space) for k in range(3))
    assert same_tensors(a.merge(b).merge(c), a.merge(b.merge(c)))


@LAW
@given(SEED, st.permutations(range(5)))
def test_any_order_of_shards_gives_the_same_bits(seed, order):
    shards = [made_stats(seed + k) for k in range(5)]
    assert same_tensors(merge(shards), merge(shards[k] for k in order))


@LAW
@given(SEED, SPACE)
def test_merged_counts_are_the_sums_fold_by_fold(seed, space):
    a, b = made_stats(seed, space=space), made_stats(seed + 1, space=space)
    merged = a.merge(b)
    for language in a.languages:
        for name in ("tokens", "routed", "fires"):
            by_hand = [x + y for x, y in zip(a[language].tensors[name], b[language].tensors[name], strict=True)]
            assert merged[language].tensors[name].dtype == torch.int64
            assert torch.equal(merged[language].tensors[name], torch.stack(by_hand))


@LAW
@given(SEED, st.permutations(range(4)))
def test_merged_sums_agree_to_1e_10_in_any_order(seed, order):
    shards = [made_stats(seed + k, sums=True) for k in range(4)]
    a, b = merge(shards), merge(shards[k] for k in order)
    for language in a.languages:
        for name in ("sum", "square", "positive", "residual"):
            x, y = a[language].sums(name), b[language].sums(name)
            size = torch.stack([shard[language].sums(name).abs() for shard in shards]).sum(0)
            assert ((x - y).abs() <= 1e-10 * size).all()


@LAW
@given(SEED)
def test_merging_languages_recorded_apart_gives_those_recorded_together(seed):
    together = made_stats(seed, ("en", "fr", "zh"))
    corpora = together.manifest["corpus"]
    apart = [
        dataclasses.replace(
            together, by_language={k: together[k]}, manifest={**together.manifest, "corpus": {k: corpora[k]}}
        )
        for k in together.languages
    ]
    assert same_tensors(merge(apart), together)
    assert merge(apart).languages == ["en", "fr", "zh"]
    assert merge(apart).manifest == together.manifest


def test_the_same_text_is_not_added_twice():
    a, b = made_stats(1), made_stats(2)
    with pytest.raises(MismatchError, match=r"en, text en1.*twice"):
        a.merge(b).merge(a)


def test_counts_beyond_32_bits_are_exact():
    big = 2**40 + 1
    one = ActivationStats.from_counts(["en", "fr"], [big, big], torch.full((2, 1, 3), big))
    assert merge([one, one, one])["en"].fires.tolist() == [[3 * big] * 3]


def test_merging_keeps_every_fingerprint():
    a, b = made_stats(1), made_stats(2)
    expected = sorted(a["fr"].fingerprints.tolist() + b["fr"].fingerprints.tolist())
    assert a.merge(b)["fr"].fingerprints.tolist() == expected


def test_merging_lists_the_corpora_whatever_the_order():
    a, b, c = made_stats(1), made_stats(2), made_stats(3)
    assert [corpus["hash"] for corpus in a.merge(b).manifest["corpus"]["fr"]] == ["fr1", "fr2"]
    assert merge([a, b, c]).manifest == merge([c, b, a]).manifest


def test_merging_changes_neither_part():
    a, b = made_stats(1), made_stats(2)
    a.merge(b)
    assert same_tensors(a, made_stats(1))
    assert a.manifest == made_stats(1).manifest


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"model": {"id": "made", "checksum": "m2"}}, ("m1", "m2")),
        ({"tokenizer": {"hash": "t2"}}, ("t1", "t2")),
        ({"counting": {"bos": "never"}}, ("auto", "never")),
    ],
)
def test_merging_other_models_or_rules_is_refused_naming_both(changes, values):
    with pytest.raises(MismatchError) as error:
        made_stats(1).merge(with_manifest(made_stats(2), **changes))
    assert all(value in str(error.value) for value in values)


def test_merging_other_neurons_is_refused_naming_both():
    with pytest.raises(MismatchError, match=r"20 neurons.*26 neurons"):
        made_stats(1).merge(made_stats(2, space=NeuronSpace.dense(2, 13)))


def test_merging_other_folds_is_refused():
    with pytest.raises(MismatchError, match=r"8 and 4 folds"):
        made_stats(1).merge(made_stats(2, folds=4))


def test_merging_with_sums_and_without_is_refused():
    with pytest.raises(MismatchError, match="square"):
        made_stats(1, sums=True).merge(made_stats(2))


def test_merging_nothing_is_refused():
    with pytest.raises(OptionError, match="nothing to merge"):
        merge([])


# Probabilities


@LAW
@given(SEED, SPACE, st.sampled_from([None, [0], [1, 4, 6]]), st.sampled_from(["tokens", "routed"]))
def test_a_probability_is_the_share_of_tokens_on_which_a_neuron_fires(seed, space, folds, denominator):
    stats = made_stats(seed, space=space)
    found = stats.probabilities(denominator, folds)
    chosen = range(8) if folds is None else folds
    for k, language in enumerate(stats.languages):
        one = stats[language]
        for s, stretch in enumerate(space):
            counted = sum(int(one.tokens[f] if denominator == "tokens" else one.routed[f, s]) for f in chosen)
            for j in range(stretch.start, stretch.stop):
                fired = sum(int(one.fires[f, j]) for f in chosen)
                assert found[k, j].item() == (fired / counted if counted else 0)


def test_an_expert_no_token_reached_has_probability_0():
    space = NeuronSpace.of([(0, 0, 2), (0, 1, 2)])
    counts = {"tokens": [10], "routed": [[10, 0]], "fires": [[5, 0, 0, 0]]}
    one = LanguageStats({name: torch.tensor(value) for name, value in counts.items()})
    stats = ActivationStats(space, {"fr": one}, {})
    assert stats.probabilities("routed").tolist() == [[0.5, 0, 0, 0]]


@pytest.mark.parametrize("denominator", ["route", "", None])
def test_an_unknown_denominator_is_refused(denominator):
    stats = made_stats(sums=True)
    for wrong in (stats.probabilities, partial(stats.probability, "fr"), partial(stats.positive_mean, "fr")):
        with pytest.raises(OptionError, match="Expected tokens or routed"):
            wrong(denominator)


@pytest.mark.parametrize("fold", [-1, 8])
def test_a_fold_that_there_is_not_is_refused(fold):
    stats = made_stats(sums=True)
    assert stats.folds == 8
    for wrong in (stats.probabilities, partial(stats.probability, "fr"), stats.routed):
        with pytest.raises(OptionError, match=f"no fold {fold}"):
            wrong(folds=[0, fold])


def test_means_divide_by_the_tokens_that_reached_the_neuron():
    stats = made_stats(space=EXPERTS, sums=True)
    for name, found in (("sum", stats.mean("fr")), ("square", stats.energy("fr"))):
        for s, stretch in enumerate(EXPERTS):
            reached = int(stats["fr"].routed[:, s].sum())
            by_hand = [stats["fr"].sums(name)[j].item() / reached for j in range(stretch.start, stretch.stop)]
            assert found[stretch.start : stretch.stop].tolist() == by_hand


@LAW
@given(SEED, SPACE)
def test_a_firing_mean_divides_by_the_tokens_on_which_the_neuron_fires(seed, space):
    stats = made_stats(seed, space=space, sums=True)
    one, found = stats["fr"], stats.firing_mean("fra_Latn")
    for j in range(len(space)):
        fired = int(one.fires[:, j].sum())
        if fired:
            assert found[j].item() == one.sums("positive")[j].item() / fired


def test_a_neuron_that_never_fires_has_a_firing_mean_of_0():
    tensors = {name: torch.zeros(1, 2, dtype=torch.int64) for name in ("routed", "fires")}
    one = LanguageStats({"tokens": torch.tensor([9]), **tensors, "positive": torch.zeros(2, dtype=torch.float64)})
    space = NeuronSpace.dense(2, 1)
    assert ActivationStats(space, {"fr": one}, {}).firing_mean("fr").tolist() == [0.0, 0.0]


@LAW
@given(SEED, SPACE)
def test_the_others_mean_counts_every_other_language_alike(seed, space):
    stats = made_stats(seed, ("en", "fr", "zh", "de"), space, sums=True)
    by_hand = (stats.mean("en") + stats.mean("zh") + stats.mean("de")) / 3
    torch.testing.assert_close(stats.others_mean("fra_Latn"), by_hand, rtol=1e-12, atol=1e-12)


def test_a_language_alone_has_no_others():
    with pytest.raises(OptionError, match=r"Only fr was recorded.*two or more"):
        made_stats(languages=("fr",), sums=True).others_mean("fr")


@pytest.mark.parametrize("ask", ["firing_mean", "others_mean"])
def test_means_of_a_language_not_recorded_are_refused_naming_those_that_were(ask):
    with pytest.raises(TextError, match=r"de.*en, fr, zh"):
        getattr(made_stats(sums=True), ask)("de")


# Counts made elsewhere


def test_counts_made_elsewhere_are_one_fold_of_a_dense_model():
    fires = torch.arange(12).reshape(2, 2, 3)
    stats = ActivationStats.from_counts(["en", "fra_Latn"], [20, 40], fires)
    assert stats.languages == ["en", "fr"]
    assert stats.folds == 1
    assert stats.space == NeuronSpace.dense(2, 3)
    assert stats.probabilities()[1].tolist() == [j / 40 for j in range(6, 12)]
    assert stats["fr"].routed.tolist() == [[40, 40]]


def test_what_needs_sums_says_that_there_are_none():
    stats = ActivationStats.from_counts(["en", "fr"], [5, 5], torch.ones(2, 1, 3, dtype=torch.int64))
    for ask in (stats.mean, stats.energy, stats.firing_mean, stats.others_mean):
        with pytest.raises(OptionError, match="lape record"):
            ask("fr")


@pytest.mark.parametrize(
    ("languages", "tokens", "fires"),
    [
        (["en"], [5, 5], torch.ones(2, 1, 3)),
        (["en", "fr"], [5], torch.ones(2, 1, 3)),
        (["en", "fr"], [5, 5], torch.ones(2, 3)),
        (["en", "fr"], [5, 5], torch.full((2, 1, 3), -1)),
        (["en", "fr"], [5, -5], torch.ones(2, 1, 3)),
        (["en", "fr"], [5, 5.5], torch.ones(2, 1, 3)),
        (["en", "fr"], [5, float("nan")], torch.ones(2, 1, 3)),
        (["en", "fr"], [5, float("inf")], torch.ones(2, 1, 3)),
        (["en", "en"], [5, 5], torch.ones(2, 1, 3)),
        (["fr", "fra_Latn"], [5, 5], torch.ones(2, 1, 3)),
    ],
)
def test_counts_that_do_not_fit_are_refused(languages, tokens, fires):
    with pytest.raises(OptionError):
        ActivationStats.from_counts(languages, tokens, fires.long())


def test_counts_that_cannot_be_are_refused_when_made_as_when_read():
    with pytest.raises(OptionError, match="fr: no token was counted"):
        ActivationStats.from_counts(["en", "fr"], [5, 0], torch.zeros(2, 1, 3, dtype=torch.int64))
    with pytest.raises(OptionError, match="fr: fires holds values below 0"):
        ActivationStats.from_counts(["en", "fr"], [5, 5], torch.tensor([[[6, 1]], [[1, -1]]]))
    with pytest.raises(OptionError, match=r"en: tokens is nan\. Expected a whole number"):
        ActivationStats.from_counts(["en"], [float("nan")], torch.ones(1, 1, 3, dtype=torch.int64))


def test_fires_above_the_tokens_are_clipped_counted_and_told_once():
    fires = torch.tensor([[[4, 5, 6], [0, 5, 5]], [[9, 10, 10], [11, 99, 10**12]]])
    with pytest.warns(LapeWarning) as told:
        stats = ActivationStats.from_counts(["en", "fra_Latn"], [5, 10], fires, {"model": None})
    assert len(told) == 1
    assert str(told[0].message).startswith("4 cells of 12 in fires count more tokens than there are (en 1 · fr 3).")
    assert told[0].filename == __file__
    assert stats["en"].fires.tolist() == [[4, 5, 5, 0, 5, 5]]
    assert stats["fr"].fires.tolist() == [[9, 10, 10, 10, 10, 10]]
    assert stats.manifest == {"model": None, "clipped": {"en": 1, "fr": 3}}
    assert " clipped   en 1 cell, fr 3 cells" in repr(stats)
    assert fires.max() == 10**12, "what was given is left alone"


def test_what_was_clipped_is_kept_in_files_and_adds_up(tmp_path):
    with pytest.warns(LapeWarning, match="1 cell of 2"):
        a = ActivationStats.from_counts(["en"], [5], torch.tensor([[[9, 1]]]))
    with pytest.warns(LapeWarning, match="1 cell of 4"):
        b = ActivationStats.from_counts(["en", "fr"], [5, 5], torch.tensor([[[2, 1]], [[0, 8]]]))
    plain = ActivationStats.from_counts(["zh"], [5], torch.tensor([[[2, 1]]]))
    for whole in (merge([a, b, plain]), merge([plain, b, a, a])):
        loaded = ActivationStats.load(whole.save(tmp_path / "whole.safetensors", overwrite=True))
        assert loaded.manifest["clipped"] == {"en": 1 if whole.languages[0] == "en" else 2, "fr": 1}


@pytest.mark.filterwarnings("error::lape.errors.LapeWarning")
def test_counts_that_fit_are_not_warned_of():
    stats = ActivationStats.from_counts(["en"], [5], torch.tensor([[[0, 5]]]))
    assert stats.manifest == {}


def test_shares_instead_of_counts_are_refused():
    with pytest.raises(OptionError, match="whole numbers"):
        ActivationStats.from_counts(["en", "fr"], [5, 5], torch.rand(2, 1, 3))


# Asking


def test_a_language_answers_to_any_of_its_codes():
    stats = made_stats()
    assert stats["fra_Latn"] is stats["fr"]


def test_a_language_not_recorded_is_refused_naming_those_that_were():
    with pytest.raises(TextError, match=r"de.*en, fr, zh"):
        made_stats()["de"]


# Files


@LAW
@given(SEED, SPACE, st.booleans())
def test_loading_what_was_saved_is_identity(tmp_path_factory, seed, space, sums):
    stats = made_stats(seed, space=space, sums=sums)
    loaded = ActivationStats.load(stats.save(tmp_path_factory.mktemp("stats") / "a.safetensors"))
    assert same_tensors(loaded, stats)
    assert (loaded.manifest, loaded.languages, loaded.folds) == (stats.manifest, stats.languages, stats.folds)


def test_saving_what_was_loaded_gives_the_same_bytes(tmp_path):
    first = made_stats(sums=True).save(tmp_path / "a.safetensors")
    second = ActivationStats.load(first).save(tmp_path / "b.safetensors")
    assert first.read_bytes() == second.read_bytes()


def test_merging_files_is_merging_what_they_hold(tmp_path):
    parts = [made_stats(k, sums=True) for k in range(3)]
    loaded = [ActivationStats.load(part.save(tmp_path / f"{k}.safetensors")) for k, part in enumerate(parts)]
    assert same_tensors(merge(loaded), merge(parts))


def test_counts_made_elsewhere_can_be_saved(tmp_path):
    stats = ActivationStats.from_counts(["en", "fr"], [9, 9], torch.arange(12).reshape(2, 2, 3) % 9)
    assert same_tensors(ActivationStats.load(stats.save(tmp_path / "a.safetensors")), stats)


def test_a_file_can_be_replaced_by_what_it_holds(tmp_path):
    path = made_stats().save(tmp_path / "a.safetensors")
    ActivationStats.load(path).merge(made_stats(1)).save(path, overwrite=True)
    assert same_tensors(ActivationStats.load(path), made_stats().merge(made_stats(1)))


def test_a_runs_folder_is_opened_by_its_name(tmp_path):
    made_stats().save(tmp_path / "run" / "stats.safetensors")
    assert same_tensors(ActivationStats.load(tmp_path / "run"), made_stats())


def test_an_existing_file_is_refused_and_kept(tmp_path):
    path = made_stats(1).save(tmp_path / "a.safetensors")
    with pytest.raises(FileError, match="overwrite=True"):
        made_stats(2).save(path)
    assert same_tensors(ActivationStats.load(path), made_stats(1))


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.02, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_refused_naming_it(tmp_path, keep):
    path = made_stats(sums=True).save(tmp_path / "a.safetensors")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(FileError, match=r"a\.safetensors"):
        ActivationStats.load(path)


def test_a_damaged_header_is_an_error_of_ours_wherever_it_is_hit(tmp_path):
    path = made_stats(folds=2).save(tmp_path / "a.safetensors")
    data = path.read_bytes()
    for at in range(0, 8 + int.from_bytes(data[:8], "little"), 9):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        try:
            stats = ActivationStats.load(path)
            stats.merge(stats).probabilities()
        except LapeError:
            continue
        except Exception as error:
            pytest.fail(f"byte {at} ({data[max(0, at - 12) : at + 12]!r}): {error!r}")


@pytest.mark.parametrize("name", ["languages", "space", "manifest"])
def test_a_header_that_lacks_something_is_refused_naming_the_file(tmp_path, name):
    stats = made_stats()
    tensors = {f"{k}/{n}": t for k in stats.languages for n, t in stats[k].tensors.items()}
    header = {"kind": KIND, "languages": stats.languages, "space": stats.space.to_json(), "manifest": {}}
    del header[name]
    write_tensors(tmp_path / "a.safetensors", tensors, header)
    with pytest.raises(FileError, match=r"a\.safetensors"):
        ActivationStats.load(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["tokens", "routed", "fires"])
def test_a_file_that_lacks_counts_is_refused_naming_them(tmp_path, name):
    stats = made_stats()
    tensors = {f"{k}/{n}": t for k in stats.languages for n, t in stats[k].tensors.items() if (k, n) != ("fr", name)}
    header = {"kind": KIND, "languages": stats.languages, "space": stats.space.to_json(), "manifest": {}}
    write_tensors(tmp_path / "a.safetensors", tensors, header)
    with pytest.raises(FileError, match=f"fr has no {name}"):
        ActivationStats.load(tmp_path / "a.safetensors")


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = made_stats().save(tmp_path / "a.safetensors")
    save_file(load_file(path), path)
    with pytest.raises(FileError, match=KIND):
        ActivationStats.load(path)


@pytest.mark.parametrize("name", ["missing.safetensors", "."])
def test_where_there_is_no_file_it_says_so(tmp_path, name):
    with pytest.raises(FileError, match="There is no file"):
        ActivationStats.load(tmp_path / name)
