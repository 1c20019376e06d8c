"""The table of changed losses: its columns, its base, its controls, its intervals, and what it refuses."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from lape.data.texts import Documents
from lape.edit.edit import Off, edited
from lape.errors import FileError, MismatchError, OptionError, TextError
from lape.experiments.perplexity.run import PerplexityOptions, line_losses, perplexity
from lape.measure.ablation import Ablations
from lape.measure.controls import control, seeded
from lape.model.find import find
from lape.recording.record import record
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.space import NeuronSpace
from support.brute import logits_of, model_of, some_texts, tokenizer_of
from support.tiny import LAYERS

SPACE = NeuronSpace.dense(LAYERS, 44)
SETS = {"en": range(12), "fr": range(8, 20), "de": range(60, 64), "zh": range(0)}
COLUMNS = {
    "off": pl.String,
    "language": pl.String,
    "neurons": pl.Int64,
    "tokens": pl.Int64,
    "characters": pl.Int64,
    "sentences": pl.Int64,
    "units": pl.Int64,
    "nll_base": pl.Float64,
    "nll_off": pl.Float64,
    "delta_token": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "delta_character": pl.Float64,
    "delta_sentence": pl.Float64,
    "perplexity_base": pl.Float64,
    "perplexity_off": pl.Float64,
    "percent": pl.Float64,
    "random_mean": pl.Float64,
    "random_max": pl.Float64,
    "matched_mean": pl.Float64,
    "matched_max": pl.Float64,
    "matched_energy": pl.Float64,
}


def neurons_of(sets=SETS, **kept):
    return LanguageNeurons(SPACE, {k: NeuronSet(SPACE, torch.tensor(list(v))) for k, v in sets.items()}, **kept)


def texts_of(count=24, languages=("en", "fr", "zh")):
    return {language: Documents(some_texts(count, seed)) for seed, language in enumerate(languages)}


def table_of(texts, neurons=None, **options):
    options = {"resamples": 200, "row_tokens": 64, "draws": 3, "elsewhere": 1, **options}
    return perplexity(model_of("llama"), tokenizer_of(), neurons or neurons_of(), texts, **options)


def lines_of(texts, neurons=None, **options):
    options = PerplexityOptions(**{"resamples": 200, "row_tokens": 64, "draws": 3, "elsewhere": 1, **options})
    return line_losses(model_of("llama"), tokenizer_of(), neurons or neurons_of(), texts, options)


@pytest.fixture(scope="module")
def table():
    return table_of(texts_of())


def row(table, off, language):
    return table.row(by_predicate=(pl.col("off") == off) & (pl.col("language") == language), named=True)


def hand_loss(texts, off=None):
    """Mean nats per token, one document at a time, from the model's own logits."""
    nats, tokens = 0.0, 0
    with edited(model_of("llama"), [] if off is None else Off(off)):
        for text in texts.texts:
            ids = torch.tensor([tokenizer_of()(text)["input_ids"]])
            logs = logits_of(model_of("llama"), ids)[0].log_softmax(-1)
            nats -= float(logs[:-1].gather(1, ids[0, 1:, None]).sum())
            tokens += ids.shape[1] - 1
    return nats / tokens


def test_the_table_has_its_stated_columns_and_a_row_for_every_pair(table):
    assert dict(table.schema) == COLUMNS
    assert set(table.select("off", "language").rows()) == {(off, on) for off in SETS for on in ("en", "fr", "zh")}
    assert len(table) == 12


def test_columns_keep_their_kinds_where_nothing_is_known():
    assert dict(table_of(texts_of(3), draws=0).schema) == COLUMNS


@pytest.mark.parametrize("off", ["en", "fr", "de"])
@pytest.mark.parametrize("language", ["en", "fr"])
def test_losses_are_those_of_the_edited_model(table, off, language):
    texts, found = texts_of()[language], row(table, off, language)
    base, after = hand_loss(texts), hand_loss(texts, neurons_of()[off])
    assert found["nll_base"] == pytest.approx(base, rel=1e-6)
    assert found["nll_off"] == pytest.approx(after, rel=1e-6)
    assert found["delta_token"] == pytest.approx(after - base, abs=1e-5)


