"""Neurons chosen by how far tuning moved them: planted changes, LAPE's own rule, what is kept, and the control by seeds."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import runpy
from pathlib import Path

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape import identify, record
from lape.cli import run
from lape.data.texts import Documents
from lape.detect.lape import LapeOptions, select
from lape.detect.variation import VariationOptions, variation
from lape.errors import FileError, MismatchError, OptionError, TextError
from lape.measure.correlation import spearman
from lape.measure.seeds import compare_seeds
from lape.options import keywords_of
from lape.recording.weight_change import weight_changes
from lape.values.neurons import LanguageNeurons
from lape.values.space import NeuronSpace
from lape.values.stats import ActivationStats, LanguageStats, merge
from support.brute import model_of, some_texts, tokenizer_of
from support.made import DENSE, EXPERTS, made_stats, same_tensors
from support.tiny import tiny, tiny_tokenizer

compare_seeds = keywords_of(VariationOptions)(compare_seeds)

LAW = settings(deadline=None, max_examples=40)
SEED = st.integers(0, 2**32)
LANGUAGES = ("en", "fr", "zh")
EXAMPLE = Path(__file__).parents[2] / "examples" / "pv.py"


def with_changes(delta, space=None, languages=LANGUAGES):
    """Made statistics with these changes: (languages, neurons)."""
    space = space or NeuronSpace.dense(1, delta.shape[1])
    stats = made_stats(0, languages, space)
    by_language = {
        k: LanguageStats({**stats[k].tensors, "variation": row}) for k, row in zip(languages, delta, strict=True)
    }
    return dataclasses.replace(stats, by_language=by_language)


def random_changes(seed=0, neurons=20, languages=3):
    """Random, many of them equal, some 0."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(languages, neurons, generator=generator, dtype=torch.float64) * 8).round() / 800


def different_changes(*shape, seed):
    """Random, a quarter of them 0, no two neurons in the same proportion: which entropy is lower is beyond doubt."""
    generator = torch.Generator().manual_seed(seed)
    delta = torch.rand(*shape, generator=generator, dtype=torch.float64)
    return delta * (torch.rand(*shape, generator=generator) > 0.25).double()


def by_definition(delta, rate, share, bar):
    """The rule in plain numbers: a set of neurons for each language."""
    rows = delta.tolist()
    neurons = len(rows[0])
    everything = sorted(x for row in rows for x in row)

    def above(share):
        return everything[max(round(share * len(everything)), 1) - 1]

    entropies = {}
    for j in range(neurons):
        column = [row[j] for row in rows]
        if any(x > above(share) for x in column):
            entropies[j] = -sum(x / sum(column) * math.log(x / sum(column)) for x in column if x > 0)
    kept = sorted(entropies, key=lambda j: (round(entropies[j], 12), j))[: round(rate * neurons)]
    return [{j for j in kept if row[j] > above(bar)} for row in rows]


# --- the rule ---


def test_planted_neurons_are_found_each_in_its_languages():
    delta = torch.full((3, 400), 0.01, dtype=torch.float64) + 1e-5 * random_changes(1, 400)
    delta[0, [5, 9]] = 0.3
    delta[1, 17] = 0.2
    delta[[1, 2], 30] = 0.25
    delta[:, 50] = 0.9  # what every tuning moves most is nobody's own
    found = identify(with_changes(delta), "variation", rate=4 / 400, filter=0.99, bar=0.99)
    assert {k: list(found[k]) for k in LANGUAGES} == {"en": [5, 9], "fr": [17, 30], "zh": [30]}
    assert found.method == "variation"
    assert found.options["rate"] == 4 / 400
    assert found.options["threshold"] < 0.02
    assert "denominator" not in found.options
    assert not found.stability  # changes are no counts: nothing to halve


@LAW
@given(SEED, st.sampled_from([0.1, 0.2, 0.5]), st.sampled_from([0.5, 0.8, 0.95]), st.sampled_from([0.5, 0.8, 0.95]))
def test_it_is_the_rule_worked_out_number_by_number(seed, rate, share, bar):
    delta = different_changes(3, 20, seed=seed)
    delta[0] += 0.01  # else many neurons of one language alone would all have entropy 0
    found = variation(with_changes(delta, DENSE), rate=rate, filter=share, bar=bar)
    assert [set(found[k]) for k in LANGUAGES] == by_definition(delta, rate, share, bar)


