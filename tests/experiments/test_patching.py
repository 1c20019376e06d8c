"""Zeroed and mean-patched losses against both done by hand, and neurons for which the two must differ or agree."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional

from lape import record
from lape.data.texts import Documents
from lape.errors import MismatchError, OptionError, TextError
from lape.experiments.patching.run import patching
from lape.measure.controls import control, seeded
from lape.model.find import find
from lape.values.neurons import LanguageNeurons, NeuronSet
from support.brute import down_squares, hooks_on, model_of, rewritten, some_texts, tokenizer_of
from support.made import made_stats
from support.tiny import tiny

LANGUAGES = ("en", "fr", "zh")
READ = {"row_tokens": 64, "batch_tokens": 128}
LINES = {language: some_texts(22, 50 + k, words=(4, 9)) for k, language in enumerate(LANGUAGES)}
TEXTS = {language: Documents(lines) for language, lines in LINES.items()}
SETS = {"en": [2, 50, 51, 100], "fr": [7, 8, 60, 120, 121], "zh": [30]}


@cache
def stats(kind="llama"):
    texts = {language: Documents(some_texts(8, k)) for k, language in enumerate(LANGUAGES)}
    return record(model_of(kind), tokenizer_of(), texts, **READ)


def given(space, sets=None):
    found = {language: NeuronSet(space, torch.tensor(flat)) for language, flat in (sets or SETS).items()}
    return LanguageNeurons(space, found)


def run(**changes):
    texts = changes.pop("texts", TEXTS)
    return patching(model_of("llama"), tokenizer_of(), given(stats().space), stats(), texts, **READ, **changes)


@cache
def found():
    return run()


def nats(model, language):
    """(lines,) summed losses and scored tokens."""
    losses, counts = [], []
    for text in LINES[language]:
        ids = torch.tensor([tokenizer_of()(text)["input_ids"]])
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[0]
        losses.append(float(functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="sum")))
        counts.append(ids.shape[1] - 1)
    return np.array(losses), np.array(counts)


@cache
def by_hand(leave_out=False):
    """(off, language) -> change in nats per token, zeroed and patched (to the mean over all languages, or all but the set's own)."""
    model, means = model_of("llama"), [stats().mean(language) for language in LANGUAGES]
    result = {}
    for off, flat in SETS.items():
        for language in LANGUAGES:
            before, counts = nats(model, language)
            both = []
            mean = [one for k, one in zip(LANGUAGES, means, strict=True) if k != off or not leave_out]
            for value in (torch.zeros(3 * 44), sum(mean) / len(mean)):

                def put(layer, a, value=value, flat=flat):
                    for one in flat:
                        if one // 44 == layer:
                            a[..., one % 44] = value[one]
                    return a

                with rewritten(model, "llama", put):
                    both.append((nats(model, language)[0] - before).sum() / counts.sum())
            result[off, language] = both
    return result


@pytest.mark.parametrize("mean", ["all", "others"])
def test_every_cell_is_what_both_cost_by_hand(mean):
    matrix = run(mean=mean)["patched_matrix"]
    assert len(matrix) == 9
    for row in matrix.iter_rows(named=True):
        zeroed, patched = by_hand(mean == "others")[row["off"], row["language"]]
        assert row["zeroed"] == pytest.approx(zeroed, rel=1e-4, abs=1e-5)
        assert row["patched"] == pytest.approx(patched, rel=1e-4, abs=1e-5)
        assert row["difference"] == pytest.approx(patched - zeroed, rel=1e-4, abs=2e-5)
        assert row["low"] <= row["difference"] <= row["high"]
    assert hooks_on(model_of("llama")) == 0


def test_a_row_holds_own_others_and_selectivity_of_each():
    for row in found()["patching"].iter_rows(named=True):
        own = by_hand()[row["language"], row["language"]]
        rest = [by_hand()[row["language"], other] for other in LANGUAGES if other != row["language"]]
        others = [sum(one[k] for one in rest) / 2 for k in range(2)]
        for k, name in enumerate(("off", "patched")):
            assert row[f"{name}_own"] == pytest.approx(own[k], rel=1e-4, abs=1e-5)
            assert row[f"{name}_others"] == pytest.approx(others[k], rel=1e-4, abs=1e-5)
            a, b = max(row[f"{name}_own"], 0), max(row[f"{name}_others"], 0)
            assert row[f"{name}_selectivity"] == pytest.approx(a / (a + b) if a else 0)
        assert row["selectivity"] == pytest.approx(row["patched_selectivity"] - row["off_selectivity"])
        assert row["neurons"] == len(SETS[row["language"]])
        assert row["units"] == 22


def moved_by_hand(language, value):
    """(neurons,) the mean square by which each activation is moved to a value over the tokens of text, times the down column's."""
    total, count, width = torch.zeros(3, 44, dtype=torch.float64), 0, 44

    def see(layer, a):
        total[layer] += (a[:, 1:].double() - value[layer * width : (layer + 1) * width]).square().sum((0, 1))
        return a

    with rewritten(model_of("llama"), "llama", see), torch.no_grad():
        for text in LINES[language]:
            ids = torch.tensor([tokenizer_of()(text)["input_ids"]])  # BOS first, which does not count
            model_of("llama")(input_ids=ids, use_cache=False)
            count += ids.shape[1] - 1
    return total.flatten() / count * down_squares("llama")


def test_controls_at_their_mean_are_the_nearest_in_how_much_that_changes_them():
    table = run(mean="others", draws=1, elsewhere=0)["patched_controlled"]
    union = given(stats().space).union
    for number, row in enumerate(table.iter_rows(named=True)):
        off = row["language"]
        mean, own = stats().others_mean(off), given(stats().space)[off]
        moved = moved_by_hand(off, mean)
        drawn, _ = control(own, union, moved, seeded(0, number, 0))
        assert row["energy_ratio"] == pytest.approx(float(moved[own.flat].sum() / moved[drawn.flat].sum()), rel=1e-4)

        def put(layer, a, drawn=drawn, mean=mean):
            for one in drawn.flat.tolist():
                if one // 44 == layer:
                    a[..., one % 44] = mean[one]
            return a

        before, counts = nats(model_of("llama"), off)
        with rewritten(model_of("llama"), "llama", put):
            expected = (nats(model_of("llama"), off)[0] - before).sum() / counts.sum()
        assert row["of_control"] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_difference_is_paired():
    """Resampled together, so narrower than the two apart."""
    row = found()["patching"].row(1, named=True)
    apart = [row[f"{name}_own_high"] - row[f"{name}_own_low"] for name in ("off", "patched")]
    assert row["own_high"] - row["own_low"] < sum(apart)
    assert run(seed=1)["patching"]["own_low"].to_list() != found()["patching"]["own_low"].to_list()
    assert run()["patching"].equals(found()["patching"])


def test_a_neuron_that_never_changes_costs_nothing_to_patch_and_something_to_zero():
    model = tiny("gpt2")
    with torch.no_grad():
        for block in model.transformer.h:
            block.mlp.c_fc.weight[:, 5] = 0
            block.mlp.c_fc.bias[5] = 3.0
    recorded = record(model, tokenizer_of(), {k: Documents(some_texts(8, j)) for j, k in enumerate(LANGUAGES)}, **READ)
    constant = given(find(model).space, {"fr": [5, 49, 93]})
    matrix = patching(model, tokenizer_of(), constant, recorded, TEXTS, **READ)["patched_matrix"]
    assert matrix["patched"].abs().max() < 1e-6
    assert matrix["zeroed"].abs().min() > 1e-4


def test_the_mean_gives_every_language_the_same_weight():
    made = made_stats(0, sums=True)
    expected = sum(made[k].sums("sum") / made[k].tokens.sum() for k in made.languages) / 3
    assert torch.allclose(made.overall_mean(), expected)
    with pytest.raises(OptionError, match="two or more"):
        made_stats(0, ("fr",), sums=True).overall_mean()


def test_what_was_measured_is_found_again_and_another_value_is_not_taken_for_it(tmp_path, monkeypatch):
    run(folder=tmp_path)
    other = record(
        model_of("llama"), tokenizer_of(), {k: Documents(some_texts(8, 9 + j)) for j, k in enumerate(LANGUAGES)}, **READ
    )
    fresh = patching(model_of("llama"), tokenizer_of(), given(stats().space), other, TEXTS, folder=tmp_path, **READ)
    assert fresh["patched_matrix"]["patched"].to_list() != found()["patched_matrix"]["patched"].to_list()
    assert fresh["patched_matrix"]["zeroed"].to_list() == found()["patched_matrix"]["zeroed"].to_list()
    monkeypatch.setattr("lape.measure.ablation.line_loss", lambda *_a, **_k: pytest.fail("measured again"))
    assert run(folder=tmp_path)["patched_matrix"].equals(found()["patched_matrix"])


def test_one_language_has_no_others_and_few_units_no_interval():
    alone = run(texts={"fr": Documents(LINES["fr"][:5])})
    row = alone["patching"].row(0, named=True)
    assert row["off_others"] is row["selectivity"] is row["own_low"] is None
    assert row["off_own"] is not None
    assert alone["patching"]["language"].to_list() == alone["patched_matrix"]["off"].to_list() == ["fr"]


def test_an_empty_set_changes_nothing():
    sets = given(stats().space, {"fr": [], "en": [3]})
    matrix = patching(model_of("llama"), tokenizer_of(), sets, stats(), TEXTS, **READ)["patched_matrix"]
    nothing = matrix.filter(pl.col("off") == "fr")
    assert nothing["zeroed"].to_list() == nothing["patched"].to_list() == [0.0] * 3


def test_what_does_not_fit_is_refused():
    with pytest.raises(MismatchError, match="statistics"):
        patching(model_of("llama"), tokenizer_of(), given(stats().space), made_stats(0), TEXTS, **READ)
    with pytest.raises(MismatchError, match="neurons belong"):
        patching(model_of("llama"), tokenizer_of(), given(made_stats(0).space, {"fr": [1]}), stats(), TEXTS, **READ)
    with pytest.raises(OptionError, match="mean is"):
        run(mean="none")
    with pytest.raises(TextError, match="no text in a language"):
        run(texts={"de": Documents(LINES["fr"])})
