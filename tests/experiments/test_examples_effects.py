"""What single neurons cost, against the model with one of them off, by hand; their controls; the text they are measured on."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from lape.data.corpus import TextOptions
from lape.data.texts import Documents
from lape.edit.edit import Off, edited
from lape.experiments.examples import examples
from lape.experiments.examples.contexts import ExamplesOptions
from lape.experiments.examples.effects import EFFECTS, beginnings, effects, lowest
from lape.measure import ablation
from lape.measure.ablation import Ablations
from lape.measure.bootstrap import Resamples
from lape.measure.controls import NEAREST
from lape.options import keywords_of
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.space import NeuronSpace
from support.brute import model_of, some_texts, tokenizer_of
from support.tiny import LAYERS

examples = keywords_of(ExamplesOptions)(examples)

pytestmark = pytest.mark.usefixtures("one_thread")

SPACE = NeuronSpace.dense(LAYERS, 44)
OPTIONS = ExamplesOptions(row_tokens=64, effects=3, resamples=200, seed=4)
LISTS = {"fr": some_texts(25, 1), "en": some_texts(6, 2), "de": some_texts(4, 3)}
TEXTS = {language: Documents(texts) for language, texts in LISTS.items()}
NEURONS = LanguageNeurons(
    SPACE,
    {
        "en": NeuronSet(SPACE, torch.tensor([3, 8, 50, 60, 100])),
        "fr": NeuronSet(SPACE, torch.tensor([8, 9, 51, 99, 101])),
        "zh": NeuronSet(SPACE, torch.tensor([0])),
        "de": NeuronSet(SPACE, torch.empty(0)),
    },
)
ENTROPY = torch.rand(len(SPACE), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
ENTROPY[[8, 101]] = 0.001
ENTROPY[20:40] = torch.inf


def measured(folder=None, options=OPTIONS, **more):
    return effects(model_of("llama"), tokenizer_of(), TEXTS, NEURONS, ENTROPY, options, folder=folder, **more)


def hand_losses(texts, flat=None):
    """(documents,) summed nats and scored tokens, from the model's own logits."""
    edits = [] if flat is None else [Off(NeuronSet(SPACE, torch.tensor([flat])))]
    nats, tokens = [], []
    with torch.no_grad(), edited(model_of("llama"), edits):
        for text in texts:
            ids = torch.tensor([[1, *tokenizer_of()(text, add_special_tokens=False)["input_ids"]]])
            logs = model_of("llama")(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
            nats.append(-float(logs[:-1].gather(1, ids[0, 1:, None]).sum()))
            tokens.append(ids.shape[1] - 1)
    return np.array(nats), np.array(tokens, np.float64)


def test_effects_are_those_of_the_model_with_one_neuron_off():
    table, notes = measured()
    assert table.schema == EFFECTS
    assert list(table.schema) == ["language", "flat", "entropy", "tokens", "delta", "low", "high", "kind"]
    assert table["kind"].to_list() == ["own", "control"] * 6
    assert table["language"].to_list() == ["fr"] * 6 + ["en"] * 6
    assert notes == ["effects of de: it has no neurons", "effects of zh: no text in it was given"]
    drawn = Resamples(25, 200, 4)
    for row in table.iter_rows(named=True):
        before, tokens = hand_losses(LISTS[row["language"]])
        after, _ = hand_losses(LISTS[row["language"]], row["flat"])
        assert row["tokens"] == tokens.sum()
        assert row["delta"] == pytest.approx((after - before).sum() / tokens.sum(), rel=1e-3, abs=2e-6)
        if row["language"] == "en":
            assert row["low"] is row["high"] is None  # six documents are too few
        else:
            expected = drawn.interval(drawn.ratio(after - before, tokens))[1:]
            assert (row["low"], row["high"]) == pytest.approx(expected, rel=1e-3, abs=5e-6)
        assert row["entropy"] == (None if 20 <= row["flat"] < 40 else float(ENTROPY[row["flat"]]))
    assert table["delta"].abs().min() > 1e-5


def test_own_neurons_are_those_of_lowest_entropy_in_the_set():
    table, _ = measured()
    for language in ("fr", "en"):
        flat = sorted(NEURONS[language], key=lambda j: (float(ENTROPY[j]), j))[:3]
        assert table.filter(pl.col("language") == language, pl.col("kind") == "own")["flat"].to_list() == flat
    assert [int(one.flat) for one in lowest(NEURONS["fr"], ENTROPY, 2)] == [8, 101]
    assert len(lowest(NEURONS["fr"], ENTROPY, 50)) == 5


def test_controls_are_others_of_the_same_layer_near_in_energy():
    table, _ = measured()
    work = Ablations(model_of("llama"), tokenizer_of(), TEXTS, TextOptions(row_tokens=64))
    work.base()
    for language in ("fr", "en"):
        part = table.filter(pl.col("language") == language)
        own, controls = (part.filter(pl.col("kind") == k)["flat"].to_list() for k in ("own", "control"))
        assert not set(controls) & set(NEURONS.union)
        assert len(set(controls)) == len(controls)
        for a, b in zip(own, controls, strict=True):
            layer = slice(a // 44 * 44, a // 44 * 44 + 44)
            assert b // 44 == a // 44
            apart = (work.energy(language)[layer].log() - work.energy(language)[a].log()).abs()
            assert (apart < apart[b % 44]).sum() <= NEAREST + len(NEURONS.union)
    other, _ = measured(options=ExamplesOptions(row_tokens=64, effects=3, seed=5))
    assert other["flat"].to_list() != table["flat"].to_list()


def test_a_layer_without_other_neurons_has_no_control():
    everything = LanguageNeurons(SPACE, {"en": NeuronSet(SPACE, torch.arange(44))})
    table, notes = effects(
        model_of("llama"), tokenizer_of(), {"en": TEXTS["en"]}, everything, ENTROPY, ExamplesOptions(effects=1)
    )
    assert table["kind"].to_list() == ["own"]
    assert "no other neurons left" in notes[0]


def test_what_was_measured_before_a_stop_is_not_measured_again(tmp_path, monkeypatch):
    expected, _ = measured()
    runs, real = [], ablation.line_loss

    def count(model, head, corpus, *rest):
        runs.append(corpus.language)
        return real(model, head, corpus, *rest)

    def stop(task, done, _total):
        if task == "switching single neurons off" and done == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(ablation, "line_loss", count)
    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path, progress=stop)
    assert len(runs) == 2 + 7
    told = []
    table, _ = measured(tmp_path, planned=lambda *known: told.append(known))
    assert len(runs) == 2 + 12
    assert told[0][:2] == (12, 5 * int(expected.filter(pl.col("language") == "en")["tokens"][0]))
    assert table.equals(expected)


def test_neurons_without_entropies_have_no_effects():
    options = {"row_tokens": 64, "effects": 2, "keep": 2}
    found = examples(model_of("llama"), tokenizer_of(), NEURONS, TEXTS, **options)
    assert len(found["effects"]) == 0
    assert found.notes == ("effects: neurons of the method given have no entropy",)
    found = examples(model_of("llama"), tokenizer_of(), NEURONS, TEXTS, entropy=ENTROPY, **options)
    assert len(found["effects"]) == 8


# --- the text ---


def ids_of(text):
    return tokenizer_of()(text, add_special_tokens=False)["input_ids"]


def test_long_documents_are_cut_so_that_twenty_of_them_fit():
    texts = [" ".join(some_texts(30, seed)) for seed in range(30)]
    cut = beginnings(Documents(texts), tokenizer_of(), TextOptions(tokens=400))
    assert len(cut.texts) == 20
    for short, text in zip(cut.texts, texts, strict=False):
        assert 17 <= len(ids_of(short)) <= 20  # half a character is left out
        assert ids_of(short) == ids_of(text)[: len(ids_of(short))]


def test_short_documents_are_taken_whole_until_there_are_enough_tokens():
    texts = some_texts(80)
    cut = beginnings(Documents(texts), tokenizer_of(), TextOptions(tokens=600)).texts
    assert list(cut) == texts[: len(cut)]
    assert sum(len(ids_of(text)) for text in cut[:-1]) < 600 <= sum(len(ids_of(text)) for text in cut)


def test_a_text_of_few_documents_stays_as_it_is(tmp_path):
    few = Documents([" ".join(some_texts(90, seed)) for seed in range(19)])
    assert beginnings(few, tokenizer_of(), TextOptions(tokens=400)) is few
    path = tmp_path / "a.txt"
    path.write_text("\n".join(some_texts(60)))
    assert beginnings(path, tokenizer_of(), TextOptions(tokens=400)) == path
    by_line = beginnings(path, tokenizer_of(), TextOptions(tokens=200, document="line"))
    assert isinstance(by_line, Documents)
