"""Mixtures of experts from texts to results: counted, edited, exported and described as their definitions say."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
import torch
import transformers
from packaging.version import Version

from lape.data.corpus import TextOptions, prepare
from lape.data.texts import Documents
from lape.detect.identify import identify
from lape.edit.edit import Add, Off, Scale, edited
from lape.errors import OptionError
from lape.experiments.necessity.estimates import Estimator
from lape.model.attribution import attribute
from lape.model.find import find
from lape.model.load import load_weights
from lape.model.loss import find_head
from lape.model.weights import down_norms
from lape.recording.reader import Reader
from lape.recording.record import record
from lape.ship.export import export
from lape.values.experts import measure_expert_use
from lape.values.neurons import NeuronSet
from lape.values.stats import ActivationStats, merge
from support.brute import assert_near, logits_of, some_texts, tokenizer_of
from support.conformance import Written, some_edits
from support.zoo.table import KINDS
from support.zoo.written import build

pytestmark = pytest.mark.usefixtures("one_thread")

TYPES = ("mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3", "granitemoeshared", "llama4_text", "nemotron_h")
LISTS = {"en": some_texts(9, seed=1), "fr": some_texts(8, seed=2)}
TEXTS = {language: Documents(texts) for language, texts in LISTS.items()}
OPTIONS = {"row_tokens": 32, "batch_tokens": 32}


def made(name="mixtral", dtype=None):
    return build(name, KINDS[name], dtype)


def recorded(model, **options):
    return record(model, tokenizer_of(), TEXTS, **OPTIONS, **options)


def rows_of(text):
    """One document's ids, its BOS, and which of them count."""
    ids = tokenizer_of()(text, add_special_tokens=False)["input_ids"]
    return torch.tensor([[1, *ids]]), torch.tensor([False, *(token not in (0, 1, 2) for token in ids)])


@pytest.mark.parametrize("name", TYPES)
def test_counts_sums_and_routed_tokens_are_those_of_the_definition(name):
    model = made(name)
    stats = recorded(model)
    written = Written(model, KINDS[name])
    for language, texts in LISTS.items():
        fires = torch.zeros(len(stats.space), dtype=torch.int64)
        total, square, wrote, wrote_square = torch.zeros(4, len(stats.space), dtype=torch.float64)
        formula = torch.zeros(len(stats.space), dtype=torch.bool)  # llama4's experts have a function of their own
        routed = torch.zeros(len(stats.space.stretches), dtype=torch.int64)
        for text in texts:
            ids, counted = rows_of(text)
            for k, (a, rows) in written.activations(ids).items():
                part, kept = stats.space.stretches[k], a[counted[rows]]
                fires[part.start : part.stop] += (kept > 0).sum(0)
                total[part.start : part.stop] += kept.sum(0)
                square[part.start : part.stop] += kept.square().sum(0)
                routed[k] += len(kept)
            for k, (x, rows) in written.products(ids).items():
                part, kept = stats.space.stretches[k], x[counted[rows]]
                wrote[part.start : part.stop] += kept.sum(0)
                wrote_square[part.start : part.stop] += kept.square().sum(0)
                formula[part.start : part.stop] = True
        one = stats[language]
        assert torch.equal(one.fires.sum(0), fires)
        assert torch.equal(one.routed.sum(0), routed)
        assert_near(one.sums("sum"), total, 1e-6)
        assert_near(one.sums("square"), square, 1e-6)
        assert formula.any()
        assert_near(one.sums("written")[formula], wrote[formula], 1e-6)
        assert_near(one.sums("written_square")[formula], wrote_square[formula], 1e-6)
        reached = stats.space.per_neuron(routed).clamp_min(1)
        assert torch.equal(stats.written_mean(language), one.sums("written") / reached)
        assert torch.equal(stats.written_energy(language), one.sums("written_square") / reached)


def test_both_denominators_can_be_had():
    stats = recorded(made())
    one = stats["en"]
    fires, tokens = one.fires.sum(0).double(), int(one.tokens.sum())
    assert_near(stats.probabilities("tokens")[0], fires / tokens)
    per = stats.space.per_neuron(one.routed.sum(0)).clamp_min(1)
    assert_near(stats.probabilities("routed")[0], fires / per)
    assert int(one.routed.sum()) == 2 * 3 * tokens  # two experts per token, three layers


def test_per_text_sums_leave_out_what_was_not_sent():
    model = made()
    stats = recorded(model, per_text=True)
    one = stats["en"]
    written = Written(model, KINDS["mixtral"])
    for text, means in zip(LISTS["en"], one.extra("texts"), strict=True):
        ids, counted = rows_of(text)
        total = torch.zeros(len(stats.space), dtype=torch.float64)
        for k, (a, rows) in written.activations(ids).items():
            part = stats.space.stretches[k]
            total[part.start : part.stop] += a[counted[rows]].sum(0)
        assert_near(means.double(), total / int(counted.sum()), 1e-3)


