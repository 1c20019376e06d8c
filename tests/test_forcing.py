"""Language forcing from the questions to the tables, on a made model whose answers are known; and what is refused."""

from __future__ import annotations

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brute import model_of
from lape.analyse.forced import RECORDS
from lape.detect import identify
from lape.errors import MismatchError, OptionError, TextError
from lape.evaluate.bench import Bench
from lape.evaluate.families import CEILING, NONE, TUNED, following, tried
from lape.evaluate.forcing import ANSWERS, Forced, forcing, pairs_of
from lape.evaluate.judge import Band, in_language, on_topic, repetition, written
from lape.evaluate.nll import find_head
from lape.identifiers import IDENTIFIERS
from lape.options import ForcingOptions, GenerationOptions
from lape.recording import record
from polyglot import (
    LANGUAGES,
    by_letter,
    own_neurons,
    polyglot,
    polyglot_questions,
    polyglot_texts,
    polyglot_tokenizer,
)

torch.set_num_threads(1)

PAIRS = [("en", "fr"), ("fr", "id")]
FOLLOWERS = {"target only", "source off", "random", "other", "permuted"}
DEVELOPMENT, REPORTING = polyglot_questions(2, 10), polyglot_questions(3, 20)
CANDIDATES = 4


@pytest.fixture(scope="module", autouse=True)
def identifiers():
    with pytest.MonkeyPatch.context() as patch:
        for name in IDENTIFIERS:
            patch.setitem(IDENTIFIERS, name, by_letter)
        yield


@pytest.fixture(scope="module")
def stats():
    return record(polyglot(), polyglot_tokenizer(), polyglot_texts(1), residual=True)


@pytest.fixture(scope="module")
def force(stats):
    """A run on the made model."""
    neurons = identify(stats, "difference", per_language=12)

    def run(**changes):
        given = {"stats": stats, "development": DEVELOPMENT, "reporting": REPORTING, "neurons": neurons}
        options = {"texts": polyglot_texts(1), "pairs": "en-fr,fr-id", "new_tokens": 8, "resamples": 50}
        return forcing(polyglot(), polyglot_tokenizer(), **{**given, **options, "candidates": CANDIDATES, **changes})

    return run


@pytest.fixture(scope="module")
def forced(force):
    return force(evaluation=polyglot_texts(4, 12))


# --- settings and pairs ---


@pytest.mark.parametrize("layers", [6, 18, 48])
def test_every_tuned_family_has_as_many_settings_none_of_them_twice(layers):
    every = [tried(family, layers) for family in TUNED]
    assert len({len(some) for some in every}) == 1
    for family, some in zip(TUNED, every, strict=True):
        assert len(set(some)) == len({setting.name for setting in some}) == len(some)
        assert {setting.family for setting in some} == {family}


def test_what_follows_neurons_is_parts_of_the_chosen_setting_and_its_controls():
    for chosen in tried("neurons", 18):
        found = {setting.family: setting for setting in following(chosen)}
        assert set(found) == FOLLOWERS
        assert {setting.sets for setting in found.values()} == {chosen.sets}
        assert "off" not in found["target only"].steer.how
        assert found["source off"].steer.how == "off"
        for control in ("random", "other", "permuted"):
            assert found[control].control == control
            assert found[control].steer == chosen.steer


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(["en", "zh", "fr", "es", "vi", "id", "ja", "de", "it", "sv"]), unique=True, min_size=2))
def test_all_pairs_and_a_third_of_them_in_which_every_language_is_as_often_source_as_target(languages):
    every = {(source, target) for source in languages for target in languages if source != target}
    assert sorted(pairs_of(languages, "all")) == sorted(every)
    third = pairs_of(languages, "third")
    assert len(set(third)) == len(third)
    assert set(third) <= every
    share = -(-(len(languages) - 1) // 3)
    for language in languages:
        assert [source for source, _ in third].count(language) == share
        assert [target for _, target in third].count(language) == share


def test_named_pairs_are_in_the_order_given_by_their_standard_tags():
    assert pairs_of(["eng_Latn", "fr", "id"], "fr-id, en-fr  id-en") == [("fr", "id"), ("en", "fr"), ("id", "en")]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("en", "'en' is no pair.*en-fr"),
        ("en-en", "en-en cannot be asked: source and target are the same"),
        ("en-fr,fr-zh", "fr-zh cannot be asked: there are questions in en, fr, id only"),
    ],
)
def test_pairs_that_cannot_be_asked_are_refused(spec, message):
    with pytest.raises(OptionError, match=message):
        pairs_of(LANGUAGES, spec)


