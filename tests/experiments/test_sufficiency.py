"""What a set restores where nothing else of its layers is left: every share by hooks written by hand, and sets of which the answer is known."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional

from lape import record
from lape.data.corpus import TextOptions
from lape.data.texts import Documents
from lape.errors import OptionError
from lape.experiments.context import Context, SharedOptions
from lape.experiments.sufficiency import EXPERIMENT, SufficiencyStudy
from lape.experiments.sufficiency.figures import keeping as draw_keeping
from lape.experiments.sufficiency.run import FIRST, FULLEST, PLACES, TOP, keeping, layers_of
from lape.figures.style import Paper
from lape.measure.ablation import Ablations
from lape.measure.controls import control, seeded
from lape.model.loss import Loss
from lape.values.neurons import LanguageNeurons, NeuronSet
from support.brute import rewritten, some_texts, tokenizer_of, trained

LANGUAGES = ("en", "fr", "zh")
READ = {"row_tokens": 64, "batch_tokens": 128}
LINES = {language: some_texts(22, 50 + k, words=(4, 9)) for k, language in enumerate(LANGUAGES)}
TEXTS = {language: Documents(lines) for language, lines in LINES.items()}
WIDTH = 44
SETS = {"en": [2, 50, 51, 100], "fr": [7, 8, 60, 120, 121, 122], "zh": [30]}


@cache
def model():
    return trained("llama", [text for lines in LINES.values() for text in lines])


@cache
def stats():
    texts = {language: Documents(some_texts(8, k)) for k, language in enumerate(LANGUAGES)}
    return record(model(), tokenizer_of(), texts, **READ)


def given(sets):
    space = stats().space
    return LanguageNeurons(space, {k: NeuronSet(space, torch.tensor(flat)) for k, flat in sets.items()})


def work_of():
    work = Ablations(model(), tokenizer_of(), TEXTS, TextOptions(**READ))
    work.base()
    return work


@cache
def found():
    return keeping(work_of(), given(SETS), stats().overall_mean(), draws=2, resamples=100)


def summed(language):
    """(2,) loss in nats and scored tokens, line by line."""
    total = np.zeros(2)
    for text in LINES[language]:
        ids = torch.tensor([tokenizer_of()(text)["input_ids"]])
        with torch.no_grad():
            logits = model()(input_ids=ids, use_cache=False).logits[0]
        total += float(functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="sum")), ids.shape[1] - 1
    return total


def left(layers, kept, language):
    """Summed losses with all neurons of some layers at their mean over languages but for some, by hooks; the first position is spared."""
    mean = sum(stats().mean(one) for one in LANGUAGES) / len(LANGUAGES)

    def put(layer, a):
        if layer in layers:
            for neuron in range(WIDTH):
                if layer * WIDTH + neuron not in kept:
                    a[..., 1:, neuron] = mean[layer * WIDTH + neuron].to(a.dtype)
        return a

    with rewritten(model(), "llama", put):
        return summed(language)[0]


@pytest.mark.parametrize(("place", "language"), [(FIRST, "fr"), (FULLEST, "en"), (TOP, "fr"), (FIRST, "zh")])
def test_every_share_is_what_hooks_by_hand_give(place, language):
    row = found().row(by_predicate=(pl.col("place") == place) & (pl.col("language") == language), named=True)
    layers = {FIRST: [0], FULLEST: [1], TOP: [2]}[place]
    assert row["layers"] == layers
    assert row["lost"] > 0.01
    inside = {k: {one for one in flat if one // WIDTH in layers} for k, flat in SETS.items()}
    before, tokens = summed(language)
    nothing = left(layers, set(), language) - before
    share = {k: 1 - (left(layers, kept, language) - before) / nothing for k, kept in inside.items()}
    assert row["lost"] == pytest.approx(nothing / tokens, rel=1e-3)
    assert (row["neurons"], row["of"]) == (len(inside[language]), WIDTH)
    assert row["restored"] == pytest.approx(share[language], abs=2e-3)
    by_others = [share[k] for k in LANGUAGES if k != language and inside[k]]
    others = np.mean(by_others)
    assert row["by_others"] == pytest.approx(others, abs=2e-3)
    assert row["most_by_others"] == pytest.approx(max(by_others), abs=2e-3)
    assert row["over_others"] == pytest.approx(share[language] - others, abs=3e-3)
    own, number = given(SETS)[language].in_layers(layers), LANGUAGES.index(language)
    moved = work_of().moved(language, stats().overall_mean())
    drawn = [control(own, given(SETS).union, moved, seeded(0, number, k))[0] for k in range(2)]
    by = np.mean([1 - (left(layers, set(one.flat.tolist()), language) - before) / nothing for one in drawn])
    assert row["draws"] == 2
    assert row["by_control"] == pytest.approx(by, abs=2e-3)
    assert row["over_control"] == pytest.approx(share[language] - by, abs=3e-3)
    assert row["over_control_low"] <= row["over_control"] <= row["over_control_high"]
    ratio = moved[own.flat].sum() / np.mean([float(moved[one.flat].sum()) for one in drawn])
    assert row["energy_ratio"] == pytest.approx(float(ratio))
    assert bool(row["unlike"]) == (not 0.8 <= ratio <= 1.25)


def test_a_set_without_neurons_there_restores_nothing_that_is_known():
    row = found().row(by_predicate=(pl.col("place") == TOP) & (pl.col("language") == "zh"), named=True)
    assert row["neurons"] == 0
    assert row["lost"] is row["restored"] is row["over_control"] is row["by_others"] is None


def test_a_language_without_any_neurons_has_nulls_everywhere():
    table = keeping(work_of(), given({**SETS, "zh": []}), stats().overall_mean(), draws=1, resamples=20)
    rows = table.filter(language="zh")
    assert rows["neurons"].to_list() == [0, 0, 0]
    assert rows["of"].to_list() == [WIDTH, 0, WIDTH]
    assert rows["lost"].null_count() == 3


@pytest.mark.parametrize("places", [PLACES, PLACES[1:], PLACES[1:2]])
@pytest.mark.parametrize("width", [3.3, 6.9])
def test_a_panel_for_each_place_that_has_something_to_show(places, width):
    table = found().filter(pl.col("place").is_in(places))
    drawn = draw_keeping({"keeping": table}, Paper(width=width))
    assert [axes.get_title() for axes in drawn.axes] == list(places)


def test_a_whole_layer_left_restores_all_of_it_and_has_no_control():
    sets = {"fr": list(range(WIDTH)), "en": [50], "zh": [51]}
    table = keeping(work_of(), given(sets), stats().overall_mean(), draws=1, resamples=20).filter(language="fr")
    row = table.filter(place=FIRST).row(0, named=True)
    assert row["restored"] == pytest.approx(1.0, abs=1e-9)
    assert row["draws"] == 0
    assert row["by_control"] is row["over_control"] is None


def test_where_nothing_is_lost_nothing_is_restored_that_could_be_said():
    work = work_of()
    work._base = {k: Loss(one.nll + 1e3, one.tokens) for k, one in work._base.items()}  # as if unedited were worse
    table = keeping(work, given(SETS), stats().overall_mean(), draws=1, resamples=20)
    assert table["lost"].max() < 0
    assert table["restored"].null_count() == table["by_others"].null_count() == len(table)


def test_places():
    fr, nothing = given(SETS)["fr"], given({"fr": []})["fr"]
    assert [layers_of(place, fr) for place in PLACES] == [[0], [2], [2]]
    assert [layers_of(place, nothing) for place in PLACES] == [[0], [], [2]]


def test_doses_end_with_everything_off_and_what_was_measured_once_is_not_again(tmp_path, monkeypatch):
    lines = {language: LINES[language] for language in LANGUAGES}
    context = Context(
        model(),
        tokenizer_of(),
        stats(),
        lines,
        SharedOptions(tokens=200, resamples=50, main=None),
        Path(tmp_path),
        chosen=given(SETS),
    )
    tables = EXPERIMENT.checked(EXPERIMENT.run(context, SufficiencyStudy(keep_draws=1, doses=(50,))))
    whole = tables["doses"].filter(dose=100, of="set")
    work = context.work
    for row in whole.filter(pl.col("language") != "mean").iter_rows(named=True):
        off = work.off(given(SETS)[row["language"]], row["language"]).nll - work.unedited(row["language"]).nll
        assert row["own"] == pytest.approx(off.sum() / (work.unedited(row["language"]).tokens > 0).sum())
    half = tables["doses"].filter(dose=50, of="set", language="fr")["own"].item()
    by_hand = work.scaled(given(SETS)["fr"], 0.5, "fr").nll - work.unedited("fr").nll
    assert half == pytest.approx(by_hand.mean())
    assert tables["dose_growth"]["step"].to_list() == ["50 to 100", "smallest to largest"]
    monkeypatch.setattr("lape.measure.ablation.line_loss", lambda *_a, **_k: pytest.fail("measured again"))
    again = Context(
        context.model, context.tokenizer, stats(), lines, context.options, Path(tmp_path), chosen=given(SETS)
    )
    assert EXPERIMENT.run(again, SufficiencyStudy(keep_draws=1, doses=(50,)))["keeping"].equals(tables["keeping"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"keep_draws": 0}, "1 or more"), ({"doses": (0,)}, "1 to 99"), ({"doses": (100,)}, "1 to 99")],
)
def test_what_would_measure_nothing_is_refused(options, expected):
    with pytest.raises(OptionError, match=f"Expected {expected}"):
        SufficiencyStudy(**options)