def test_a_histogram_holds_each_token_that_was_sent():
    stats = recorded(made(), histogram=True)
    held = stats["fr"].extra("histogram").sum(1)
    assert torch.equal(held, stats.space.per_neuron(stats["fr"].routed.sum(0)))


def test_a_run_that_goes_on_has_the_same_bits(tmp_path, monkeypatch):
    model = made()
    whole = recorded(model)
    read, done = Reader.read, []

    def dying(self, one):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        read(self, one)

    monkeypatch.setattr(Reader, "read", dying)
    with pytest.raises(KeyboardInterrupt):
        record(model, tokenizer_of(), TEXTS, out=tmp_path / "run", checkpoint_seconds=0, **OPTIONS)
    monkeypatch.setattr(Reader, "read", read)
    resumed = record(model, tokenizer_of(), TEXTS, out=tmp_path / "run", checkpoint_seconds=0, **OPTIONS)
    for language in TEXTS:
        for name in ("routed", "fires", "sum", "square", "positive"):
            assert torch.equal(resumed[language].tensors[name], whole[language].tensors[name]), name


def test_statistics_of_experts_save_load_merge_and_are_identified(tmp_path):
    texts = {language: Documents(some_texts(200, seed)) for seed, language in enumerate(("en", "fr"))}
    stats = record(made(), tokenizer_of(), texts, row_tokens=256, batch_tokens=1024)
    stats.save(tmp_path / "s.safetensors")
    again = ActivationStats.load(tmp_path / "s.safetensors")
    assert again.space == stats.space
    more = record(made(), tokenizer_of(), {"en": Documents(some_texts(70, 2))}, row_tokens=256, batch_tokens=1024)
    assert torch.equal(merge([again, more])["en"].routed, stats["en"].routed + more["en"].routed)
    neurons = identify(stats, per_language=5)
    assert len(neurons["fr"]) == 5
    few = stats.space.per_neuron(stats.routed().amin(0) < 200)
    assert not few[neurons.union.flat].any()


def test_experts_that_too_few_tokens_reached_are_refused():
    with pytest.raises(OptionError, match=r"200 tokens in every language.*Record more"):
        identify(recorded(made()))


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sites_are_found_in_every_precision(name, dtype):
    model = made(name, dtype)
    model.set_experts_implementation("eager")
    assert find(model).space == find(made(name)).space


@pytest.mark.parametrize("implementation", ["batched_mm", "grouped_mm"])
def test_any_experts_implementation_gives_the_same_counts(implementation):
    kind = dataclasses.replace(KINDS["mixtral"], config={**KINDS["mixtral"].config, "intermediate_size": 48})
    counts = []
    for one in ("eager", implementation):
        model = build("mixtral", kind, torch.float32)
        model.set_experts_implementation(one)
        counts.append(recorded(model)["en"])
    assert torch.equal(counts[0].routed, counts[1].routed)
    assert float((counts[0].fires - counts[1].fires).abs().sum() / counts[0].fires.sum()) < 1e-3


def test_unedited_hidden_states_are_what_the_model_itself_gives():
    """Watching switches to one expert after the other: the logits stay, up to rounding."""
    model = made("qwen3_moe")
    ids = torch.randint(40, 300, (2, 9))
    before = logits_of(model, ids)
    nothing = Scale(NeuronSet(find(model).space, torch.arange(len(find(model).space))), 1.0 + 1e-300)
    with edited(model, nothing):
        assert_near(logits_of(model, ids), before, 1e-12)
    assert torch.equal(logits_of(model, ids), before)


@pytest.mark.parametrize("tokens", ["prompt", "generated"])
def test_edits_of_some_positions_leave_the_others(tokens):
    model = made("qwen3_moe")
    ids = torch.randint(40, 300, (2, 9))
    edits = some_edits(find(model).space)
    before = logits_of(model, ids)
    with edited(model, edits, tokens=tokens):
        after = logits_of(model, ids)
    same = (after == before).all(-1)
    assert bool(same[:, :-1].all()) == (tokens == "generated")
    assert not bool(same[:, -1].any())


def test_a_fading_edit_of_experts_is_the_share_of_the_whole():
    """Of the generated positions the second is changed by half."""
    model = made("mixtral")
    every = NeuronSet(find(model).space, torch.arange(len(find(model).space)))
    ids, step = torch.randint(40, 300, (2, 6)), torch.tensor([[77], [78]])

    def prompt():
        return model(ids, use_cache=True).past_key_values

    def logits(cache):
        return model(step, past_key_values=cache, use_cache=True).logits

    with torch.no_grad():
        with edited(model, Add(every, 0.5), tokens="generated", fade=0.5):
            got = logits(prompt())
        with edited(model, Add(every, 0.5), tokens="generated"):
            cache = prompt()
        with edited(model, Add(every, 0.25)):
            expected = logits(cache)
    assert_near(got, expected, 1e-6)