@pytest.mark.parametrize("language", ["en", "fr", "zh"])
def test_the_base_is_the_same_whatever_is_switched_off(table, language):
    some = table.filter(pl.col("language") == language)
    assert some.select("nll_base", "perplexity_base", "tokens", "characters", "sentences").n_unique() == 1


def test_the_same_change_is_given_per_token_character_and_sentence(table):
    whole = table["delta_token"] * table["tokens"]
    np.testing.assert_allclose(table["delta_character"] * table["characters"], whole)
    np.testing.assert_allclose(table["delta_sentence"] * table["sentences"], whole)


def test_perplexity_is_the_exponential_of_the_loss(table):
    np.testing.assert_allclose(table["perplexity_base"], np.exp(table["nll_base"]))
    np.testing.assert_allclose(table["perplexity_off"], np.exp(table["nll_off"]))
    np.testing.assert_allclose(
        table["percent"], 100 * (table["perplexity_off"] / table["perplexity_base"] - 1), atol=1e-9
    )


def test_what_is_counted_is_tokens_characters_lines_and_documents(table):
    texts = texts_of()["en"].texts
    found = row(table, "fr", "en")
    assert found["tokens"] == sum(len(tokenizer_of()(t, add_special_tokens=False)["input_ids"]) for t in texts)
    assert found["characters"] == sum(len(text) for text in texts)
    assert (found["sentences"], found["units"]) == (24, 24)


def test_an_empty_set_changes_exactly_nothing(table):
    nothing = table.filter(pl.col("off") == "zh")
    for column in ("delta_token", "delta_character", "delta_sentence", "percent", "low", "high"):
        assert nothing[column].to_list() == [0.0, 0.0, 0.0]
    assert nothing["neurons"].to_list() == [0, 0, 0]


def test_random_controls_stand_on_the_diagonal_of_sets_with_neurons_and_matched_ones_in_their_whole_rows(table):
    evaluated = table["off"].is_in(["en", "fr"])  # de has neurons and no text, zh no neurons
    for kind, wanted in (("random", evaluated & (table["off"] == table["language"])), ("matched", evaluated)):
        for column in table.select(f"{kind}_mean", f"{kind}_max"):
            assert column.is_not_null().to_list() == wanted.to_list()
    assert table["matched_energy"].is_not_null().to_list() == evaluated.to_list()


def test_the_mean_of_the_controls_is_at_most_the_largest(table):
    diagonal = table.drop_nulls("random_mean")
    for kind in ("random", "matched"):
        assert (diagonal[f"{kind}_mean"] <= diagonal[f"{kind}_max"] + 1e-12).all()


def test_controls_are_as_many_draws_as_asked_for_on_the_text_of_the_set_and_matched_ones_elsewhere():
    lines = lines_of(texts_of(3), draws=2, elsewhere=1, controls=("random", "gate"))
    drawn = lines.filter(pl.col("kind").is_in(["random", "gate"])).select("off", "kind", "draw", "language").unique()
    expected = {(k, kind, draw, k) for k in ("en", "fr") for kind in ("random", "gate") for draw in (0, 1)}
    expected |= {(k, "gate", 0, on) for k in ("en", "fr") for on in ("en", "fr", "zh")}
    assert set(drawn.rows()) == expected


def test_the_ratio_of_energies_is_that_of_the_very_sets_that_were_off():
    """Energies again by plain hooks on the text that is evaluated; the ratio's sum tells which neurons were drawn."""
    work = Ablations(model_of("llama"), tokenizer_of(), texts_of(21), PerplexityOptions(row_tokens=64))
    work.base()
    lines = lines_of(texts_of(21), draws=1, controls=("random", "matched", "gate", "matched-apart"))
    excluded = neurons_of().union
    for kind, of, pool in (
        ("random", "written", excluded),
        ("matched", "written", excluded),
        ("gate", "gate", excluded),
        ("matched-apart", "written", excluded | work.leading()),
    ):
        energy = work.energy("fr", of)
        drawn, _ = control(neurons_of()["fr"], pool, None if kind == "random" else energy, seeded(0, 1, 0))
        expected = float(energy[neurons_of()["fr"].flat].sum() / energy[drawn.flat].sum())
        (found,) = lines.filter(kind=kind, off="fr", language="fr")["energy_ratio"].unique()
        assert found == pytest.approx(expected)


