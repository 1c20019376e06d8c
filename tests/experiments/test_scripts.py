"""Script or language: sets and damage of the same sentences in several writings, on a tiny model."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
import torch

from lape.data import samples
from lape.data.corpus import TextOptions
from lape.data.rewriting import shuffled
from lape.data.texts import Documents
from lape.detect.halves import halves
from lape.detect.lape import LapeOptions, lape
from lape.detect.stability import chance_jaccard
from lape.edit.edit import Off, edited
from lape.errors import MismatchError, OptionError, TextError
from lape.experiments.scripts.run import SCRIPTS, counting_of, scripts
from lape.experiments.scripts.writings import ScriptOptions, first_lines, native, noisy, rewritten
from lape.recording.engine import RecordOptions
from lape.recording.record import record
from lape.values.neurons import jaccard
from lape.values.stats import ActivationStats, LanguageStats
from support.brute import logits_of, model_of, tokenizer_of

RULE = LapeOptions(rate=0.6, filter=0.5, bar=0.5)
COUNTED = {"row_tokens": 64, "document": "line"}
DAMAGES = ("own_on_native", "own_on_variant", "variant_on_native", "variant_on_variant")
MADE_WITHOUT_LIBRARIES = {"kinds": ("shuffled",), "resamples": 100}


def lines_of(language: str) -> list[str]:
    every = [line.strip() for text in samples.texts("all")[language].texts for line in text.split("\n")]
    return list(dict.fromkeys(filter(None, every)))


RECORDED = {language: lines_of(language)[:70] for language in ("en", "fr", "zh")}
OTHER = {language: lines_of(language)[70:90] for language in RECORDED}


def documents(lines: dict[str, list[str]]) -> dict[str, Documents]:
    return {language: Documents(found) for language, found in lines.items()}


@pytest.fixture(scope="module")
def stats():
    return record(model_of("llama"), tokenizer_of(), documents(RECORDED), **COUNTED)


def table_of(stats, recorded=None, other=None, **options):
    return scripts(
        model_of("llama"),
        tokenizer_of(),
        stats,
        documents(recorded or {"fr": RECORDED["fr"]}),
        documents(other or {"fr": OTHER["fr"]}),
        rule=RULE,
        **{**MADE_WITHOUT_LIBRARIES, **options},
    )


@pytest.fixture(scope="module")
def table(stats):
    return table_of(stats, {k: RECORDED[k] for k in ("fr", "zh")}, {k: OTHER[k] for k in ("fr", "zh")})


def set_of(stats, language, one):
    """The language's neurons where its counts are `one`."""
    kept = {name: stats[name] if name != language else one for name in stats.languages}
    return lape(ActivationStats(stats.space, kept, {}), **vars(RULE))[language]


def recorded_alone(lines):
    return record(model_of("llama"), tokenizer_of(), {"de": Documents(lines)}, **COUNTED)["de"]


def hand_nats(lines, off=None):
    """Nats of every line of one document, row by row of 63 tokens behind BOS, from the model's own logits."""
    tokenizer = tokenizer_of()
    encoded = tokenizer("\n".join(lines), add_special_tokens=False, return_offsets_mapping=True)
    ids, starts = encoded["input_ids"], [start for start, _ in encoded["offset_mapping"]]
    ends = np.cumsum([len(line) + 1 for line in lines])
    of_token = np.searchsorted(ends, starts, side="right")
    nats = np.zeros(len(lines))
    with edited(model_of("llama"), [] if off is None else Off(off)):
        for at in range(0, len(ids), 63):
            row = torch.tensor([[1, *ids[at : at + 63]]])
            losses = -logits_of(model_of("llama"), row)[0, :-1].double().log_softmax(-1)
            for k, token in enumerate(row[0, 1:].tolist()):
                nats[of_token[at + k]] += float(losses[k, token])
    return nats


# The table


def test_the_table_has_a_row_for_each_language_and_writing(table):
    assert table.schema == SCRIPTS
    wanted = [("fr", "fr-x-shuffled", "shuffled", "words"), ("zh", "zh-x-shuffled", "shuffled", "characters")]
    assert table.select("language", "variant", "kind", "by").rows() == wanted