@LAW
@given(SEED, st.one_of(st.none(), st.integers(1, 9)))
def test_it_is_lape_s_rule_with_changes_for_probabilities(seed, count):
    delta = random_changes(seed, languages=2)
    options = {"rate": 0.3, "filter": 0.8, "bar": 0.7, "per_language": count}
    stats = with_changes(delta, DENSE, ("en", "fr"))
    found = variation(stats, **options)
    expected = select(delta, LapeOptions(**options))
    assert [list(found[k]) for k in stats.languages] == [one.tolist() for one in expected.members]
    assert torch.equal(found.scores, expected.entropy[found.union.flat])
    if count is not None:
        assert all(len(found[k]) == min(count, int((row > 0).sum())) for k, row in zip(found, delta, strict=True))


@LAW
@given(SEED, st.floats(1e-6, 1e6))
def test_it_knows_relative_sizes_alone(seed, factor):
    delta = random_changes(seed)
    power = 2.0 ** round(math.log2(factor))  # exact
    options = {"rate": 0.2, "filter": 0.8, "bar": 0.8}
    ours, theirs = (variation(with_changes(x, DENSE), **options) for x in (delta, delta * power))
    assert ours.sets == theirs.sets


def test_experts_that_few_tokens_reach_are_scored_like_all_since_no_token_is_counted():
    delta = different_changes(3, len(EXPERTS), seed=2) + 0.01
    few = with_changes(delta, EXPERTS)
    for one in few.by_language.values():
        one.tensors["routed"].zero_()
    found = variation(few, rate=0.4, filter=0.5, bar=0.5)
    assert [set(found[k]) for k in LANGUAGES] == by_definition(delta, 0.4, 0.5, 0.5)


def test_a_number_for_each_language_says_where_the_bar_was_lowered_or_nothing_was_left():
    delta = random_changes(0)
    delta[1, 3:] = 0
    delta[1, :3] = 0.001
    found = variation(with_changes(delta, DENSE), per_language=5)
    assert any(note.startswith("fr: fewer than 5 neurons were above the bar") for note in found.notes)
    assert "fr: only 3 neurons were moved at all." in found.notes


# --- what recording keeps ---


def moved(model, seed):
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.01)
    return other


TUNED = {"en": 1, "fr": 2}


def recorded(tuned, languages=("en", "fr"), seed=0, **options):
    texts = {k: Documents(some_texts(12, seed + n)) for n, k in enumerate(languages)}
    return record(model_of("llama"), tokenizer_of(), texts, row_tokens=64, tuned=tuned, **options)


def checkpoints():
    return {k: moved(model_of("llama"), seed) for k, seed in TUNED.items()}


def test_recording_keeps_the_changes_and_which_checkpoints_they_are_of():
    tuned = checkpoints()
    stats, plain = recorded(tuned), recorded(None)
    expected = weight_changes(model_of("llama"), tuned)
    for language in tuned:
        assert torch.equal(stats.variation(language), expected[language])
        others = {name: one for name, one in stats[language].tensors.items() if name != "variation"}
        assert all(torch.equal(one, plain[language].tensors[name]) for name, one in others.items())
        assert set(others) == set(plain[language].tensors)
    assert set(stats.manifest["tuned"]) == {"en", "fr"}
    assert (
        len({one["checksum"] for one in stats.manifest["tuned"].values()} | {stats.manifest["model"]["checksum"]}) == 3
    )
    assert "tuned" not in plain.manifest


def test_saving_and_loading_change_nothing(tmp_path):
    stats = recorded(checkpoints())
    loaded = ActivationStats.load(stats.save(tmp_path / "s.safetensors"))
    assert same_tensors(stats, loaded)
    assert loaded.manifest == stats.manifest
    options = {"rate": 0.2, "filter": 0.5, "bar": 0.5}
    neurons = identify(loaded, "variation", **options)
    neurons.save(tmp_path / "n.safetensors")
    assert LanguageNeurons.load(tmp_path / "n.safetensors") == identify(stats, "variation", **options)


def test_merging_keeps_what_is_the_same_and_refuses_what_is_not():
    tuned = checkpoints()
    a, b = recorded(tuned), recorded(tuned, seed=5)
    merged = merge([a, b])
    assert all(torch.equal(merged.variation(k), a.variation(k)) for k in tuned)
    assert merged.manifest["tuned"] == a.manifest["tuned"]
    assert int(merged["fr"].tokens.sum()) == int(a["fr"].tokens.sum() + b["fr"].tokens.sum())
    with pytest.raises(MismatchError, match=r"en: .*different tuned checkpoints.*--tuned en=PATH"):
        a.merge(recorded({"en": tuned["fr"], "fr": tuned["fr"]}, seed=5))
    with pytest.raises(MismatchError, match="only one of the two holds variation"):
        a.merge(recorded(None, seed=5))