def test_without_draws_there_are_no_controls():
    assert table_of(texts_of(3), draws=0)["matched_mean"].null_count() == 12


def test_the_table_is_the_same_again_and_another_seed_draws_others():
    texts = texts_of(21, ("en", "fr"))
    first, again, other = table_of(texts), table_of(texts), table_of(texts, seed=1)
    assert first.equals(again)
    assert row(first, "en", "en")["random_mean"] != row(other, "en", "en")["random_mean"]
    assert row(first, "en", "en")["matched_mean"] != row(other, "en", "en")["matched_mean"]
    assert row(first, "en", "en")["low"] != row(other, "en", "en")["low"]
    assert row(first, "en", "en")["delta_token"] == row(other, "en", "en")["delta_token"]


# --- units and intervals ---


@pytest.mark.parametrize(("count", "known"), [(19, False), (20, True)])
def test_under_20_units_there_is_no_interval(count, known):
    table = table_of(texts_of(count, ("en",)), draws=0)
    assert table["units"].to_list() == [count] * 4
    assert (table["low"].null_count() == 0) == known
    assert (table["high"].null_count() == 0) == known


def test_an_interval_holds_its_estimate(table):
    assert (table["low"] <= table["delta_token"]).all()
    assert (table["delta_token"] <= table["high"]).all()


def test_one_document_is_resampled_in_blocks_of_8_lines():
    text = {"en": Documents(["\n".join(some_texts(165, 3))])}
    table = table_of(text, draws=0, row_tokens=512)
    assert table["sentences"].to_list() == [165] * 4
    assert table["units"].to_list() == [21] * 4
    assert table["low"].null_count() == 0