def test_sets_are_those_of_the_same_lines_with_the_other_languages_as_they_were(stats, table):
    for language, row in table.rows_by_key("language", named=True, unique=True).items():
        own = set_of(stats, language, recorded_alone(RECORDED[language]))
        variant = set_of(stats, language, recorded_alone(shuffled(RECORDED[language], language, 0)[0]))
        assert (row["neurons_native"], row["neurons_variant"]) == (len(own), len(variant))
        assert len(own) >= 20, "or the test tests nothing"
        assert row["jaccard"] == jaccard(own, variant)
        assert row["chance"] == chance_jaccard(own, variant)


def test_the_ceiling_is_of_halves_of_the_language_s_own_folds(stats, table):
    own = recorded_alone(RECORDED["fr"])
    values = []
    for pair in halves(8):
        kept = [
            {name: own.tensors[name][list(half)].sum(0, keepdim=True) for name in ("tokens", "routed", "fires")}
            for half in pair
        ]
        values.append(jaccard(*(set_of(stats, "fr", LanguageStats(one)) for one in kept)))
    assert table["ceiling"][0] == pytest.approx(statistics.median(values))


def test_the_damage_is_that_of_the_model_itself(stats, table):
    row = table.row(0, named=True)
    native_lines, varied = OTHER["fr"], shuffled(OTHER["fr"], "fr", 0)[0]
    own = set_of(stats, "fr", recorded_alone(RECORDED["fr"]))
    variant = set_of(stats, "fr", recorded_alone(shuffled(RECORDED["fr"], "fr", 0)[0]))
    base, before = hand_nats(native_lines), hand_nats(varied)
    assert row["nats_native"] == pytest.approx(base.mean(), rel=1e-5)
    assert row["nats_variant"] == pytest.approx(before.mean(), rel=1e-5)
    expected = {
        "own_on_native": hand_nats(native_lines, own) - base,
        "own_on_variant": hand_nats(varied, own) - before,
        "variant_on_native": hand_nats(native_lines, variant) - base,
        "variant_on_variant": hand_nats(varied, variant) - before,
    }
    for name, difference in expected.items():
        assert row[name] == pytest.approx(difference.mean(), abs=1e-3), name


def test_what_is_kept_is_the_native_set_s_damage_on_the_variant_over_that_on_the_native(table):
    some = 0
    for row in table.iter_rows(named=True):
        if row["own_on_native"] > 0:
            some += 1
            assert row["kept"] == pytest.approx(row["own_on_variant"] / row["own_on_native"])
        else:
            assert row["kept"] is None, "a share of no damage says nothing"
    assert some


def test_lines_apart_are_read_each_by_itself_and_are_the_units(stats):
    lines = [f"{a} {b}" for a in OTHER["fr"] for b in ("encore", "oui")]
    row = table_of(stats, other={"fr": lines}, evaluation_tokens=10**6, apart=True).row(0, named=True)
    alone = [hand_nats([line])[0] for line in lines]
    assert row["units"] == len(lines)
    assert row["nats_native"] == pytest.approx(sum(alone) / len(lines), rel=1e-5)
    assert row["own_on_native_low"] < row["own_on_native"] < row["own_on_native_high"]


def test_blocks_of_8_lines_are_the_units_and_under_20_there_is_no_interval(table):
    assert table["units"].to_list() == [3, 3]
    assert all(table[f"{name}_{end}"].null_count() == 2 for name in DAMAGES for end in ("low", "high"))


def test_with_20_units_there_is_an_interval_around_the_damage(stats):
    lines = [f"{a} {b}" for a in OTHER["fr"] for b in ("encore", "oui", "non", "bien", "mal", "peu", "tant", "la")]
    row = table_of(stats, other={"fr": lines}, evaluation_tokens=10**6).row(0, named=True)
    assert row["units"] == 20
    for name in DAMAGES:
        assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]


def test_a_language_s_row_is_the_same_again_and_whatever_others_are_asked_for(stats, table):
    assert table_of(stats).equals(table[:1])


def test_a_set_under_20_neurons_has_no_jaccard(stats):
    found = scripts(
        model_of("llama"),
        tokenizer_of(),
        stats,
        documents({"fr": RECORDED["fr"]}),
        documents({"fr": OTHER["fr"]}),
        rule=LapeOptions(rate=0.05, filter=0.5, bar=0.5),
        **MADE_WITHOUT_LIBRARIES,
    ).row(0, named=True)
    assert 0 < found["neurons_native"] < 20
    assert [found[name] for name in ("jaccard", "ceiling", "chance")] == [None] * 3