# --- a whole run ---


def whole(forced, split="report"):
    """Family -> its row over all pairs; a tuned family's is the setting chosen."""
    rows = forced.table.filter(pl.col("chosen"), split=split, source="all", target="all").to_dicts()
    return {row["family"]: row for row in rows}


def test_every_question_has_one_answer_under_every_setting_and_pair(forced):
    assert dict(forced.answers.schema) == ANSWERS
    assert dict(forced.table.schema) == RECORDS
    for (split, family), rows in forced.answers.group_by("split", "family"):
        pairs = [("fr", "fr"), ("id", "id")] if family == "ceiling" else PAIRS
        count = 10 if split == "development" else 20
        cells = rows.group_by("setting", "source", "target").agg(pl.col("question").sort())
        assert all(cell == list(range(count)) for cell in cells["question"].to_list())
        assert len(cells) == rows["setting"].n_unique() * len(pairs)
        assert set(cells.select("source", "target").rows()) == set(pairs)
    report = forced.answers.filter(split="report")
    assert set(report["family"]) == {"none", "ceiling", *TUNED, *FOLLOWERS}
    assert report.select("family", "setting").n_unique() == report["family"].n_unique()
    assert forced.notes == ()


def test_every_setting_is_tried_on_the_development_questions(forced):
    found = set(forced.answers.filter(split="development").select("family", "setting").rows())
    expected = {(family, setting.name) for family in TUNED for setting in tried(family, 3)}
    assert found == expected | {(NONE.family, NONE.name), (CEILING.family, CEILING.name)}


def score(answers, family, setting, column):
    """A share over the ceiling's, averaged by target."""
    own = answers.filter(family=family, setting=setting).group_by("target").agg(pl.col(column).mean())
    top = answers.filter(family="ceiling").group_by("target").agg(pl.col(column).mean().alias("top"))
    both = own.join(top, on="target").filter(pl.col("top") > 0)
    return (both[column] / both["top"]).mean() or 0.0


@pytest.mark.parametrize("family", TUNED)
def test_the_reported_setting_is_the_best_on_the_development_questions(forced, family):
    answers = forced.answers.filter(split="development")
    names = [setting.name for setting in tried(family, 3)]
    scores = {name: [score(answers, family, name, column) for column in ("good", "in_language")] for name in names}
    (reported,) = forced.answers.filter(split="report", family=family)["setting"].unique()
    assert scores[reported] == pytest.approx(max(scores.values()))
    assert forced.table.filter(pl.col("chosen"), family=family)["setting"].unique().to_list() == [reported]


def test_the_made_model_does_what_it_was_made_for(forced):
    share = {family: row["in_language"] for family, row in whole(forced).items()}
    assert [share[family] for family in ("ceiling", "mask")] == [1, 1]
    assert [share[family] for family in ("none", "source off", "random", "other")] == [0] * 4
    assert min(share["neurons"], share["diffmean"]) > 0.9
    assert whole(forced)["ceiling"]["on_topic"] > 2 / CANDIDATES