def test_aligned_lines_lie_in_the_same_unit_in_every_language():
    texts = {"en": Documents(["\n".join(some_texts(30, 3))]), "fr": Documents(["\n".join(some_texts(30, 4))])}
    base = lines_of(texts, draws=0).filter(pl.col("kind") == "base")
    for language in ("en", "fr"):
        some = base.filter(pl.col("language") == language)
        assert some["unit"].to_list() == [line // 8 for line in some["line"]]


def test_a_row_is_never_a_unit():
    texts = {"en": Documents([" ".join(some_texts(30, 3)), "the cat"])}
    assert table_of(texts, draws=0, row_tokens=16)["units"].to_list() == [2] * 4


# --- what is refused ---


def recorded_neurons(texts, **options):
    stats = record(model_of("llama"), tokenizer_of(), texts, **options)
    return neurons_of(fingerprints=torch.cat([stats[language].fingerprints for language in stats.languages]))


def test_text_that_was_recorded_is_refused_with_what_to_do():
    texts = texts_of(5)
    with pytest.raises(MismatchError, match=r"en: 100% of this text .*allow_recorded=True"):
        table_of(texts, recorded_neurons(texts), draws=0)


def test_one_recorded_document_among_others_is_enough():
    neurons = recorded_neurons({"de": Documents([texts_of(5)["fr"].texts[3]])})
    with pytest.raises(MismatchError, match=r"fr: [0-9]+% of this text"):
        table_of(texts_of(5), neurons, draws=0)


def test_text_that_was_recorded_is_evaluated_where_allowed():
    texts = texts_of(5)
    assert len(table_of(texts, recorded_neurons(texts), draws=0, allow_recorded=True)) == 12


def test_recorded_text_is_known_again_whatever_a_document_is(tmp_path):
    (tmp_path / "en.txt").write_text("\n".join(some_texts(30)), encoding="utf-8")
    texts = {"en": tmp_path / "en.txt"}
    neurons = recorded_neurons(texts, document="file")
    with pytest.raises(MismatchError, match="recorded"):
        table_of(texts, neurons, draws=0, document="line")


@pytest.mark.parametrize(
    "change",
    [
        str.upper,
        str.title,
        lambda line: line.replace(" ", "  "),
        lambda line: "\u200b".join(line),
        lambda line: f"{line}!",
    ],
    ids=["capitals", "capitalised", "spaces", "zero-width spaces", "punctuation"],
)
def test_recorded_text_is_known_again_however_it_is_written(change):
    lines = some_texts(30)
    neurons = recorded_neurons({"en": Documents(lines)})
    with pytest.raises(MismatchError, match="recorded"):
        table_of({"en": Documents([" ".join(map(change, lines))])}, neurons, draws=0)


def test_neurons_of_another_model_are_refused():
    space = NeuronSpace.dense(LAYERS, 128)
    neurons = LanguageNeurons(space, {"en": NeuronSet(space, torch.arange(3))})
    with pytest.raises(MismatchError, match=r"3 × 128.*3 × 44"):
        table_of(texts_of(3), neurons)


@pytest.mark.parametrize(
    "options", [{"draws": -1}, {"elsewhere": -1}, {"resamples": 0}, {"tokens": 0}, {"controls": ("decile",)}]
)
def test_an_option_that_makes_no_sense_is_refused(options):
    with pytest.raises(OptionError):
        table_of(texts_of(3), **options)


def test_no_text_is_refused():
    with pytest.raises(TextError):
        table_of({})


def test_measuring_leaves_the_model_as_it_was():
    model, ids = model_of("llama"), torch.tensor([[1, 20, 30, 40]])
    before = logits_of(model, ids)
    table_of(texts_of(3))
    assert torch.equal(logits_of(model, ids), before)
    assert find(model).space == SPACE


# --- a stopped measurement ---


def stopped_after(cells):
    def progress(task, done, _total):
        if task == "switching neurons off" and done == cells:
            raise KeyboardInterrupt

    return progress


@pytest.fixture
def call(tmp_path):
    def run(folder="cells", told=None, changed=None, **more):
        (tmp_path / folder).mkdir(exist_ok=True)
        options = PerplexityOptions(
            **{"resamples": 200, "row_tokens": 64, "draws": 2, "elsewhere": 1, **(changed or {})}
        )
        more = {"planned": lambda *plan: told.append(plan), **more} if told is not None else more
        where = tmp_path / folder if folder != "." else None
        return line_losses(model_of("llama"), tokenizer_of(), neurons_of(), texts_of(), options, folder=where, **more)

    return run


@pytest.mark.parametrize("cells", [0, 1, 7])
def test_a_stopped_measurement_goes_on_with_what_is_missing(call, monkeypatch, cells):
    from lape.measure import ablation

    expected = call("whole")
    with pytest.raises(KeyboardInterrupt):
        call(progress=stopped_after(cells))
    measured, line_loss = [], ablation.line_loss
    monkeypatch.setattr(ablation, "line_loss", lambda *args: measured.append(1) or line_loss(*args))
    assert call().equals(expected)
    whole = len(measured) + cells
    measured.clear()
    call("again")
    assert len(measured) == whole + 3  # and the unedited model in three languages
    measured.clear()
    assert call("again").equals(expected)
    assert not measured


def test_the_passes_and_their_time_are_said_before_the_first(call):
    told = []
    with pytest.raises(KeyboardInterrupt):
        call(told=told, progress=stopped_after(0))
    runs = {key: len(texts_of()) for key in ("en", "fr", "de")} | {
        "controls": 2 * 2 * 2,  # of en and fr, which are evaluated
        "elsewhere": 2 * 2,  # one matched draw of each in the two other languages
    }
    (passes, tokens, seconds), per_pass = told[0], call("all").group_by("language").agg(pl.col("tokens").max())
    assert passes == sum(runs.values())
    assert per_pass.height == 3
    assert tokens > 0
    assert seconds > 0
    call(told=told)
    assert told[1] == (passes, tokens, None)  # the unedited model was measured before the stop
    call(told=told)
    assert told[2] == (passes, 0, None)


@pytest.mark.parametrize("change", [{"draws": 1}, {"seed": 5}, {"row_tokens": 32}])
def test_a_stopped_measurement_does_not_go_on_with_other_options(call, change):
    with pytest.raises(KeyboardInterrupt):
        call(progress=stopped_after(2))
    with pytest.raises(FileError, match="in which options was"):
        call(changed=change)