def test_the_model_is_left_as_it_was(stats):
    ids = torch.tensor([[1, 20, 30, 40]])
    before = logits_of(model_of("llama"), ids)
    table_of(stats)
    assert torch.equal(logits_of(model_of("llama"), ids), before)


def test_every_writing_that_there_is_comes_with_its_noise(stats):
    for library in ("pypinyin", "anyascii", "opencc"):
        pytest.importorskip(library)
    found = table_of(
        stats,
        {k: RECORDED[k] for k in ("en", "zh")},
        {k: OTHER[k] for k in ("en", "zh")},
        kinds=("romanised", "converted", "shuffled", "noised"),
        steps=3,
    )
    assert found.select("variant", "by").rows() == [
        ("en-x-shuffled", "words"),
        ("zh-Latn", "pypinyin"),
        ("zh-Hant", "OpenCC s2t"),
        ("zh-x-shuffled", "characters"),
        ("zh-x-noised", "lape"),
    ]
    assert found["rate"].is_not_null().to_list() == [False] * 4 + [True]
    assert found["nats_native"].n_unique() == 2, "a language's base is one"


# The writings


def test_lines_are_whole_and_as_many_as_hold_the_tokens():
    tokenizer, lines = tokenizer_of(), RECORDED["fr"]
    sizes = np.cumsum([len(tokenizer(line, add_special_tokens=False)["input_ids"]) for line in lines])
    for tokens in (1, int(sizes[4]), int(sizes[4]) + 1, 10**9):
        found = first_lines(Documents(["\n".join(lines), "", " \n"]), tokens, tokenizer, TextOptions())
        assert found == lines[: int(np.searchsorted(sizes, tokens)) + 1]


def test_a_writing_that_changes_nothing_is_none():
    own = native("fr", ["un", "deux"], ["trois"])
    assert rewritten(own, "fr", ScriptOptions(kinds=("shuffled", "converted"))) == []


def test_noise_is_as_costly_as_the_other_writing_and_the_same_rate_everywhere():
    own = native("en", RECORDED["en"], OTHER["en"])
    (like,) = rewritten(own, "en", ScriptOptions(kinds=("shuffled",)))

    def cost(lines):
        part = RECORDED["en"][: len(lines)]
        return (
            25.0
            if lines == like.recorded[: len(lines)]
            else sum(a != b for old, new in zip(part, lines, strict=True) for a, b in zip(old, new, strict=True))
            / len(lines)
        )

    found = noisy(own, like, "en", cost, ScriptOptions(steps=8))
    assert found.reached
    assert cost(found.recorded) == pytest.approx(25, rel=0.1)
    for before, after in ((own.recorded, found.recorded), (own.evaluated, found.evaluated)):
        old, new = "".join(before), "".join(after)
        changed = sum(a != b for a, b in zip(old, new, strict=True))
        assert changed == round(found.rate * sum(map(str.isalpha, old)))


# What is refused


def test_languages_must_be_the_same_in_both_texts(stats):
    with pytest.raises(TextError, match="same languages"):
        table_of(stats, other={"zh": OTHER["zh"]})


def test_a_language_that_was_not_recorded_is_refused(stats):
    with pytest.raises(TextError, match="de was not recorded"):
        table_of(stats, {"de": RECORDED["fr"]}, {"de": OTHER["fr"]})


def test_damage_is_not_measured_on_recorded_text(stats):
    with pytest.raises(MismatchError, match=r"fr: [0-9]+% .* Evaluate on other text"):
        table_of(stats, other={"fr": RECORDED["fr"][:10]})


def test_a_text_without_a_line_is_refused(stats):
    with pytest.raises(TextError, match="to evaluate on for fr has no line"):
        table_of(stats, other={"fr": [" \n "]})


def test_statistics_of_another_model_are_refused():
    other = record(model_of("qwen2"), tokenizer_of(), documents(RECORDED), **COUNTED)
    with pytest.raises(MismatchError, match="model_type qwen2 and llama"):
        table_of(other)


@pytest.mark.parametrize("options", [{"kinds": ("sung",)}, {"tokens": 0}, {"steps": 0}])
def test_an_option_that_makes_no_sense_is_refused(stats, options):
    with pytest.raises(OptionError):
        table_of(stats, **options)


def test_the_rules_of_counting_are_those_of_the_statistics(stats):
    assert counting_of(stats) == RecordOptions(**COUNTED)
    capped = record(model_of("llama"), tokenizer_of(), documents(RECORDED), tokens=200, bos="never")
    assert counting_of(capped) == RecordOptions(bos="never")