@pytest.mark.parametrize("name", TYPES)
def test_an_exported_checkpoint_is_the_edited_model(name, tmp_path):
    if name == "gpt_oss" and Version(transformers.__version__).release < (5, 21):
        pytest.skip("loads it with a limit of its own instead of the configuration's")
    model = made(name)
    space = find(model).space
    edits = [
        Off(NeuronSet(space, torch.arange(0, len(space), 3))),
        Scale(NeuronSet(space, torch.arange(1, len(space), 3)), 1.5),
    ]
    ids = torch.randint(40, 300, (2, 9))
    with edited(model, edits):
        expected = logits_of(model, ids)
    export(model, edits, tmp_path / "out")
    exported = load_weights(tmp_path / "out", dtype="float64", device="cpu")
    exported.set_experts_implementation("batched_mm")
    assert_near(logits_of(exported, ids), expected, 1e-6)


def test_adding_to_experts_is_not_baked_in(tmp_path):
    model = made()
    with pytest.raises(OptionError, match="routed experts"):
        export(model, Add(NeuronSet(find(model).space, torch.tensor([3])), 1.0), tmp_path / "out")


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss", "nemotron_h"])
def test_the_norm_of_a_down_column_is_that_of_the_expert_s_weight(name):
    model = made(name)
    site = next(site for site in find(model).sites if site.expert == 2)
    module = model.get_submodule(site.down)
    columns = module.down_proj[2].detach()
    if name == "gpt_oss":
        columns = columns.T
    assert_near(down_norms(model, site), columns.square().sum(0))


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_attribution_is_the_slope_of_the_loss_along_each_neuron(name, tmp_path):
    """−a · ∂NLL/∂a, summed: the derivative of the loss by a factor on the neuron, by finite differences."""
    model = made(name)
    options = TextOptions(**OPTIONS)
    corpus = prepare("en", TEXTS["en"], tokenizer_of(), options, folder=tmp_path)
    head = find_head(model)
    owed, _ = attribute(model, head, corpus, options, 10**6)
    space = find(model).space
    largest = owed.abs().topk(4).indices
    for flat in largest.tolist():

        def loss(factor, flat=flat):
            with edited(model, Scale(NeuronSet(space, torch.tensor([flat])), factor)):
                return sum(nll_of(model, text) for text in LISTS["en"])

        slope = (loss(1 + 1e-4) - loss(1 - 1e-4)) / 2e-4  # routers round to float32, and switch at larger steps
        assert -slope == pytest.approx(float(owed[flat]), rel=1e-2)


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss"])
def test_the_slope_of_a_set_of_several_experts_goes_to_the_documents_of_the_tokens_that_reach_them(name, tmp_path):
    model = made(name)
    options = TextOptions(**OPTIONS)
    corpus = prepare("en", TEXTS["en"], tokenizer_of(), options, folder=tmp_path)
    space = find(model).space
    chosen = NeuronSet(space, torch.arange(2, len(space), 7))
    first = Estimator(model, find_head(model), corpus, options).expand([chosen], 0, 0).first[0]
    ends = []
    for factor in (1 - 1e-4, 1 + 1e-4):
        with edited(model, Scale(chosen, factor)):
            ends.append(np.array([nll_of(model, text) for text in LISTS["en"]]))
    assert first == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=2e-2, abs=2e-2)


def nll_of(model, text):
    ids, _ = rows_of(text)
    logits = logits_of(model, ids)[0, :-1]
    return float(torch.nn.functional.cross_entropy(logits.double(), ids[0, 1:], reduction="sum"))


def test_the_use_of_an_expert_is_each_language_s_share_of_tokens():
    stats = recorded(made("qwen3_moe"))
    table = measure_expert_use(stats)
    one = table.filter(language="fr", layer=2, expert=1).row(0, named=True)
    place = next(k for k, s in enumerate(stats.space.stretches) if (s.layer, s.expert) == (2, 1))
    routed, tokens = int(stats["fr"].routed[:, place].sum()), int(stats["fr"].tokens.sum())
    assert one["routed"] == routed
    assert one["share"] == pytest.approx(routed / tokens)
    other = int(stats["en"].routed[:, place].sum()) / int(stats["en"].tokens.sum())
    assert one["others"] == pytest.approx(other)
    assert one["lowest"] <= one["share"] <= one["highest"]
    by_layer = table.group_by("language", "layer").agg(pl.col("share").sum())
    assert by_layer["share"].to_list() == pytest.approx([2.0] * len(by_layer))


def test_the_use_of_experts_shows_one_that_only_one_language_uses():
    stats = recorded(made())
    stats["fr"].tensors["routed"][:, 1] = 0
    table = measure_expert_use(stats).filter(layer=0, expert=1)
    english, french = (table.filter(language=language).row(0, named=True) for language in ("en", "fr"))
    assert english["ratio"] is None
    assert english["apart"]
    assert french["share"] == 0


def test_the_use_of_experts_of_a_dense_model_is_refused():
    stats = record(build("llama", KINDS["llama"]), tokenizer_of(), TEXTS, **OPTIONS)
    with pytest.raises(OptionError, match="no routed experts"):
        measure_expert_use(stats)