def test_neurons_are_compared_with_every_other_family_but_the_ceiling(forced):
    families = {*TUNED, *FOLLOWERS, "none"} - {"neurons"}
    assert set(forced.differences["family"]) == families
    rows = whole(forced)
    for row in forced.differences.to_dicts():
        expected = rows["neurons"][row["measure"]] - rows[row["family"]][row["measure"]]
        assert row["difference"] == pytest.approx(expected)
        assert row["low"] <= row["difference"] + 1e-9
        assert row["difference"] <= row["high"] + 1e-9


@pytest.mark.parametrize(("family", "asked"), [("none", "en"), ("ceiling", "fr")])
def test_unedited_answers_are_greedy_continuations_of_the_question(forced, family, asked):
    cell = forced.answers.filter(split="report", family=family, source=asked, target="fr").sort("question")
    for question, answer in zip(REPORTING[asked][:4], cell["answer"], strict=False):
        ids = torch.tensor([polyglot_tokenizer()(f"Q: {question}\nA:")["input_ids"]])
        out = polyglot().generate(ids, do_sample=False, max_new_tokens=8, repetition_penalty=1.1, pad_token_id=0)
        assert answer == polyglot_tokenizer().decode(out[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("family", ["none", "ceiling", "prompt", "diffmean"])
@pytest.mark.parametrize("split", ["development", "report"])
def test_answers_are_judged_as_defined_and_by_the_development_ceiling(forced, split, family):
    model, tokenizer, head = polyglot(), polyglot_tokenizer(), find_head(polyglot())
    ceiling = forced.answers.filter(split="development", family="ceiling", target="fr")["answer"].to_list()
    band = Band(written(model, tokenizer, head, ceiling))
    questions = {"development": DEVELOPMENT, "report": REPORTING}[split]["fr"]
    for row in (
        forced.answers.filter(split=split, family=family, target="fr").sort("setting", "question")[::2].to_dicts()
    ):
        text = row["answer"]
        (guess,) = by_letter()([text])
        (alone,) = written(model, tokenizer, head, [text])
        assert row["language"] == row["language_second"] == guess.language
        assert row["in_language"] is row["in_language_second"] is in_language(text, guess, "fr")
        assert row["fluent"] is band.fluent(alone)
        topic = on_topic(model, tokenizer, head, [(row["question"], text)], questions, "fr", CANDIDATES)[0]
        assert row["on_topic"] is (topic if row["in_language"] else None)
        assert row["good"] is (row["in_language"] and row["fluent"] and topic)
        assert row["nll"] == pytest.approx(alone.nll.mean(), abs=1e-5)
        assert row["distinct4"] == pytest.approx(1 - repetition(text))
        assert (row["empty"], row["wpr"]) == (False, None)  # Latin script


def test_examples_are_other_development_questions_with_the_ceiling_s_answers(force, monkeypatch, forced):
    seen, inner = [], Bench.answers

    def spy(self, setting, questions, source, target, examples=()):
        seen.append((setting, questions, source, target, examples))
        return inner(self, setting, questions, source, target, examples)

    monkeypatch.setattr(Bench, "answers", spy)
    force(families=("prompt",))
    ceiling = forced.answers.filter(split="development", family="ceiling")
    known = {(row["target"], row["question"]): row["answer"] for row in ceiling.to_dicts()}
    shown = [one for one in seen if one[0].asking.shots]
    assert shown
    for setting, questions, source, target, examples in shown:
        assert len(examples) == len(questions[source])
        for question, some in zip(questions[source], examples, strict=True):
            assert len(set(some)) == len(some) == setting.asking.shots
            for asked, answer in some:
                assert asked != question
                assert known[target, DEVELOPMENT[source].index(asked)] == answer


def test_given_neurons_are_those_of_lape_settings(stats):
    neurons = identify(stats, "difference", per_language=12)
    assert {language: neurons[language].flat.tolist() for language in LANGUAGES} == {
        language: own_neurons(language) for language in LANGUAGES
    }
    bench = Bench(polyglot(), polyglot_tokenizer(), stats, None, GenerationOptions(), neurons=neurons)
    assert bench.sets("lape") is neurons


def test_settings_may_be_tried_on_other_pairs_than_are_reported(force):
    answers = force(families=("mask",), development_pairs="id-en").answers
    rows = {
        split: set(answers.filter(family="mask", split=split).select("source", "target").rows())
        for split in ("development", "report")
    }
    assert rows == {"development": {("id", "en")}, "report": set(PAIRS)}


# --- a run that is stopped ---


class Stopped(Exception):
    pass


def test_a_stopped_run_goes_on_from_its_finished_cells_and_gives_the_same_tables(force, monkeypatch, tmp_path):
    options = {"families": ("none", "mask", "neurons", "permuted"), "folder": tmp_path, "pairs": "en-fr"}
    generated, inner = [], Bench.answers

    def counted(self, setting, questions, source, target, examples=()):
        if stop and len(generated) == stop:
            raise Stopped
        generated.append((setting, len(questions["en"]), source, target))
        return inner(self, setting, questions, source, target, examples)

    monkeypatch.setattr(Bench, "answers", counted)
    stop = None
    expected = force(**{**options, "folder": None})
    every = generated.copy()
    generated.clear()
    for stop in (5, len(every) - 2):  # while settings are tried, and while the chosen ones are reported
        with pytest.raises(Stopped):
            force(**options)
    stop = None
    found = force(**options)
    assert generated == every
    for table in ("answers", "table", "differences"):
        assert getattr(found, table).equals(getattr(expected, table))
    assert isinstance(force(**options), Forced)
    assert generated == every


# --- what is left out, and what is refused ---


def test_families_that_lack_something_are_left_out_with_what_to_type(force):
    bare = record(polyglot(), polyglot_tokenizer(), polyglot_texts(1, 5))
    found = force(families=("mask", "diffmean", "none"), texts={"fr": polyglot_texts(1)["fr"]}, stats=bare)
    assert set(found.answers["family"]) == {"ceiling", "none"}
    mask, diffmean = sorted(found.notes, key=lambda note: "mask" not in note)
    assert "text in id" in mask
    assert "--text id=PATH" in mask
    assert "--residual" in diffmean


def test_a_mask_without_text_is_refused_with_what_to_type(stats):
    bench = Bench(polyglot(), polyglot_tokenizer(), stats, None, GenerationOptions())
    with pytest.raises(TextError, match=r"text in fr.*--text fr=PATH"):
        bench.answers(tried("mask", 3)[0], DEVELOPMENT, "en", "fr")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"families": ("neurons", "magic")}, OptionError, r"'magic'.*Expected some of.*neurons"),
        ({"candidates": 1}, OptionError, "candidates is 1"),
        ({"resamples": 0}, OptionError, "resamples is 0"),
        ({"questions": 3}, OptionError, "no option questions"),
        ({"identifier": "nobody"}, OptionError, "nobody"),
        ({"development": {**DEVELOPMENT, "fr": DEVELOPMENT["fr"][:9]}}, TextError, r"en 10, fr 9, id 10"),
        ({"reporting": {"en": ["a"], "fr": ["b"], "id": ["c"]}}, TextError, "fewer than 2"),
        ({"reporting": {}}, TextError, "fewer than 2"),
        ({"reporting": polyglot_questions(3, 20, ("en", "fr"))}, TextError, "different languages"),
        ({"development": {"en": ["a", "b"]}, "reporting": {"en": ["a", "b"]}}, TextError, "At least two"),
        ({"development": polyglot_questions(2, 7)}, OptionError, r"Only 7 .*more questions"),
    ],
)
def test_what_makes_no_sense_is_refused(force, changes, error, message):
    with pytest.raises(error, match=message):
        force(**changes)


def test_statistics_of_another_model_are_refused_with_both_sizes(stats):
    with pytest.raises(MismatchError, match=r"3 × 1,200.*3 × 44"):
        forcing(model_of("llama"), polyglot_tokenizer(), stats, DEVELOPMENT, REPORTING, ForcingOptions())
