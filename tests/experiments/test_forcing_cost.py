"""What an edit costs is the change of loss on text, from the full logits of models whose MLPs are written out by hand."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from lape.data.corpus import TextOptions, prepare
from lape.data.texts import Documents
from lape.edit.diffmean import DiffMeanOptions, vector
from lape.edit.edit import edited
from lape.edit.steer import PUBLISHED, steering
from lape.experiments.forcing.cost import COSTS, costs, lines_in
from lape.measure.bench import Bench
from lape.measure.bootstrap import Resamples
from lape.measure.generation import GenerationOptions
from lape.measure.methods import CEILING, NONE, Setting
from lape.model.loss import line_loss
from lape.recording.record import record
from support.brute import hooks_on, model_of, some_texts, tokenizer_of
from support.by_hand import edited_where

torch.set_num_threads(1)

PAIRS = [("en", "fr"), ("fr", "zh")]
TEXTS = {
    language: Documents(["\n".join(some_texts(2, seed * 100 + k, (2, 7))) for k in range(count)])
    for language, seed, count in (("eng_Latn", 1, 24), ("fr", 2, 8), ("zh", 3, 20))
}
OPTIONS = TextOptions(row_tokens=64)
NEURONS = Setting("neurons", "n", sets="difference:20", steer=replace(PUBLISHED, strength=1.5))
SETTINGS = {
    "every token": NEURONS,
    "generated tokens": replace(NEURONS, steer=replace(PUBLISHED, how="off+set", strength=2, tokens="generated")),
    "the prompt": replace(NEURONS, steer=replace(PUBLISHED, how="off+scale", strength=-3, tokens="prompt")),
    "some, fading": replace(
        NEURONS, steer=replace(PUBLISHED, strength=2, rise=2, tokens="generated", first=1, fade=0.5)
    ),
    "source off": replace(NEURONS, steer=replace(PUBLISHED, how="off", tokens="generated", first=1)),
    "permuted": replace(NEURONS, family="permuted", control="permuted"),
    "random": replace(NEURONS, family="random", control="random"),
    "random, generated": replace(
        NEURONS, family="random", control="random", steer=replace(PUBLISHED, tokens="generated", first=1, fade=0.5)
    ),
    "difference of means": Setting("diffmean", "d", diffmean=DiffMeanOptions(1, 2.0)),
    "difference of means, fading": Setting(
        "diffmean", "d", diffmean=DiffMeanOptions(0, 2.0, "others", "generated", 1, 0.5)
    ),
}


@pytest.fixture(scope="module")
def bench():
    texts = {language: Documents(some_texts(30, seed)) for language, seed in (("en", 11), ("fr", 12), ("zh", 13))}
    stats = record(model_of("llama"), tokenizer_of(), texts, residual=True)
    return Bench(model_of("llama"), tokenizer_of(), stats, None, GenerationOptions())


@contextmanager
def acting_by_hand(bench, setting, source, target):
    """The setting on every token of every text, whatever tokens it is for."""
    model = bench.model
    if setting.diffmean is not None:
        amount = vector(bench.stats, setting.diffmean, source=source, target=target)
        block = model.model.layers[setting.diffmean.layer]
        handle = block.register_forward_hook(lambda _m, _a, out: out + amount)
        yield
        handle.remove()
        return
    steer = replace(setting.steer, tokens="both", first=None, fade=1.0)
    edits = steering(bench.sets(setting.sets), bench.stats, steer, source=source, to=target)
    if setting.control:  # tested by itself; what strength is matched on are the first 6 lines
        lines = "\n".join(TEXTS["eng_Latn" if source == "en" else source].texts).split("\n")
        prompts = [f"Q: {line}\nA:" for line in lines[:6]]
        edits = bench.edits(replace(setting, steer=steer), source, target, prompts)
    with edited_where(model, "llama", edits, lambda _column: True):
        yield


def by_hand(model, texts):
    """(documents,) nats and tokens, from the full logits of one document at a time, after <s>."""
    nats, tokens = np.zeros(len(texts)), np.zeros(len(texts))
    for k, text in enumerate(texts):
        ids = [1, *tokenizer_of(False)(text, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            logs = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
        nats[k] = -sum(float(logs[at, token]) for at, token in enumerate(ids[1:]))
        tokens[k] = len(ids) - 1
    return nats, tokens


@pytest.mark.parametrize("name", SETTINGS)
def test_the_cost_is_the_change_of_loss_while_the_edit_acts_on_every_token(bench, name):
    setting = SETTINGS[name]
    table = costs(bench, [(setting, PAIRS[0])], TEXTS, OPTIONS, resamples=40, seed=3)
    assert dict(table.schema) == COSTS
    assert table.select("language", "role").rows() == [("en", "source"), ("fr", "target"), ("zh", "third")]
    assert set(table.select("family", "setting", "source", "target").rows()) == {
        (setting.family, setting.name, "en", "fr")
    }
    for row, texts in zip(table.to_dicts(), TEXTS.values(), strict=True):
        before, tokens = by_hand(bench.model, texts.texts)
        with acting_by_hand(bench, setting, "en", "fr"):
            after, _ = by_hand(bench.model, texts.texts)
        change = after - before
        assert row["tokens"] == tokens.sum()
        assert row["delta_token"] == pytest.approx(change.sum() / tokens.sum(), abs=2e-5)
        assert abs(row["delta_token"]) > 1e-3  # so much that it matters where the edit acts
        if row["language"] == "fr":  # 8 documents
            assert row["low"] is row["high"] is None
            continue
        drawn = Resamples(len(texts.texts), 40, 3)
        ends = drawn.interval((drawn.weights @ change) / (drawn.weights @ tokens))[1:]
        assert (row["low"], row["high"]) == pytest.approx(ends, abs=5e-5)
    assert hooks_on(bench.model) == 0


def test_each_setting_has_its_own_pair_and_roles_follow_it(bench):
    first, second = SETTINGS["every token"], replace(SETTINGS["the prompt"], name="m")
    both = costs(bench, [(first, PAIRS[0]), (second, PAIRS[1])], TEXTS, OPTIONS, resamples=5)
    apart = [costs(bench, [one], TEXTS, OPTIONS, resamples=5) for one in ((first, PAIRS[0]), (second, PAIRS[1]))]
    assert both.rows() == apart[0].rows() + apart[1].rows()
    assert apart[1]["role"].to_list() == ["third", "source", "target"]
    only = costs(bench, [(second, PAIRS[1])], {"eng_Latn": TEXTS["eng_Latn"]}, OPTIONS, resamples=5)
    assert only.rows() == apart[1].rows()[:1]


def test_the_change_is_that_of_line_loss_on_as_much_text_as_is_wanted(bench):
    options = replace(OPTIONS, tokens=60)
    (row,) = costs(bench, [(NEURONS, PAIRS[0])], {"zh": TEXTS["zh"]}, options, resamples=5).to_dicts()
    corpus = prepare("zh", TEXTS["zh"], tokenizer_of(), options, lines=True)
    edits = steering(bench.sets(NEURONS.sets), bench.stats, NEURONS.steer, source="en", to="fr")
    before = line_loss(bench.model, bench.head, corpus, options)
    with edited(bench.model, edits):
        after = line_loss(bench.model, bench.head, corpus, options)
    assert row["tokens"] == before.tokens.sum() == 60
    assert row["delta_token"] == pytest.approx((after.nll - before.nll).sum() / 60, abs=1e-9)


def test_what_edits_nothing_costs_nothing(bench):
    found = costs(bench, [(NONE, PAIRS[0]), (CEILING, PAIRS[1])], TEXTS, OPTIONS, resamples=5)
    assert found["delta_token"].to_list() == [0.0] * 6
    assert costs(bench, [], TEXTS, OPTIONS).schema == found.schema


def test_an_edit_that_spares_tokens_costs_what_it_would_on_every_token(bench):
    spared = [
        replace(NEURONS, steer=replace(NEURONS.steer, **how))
        for how in ({}, {"tokens": "generated", "first": 1, "fade": 0.1})
    ]
    every, some = (costs(bench, [(one, PAIRS[0])], TEXTS, OPTIONS, resamples=5) for one in spared)
    assert every.equals(some)


def test_lines_are_those_of_all_documents_in_order_without_empty_ones(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\n two\nthree")
    assert lines_in(Documents(["a\n\nb ", " \n", "c"])) == ["a", "b ", "c"]
    assert lines_in(tmp_path / "a.txt") == ["one", " two", "three"]