def test_languages_recorded_apart_merge_to_what_is_recorded_together():
    tuned = checkpoints()
    apart = merge([recorded({k: tuned[k]}, (k,), seed=n) for n, k in enumerate(tuned)])
    together = recorded(tuned)
    assert same_tensors(apart, together)
    assert apart.manifest["tuned"] == together.manifest["tuned"]


def test_a_language_without_its_checkpoint_is_named_when_neurons_are_chosen():
    stats = recorded({"en": checkpoints()["en"]})
    with pytest.raises(OptionError, match="--tuned"):
        identify(stats, "variation")
    with pytest.raises(TextError, match="tuned on zh was given, but no text"):
        recorded({"zh": checkpoints()["en"]})


def test_a_stopped_run_goes_on_with_the_same_checkpoints_only(tmp_path, monkeypatch):
    tuned, out = checkpoints(), tmp_path / "run"
    stop = {"after": 1}

    def failing(task, done, total):
        if task.startswith("recording fr"):
            stop["after"] -= 1
            if stop["after"] < 0:
                raise KeyboardInterrupt

    options = {"batch_tokens": 64, "checkpoint_seconds": 0}
    with pytest.raises(KeyboardInterrupt):
        recorded(tuned, out=out, progress=failing, **options)
    other = {**tuned, "fr": moved(model_of("llama"), 9)}
    with pytest.raises(FileError, match="in which tuned was"):
        recorded(other, out=out, **options)
    assert same_tensors(recorded(tuned, out=out, **options), recorded(tuned, **options))


# --- the control ---


def planted(seed, languages=3, neurons=4000):
    """Changes of random neurons, of which each language moves 40 of its own further."""
    random = torch.Generator().manual_seed(seed)
    delta = 0.01 + 0.001 * torch.rand(languages, neurons, generator=random, dtype=torch.float64)
    for k in range(languages):
        delta[k, 40 * k : 40 * (k + 1)] += 0.1
    return delta


OPTIONS = {"rate": 0.03, "filter": 0.99, "bar": 0.99}


def test_seeds_that_move_the_same_neurons_agree_and_languages_do_not():
    table = compare_seeds(with_changes(planted(0)), {"fr": planted(1)[1]}, **OPTIONS)
    assert table.select("language", "other").rows() == [("fr", "en"), ("fr", "zh")]
    for row in table.rows(named=True):
        assert (row["neurons"], row["jaccard_seeds"], row["jaccard_languages"]) == (40, 1, 0)
        assert row["chance"] == pytest.approx(40 * 40 / 4000 / (80 - 40 * 40 / 4000))
        assert row["largest_languages"] < row["largest_seeds"]
        assert row["rank_languages"] < row["rank_seeds"]


def test_seeds_that_move_other_neurons_show_that_it_was_not_the_language():
    table = compare_seeds(with_changes(planted(0)), {"fr": planted(1)[1].roll(500)}, **OPTIONS)
    assert set(table["jaccard_seeds"]) == {0.0}
    assert bool((table["largest_seeds"] <= table["largest_languages"] + 0.05).all())


def alike(a, b):
    return len(a & b) / len(a | b) if a | b else 0.0


@LAW
@given(SEED)
def test_both_comparisons_are_taken_alike_against_the_languages_that_are_neither(seed):
    delta = different_changes(4, 20, seed=seed) + 0.01
    second, tags = different_changes(20, seed=seed + 1) + 0.01, ["en", "fr", "zh", "de"]
    delta += torch.arange(20) * 1e-6
    second += torch.arange(20) * 1e-6
    options = {"rate": 0.3, "filter": 0.6, "bar": 0.6}
    table = compare_seeds(with_changes(delta, DENSE, tags), {"fr": second}, **options)
    for row, other in zip(table.rows(named=True), [0, 2, 3], strict=True):
        rest = [delta[k] for k in range(4) if k not in (1, other)]
        a, b, c = (
            by_definition(torch.stack([one, *rest]), *options.values())[0] for one in (delta[1], second, delta[other])
        )
        assert (row["other"], row["neurons"]) == (tags[other], len(a))
        assert (row["jaccard_seeds"], row["jaccard_languages"]) == pytest.approx((alike(a, b), alike(a, c)))
        a, b, c = (set(one.topk(6).indices.tolist()) for one in (delta[1], second, delta[other]))
        assert (row["largest_seeds"], row["largest_languages"]) == pytest.approx((alike(a, b), alike(a, c)))
        assert row["rank_seeds"] == pytest.approx(spearman(delta[1].numpy(), second.numpy()))
        assert row["rank_languages"] == pytest.approx(spearman(delta[1].numpy(), delta[other].numpy()))


def test_of_two_languages_alone_no_sets_can_be_compared():
    table = compare_seeds(with_changes(random_changes(languages=2), DENSE, ("en", "fr")), {"fr": random_changes(3)[0]})
    row = table.row(0, named=True)
    assert (row["neurons"], row["chance"], row["jaccard_seeds"], row["jaccard_languages"]) == (None,) * 4
    assert row["rank_seeds"] is not None


def test_a_second_seed_that_is_none_is_refused():
    stats = with_changes(random_changes(), DENSE)
    with pytest.raises(OptionError, match="No second seed"):
        compare_seeds(stats, {})
    with pytest.raises(TextError, match=r"second seed of de .* not recorded"):
        compare_seeds(stats, {"de": random_changes()[0]})
    with pytest.raises(MismatchError, match=r"shape \(7,\)"):
        compare_seeds(stats, {"en": torch.ones(7)})
    with pytest.raises(OptionError, match="same checkpoint"):
        compare_seeds(stats, {"eng_Latn": random_changes()[0]})


# --- the command line and the example ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("variation")
    base = tiny("llama", torch.float32)
    for name, model in {"base": base, "en": moved(base, 1), "fr": moved(base, 2)}.items():
        model.save_pretrained(folder / name)
    tiny_tokenizer().save_pretrained(folder / "base")
    (folder / "en.txt").write_text("the cat sat on the mat and the dog ate the rat\n" * 30)
    (folder / "fr.txt").write_text("le chat dort sur le lit et le chien mange le rat\n" * 30)
    return folder


def record_command(folder, out, *tuned):
    texts = [word for k in ("en", "fr") for word in ("--text", f"{k}={folder}/{k}.txt")]
    checkpoints = [word for one in tuned for word in ("--tuned", one)]
    return [
        "record",
        f"{folder}/base",
        *texts,
        *checkpoints,
        "--out",
        str(out),
        "--row-tokens",
        "32",
        "--device",
        "cpu",
    ]


def test_the_command_line_records_chooses_and_says_where_from(folder, tmp_path):
    out = tmp_path / "run"
    assert run(record_command(folder, out, f"en={folder}/en", f"fr={folder}/fr")) == 0
    manifest = json.loads((out / "run.json").read_text())
    assert {k: one["id"] for k, one in manifest["tuned"].items()} == {k: f"{folder}/{k}" for k in ("en", "fr")}
    thresholds = ["--rate", "0.1", "--filter", "0.6", "--bar", "0.6"]
    assert run(["identify", str(out), "--method", "variation", *thresholds]) == 0
    found = LanguageNeurons.load(out)
    assert (found.method, found.options["rate"]) == ("variation", 0.1)
    assert found == identify(ActivationStats.load(out), "variation", rate=0.1, filter=0.6, bar=0.6)
    assert len(found.union) > 0


@pytest.mark.parametrize(
    ("tuned", "says"),
    [
        (["en"], "--tuned en has no path"),
        (["en=a", "en=b"], "--tuned en was given 2 times"),
        (["en={}/base"], "identical to the base"),
        (["de={}/en"], "but no text"),
        (["en={}/nowhere"], "no file or folder"),
    ],
)
def test_the_command_line_refuses_what_it_cannot_compare(folder, tmp_path, capsys, tuned, says):
    out = tmp_path / "run"
    assert run(record_command(folder, out, *(one.format(folder) for one in tuned))) == 2
    assert says in capsys.readouterr().err.replace("\n", " ")
    assert not list(tmp_path.iterdir())


def test_the_example_tunes_chooses_and_controls(folder, tmp_path, capsys):
    main = runpy.run_path(str(EXAMPLE))["main"]
    texts = [word for k in ("en", "fr") for word in ("--text", f"{k}={folder}/{k}.txt")]
    sizes = [
        "--steps",
        "12",
        "--rows",
        "4",
        "--length",
        "16",
        "--rate",
        "0.1",
        "--learning-rate",
        "0.003",
        "--device",
        "cpu",
    ]
    out = tmp_path / "pv"
    table = main([f"{folder}/base", *texts, "--again", "fr", *sizes, "--out", str(out)])
    assert table.select("language", "other").rows() == [("fr", "en")]
    assert table.equals(pl.read_parquet(out / "control.parquet"))
    assert {one.name for one in out.iterdir() if one.is_dir()} == {"en-seed0", "fr-seed0", "fr-seed1"}
    said = capsys.readouterr().out
    for line in [one for one in said.splitlines() if "loss" in one]:
        before, after = line.split("loss ")[1].split(" nats")[0].split(" -> ")
        assert float(after) < float(before)
    again = main([f"{folder}/base", *texts, "--again", "fr", *sizes, "--out", str(tmp_path / "twice")])
    assert table.equals(again)
