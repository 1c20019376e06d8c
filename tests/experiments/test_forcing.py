"""Language forcing from the questions to the tables, on a made model whose answers are known; and what is refused."""

from __future__ import annotations

import copy
import dataclasses
from functools import cache
from itertools import product

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.data.language_id import IDENTIFIERS, Guess
from lape.detect.identify import identify
from lape.errors import FileError, MismatchError, OptionError, TextError
from lape.experiments.forcing import run as module
from lape.experiments.forcing.run import ForcingOptions, forcing
from lape.experiments.forcing.section import section
from lape.experiments.forcing.table import BY_TARGET, RECORDS
from lape.experiments.section import Rows
from lape.measure import answers as verdicts_module
from lape.measure import bench as bench_module
from lape.measure.answer_fluency import Bounds, repetition, written
from lape.measure.answer_quality import english_word, in_language, on_topic
from lape.measure.answer_spans import foreign, mixed, spans
from lape.measure.answers import ANSWERS
from lape.measure.bench import Bench
from lape.measure.generation import GenerationOptions
from lape.measure.grader import Grader
from lape.measure.methods import CEILING, NONE, TUNED, Setting, following, tried
from lape.measure.prompts import Asking
from lape.measure.questions import few_native, pairs_of
from lape.measure.result import Result
from lape.model.loss import find_head
from lape.options import keywords_of
from lape.recording.record import record
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.stats import ActivationStats
from support.brute import model_of
from support.polyglot import (
    LANGUAGES,
    by_letter,
    own_neurons,
    polyglot,
    polyglot_questions,
    polyglot_texts,
    polyglot_tokenizer,
)

forcing = keywords_of(ForcingOptions)(forcing)

torch.set_num_threads(1)

PAIRS = [("en", "fr"), ("fr", "id")]
FOLLOWERS = {"target only", "source off", "random", "other", "permuted"}
DEVELOPMENT, REPORTING = polyglot_questions(2, 10), polyglot_questions(3, 20)
NATIVE = polyglot_questions(6, 20)
NOTED = tuple(few_native(NATIVE))
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


def neurons_of(stats, **changed):
    """The neurons that see and write each language; `changed`: language -> those of which language, or none."""
    found = identify(stats, "difference", per_language=12)
    sets = {language: found[changed.get(language) or language] for language in LANGUAGES}
    empty = NeuronSet(stats.space, torch.empty(0, dtype=torch.int64))
    sets |= {language: empty for language, instead in changed.items() if instead is None}
    return LanguageNeurons(stats.space, sets, method="made")


@pytest.fixture(scope="module")
def force(stats):
    """A run on the made model."""
    neurons = neurons_of(stats)

    def run(**changes):
        model = changes.pop("model", polyglot())
        given = {
            "stats": stats,
            "development": DEVELOPMENT,
            "reporting": REPORTING,
            "native": NATIVE,
            "neurons": neurons,
        }
        options = {"texts": polyglot_texts(1), "pairs": "en-fr,fr-id", "new_tokens": 8, "resamples": 50}
        return forcing(model, polyglot_tokenizer(), **{**given, **options, "candidates": CANDIDATES, **changes})

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


@pytest.mark.parametrize(
    ("languages", "spec", "expected"),
    [
        (["eng_Latn", "fr", "id"], "fr-id, en-fr  id-eng_Latn", [("fr", "id"), ("en", "fr"), ("id", "en")]),
        (["zh-Hant", "en"], "zh-Hant-en,en-zh-Hant", [("zh-Hant", "en"), ("en", "zh-Hant")]),
        (["zh-Hant", "zh", "en"], "zh-zh-Hant zh-Hant-zh zh-en", [("zh", "zh-Hant"), ("zh-Hant", "zh"), ("zh", "en")]),
        (["fr-x-mine", "hi-Latn"], "fr-x-mine-hi-Latn", [("fr-x-mine", "hi-Latn")]),
    ],
)
def test_named_pairs_are_in_the_order_given_by_their_standard_tags(languages, spec, expected):
    assert pairs_of(languages, spec) == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("en", r"'en' is not a pair.*\(en, fr, id\).*en-fr"),
        ("en-en", "en-en cannot be asked: source and target are the same"),
        ("en-fr,fr-zh", r"'fr-zh' is not a pair.*\(en, fr, id\)"),
        ("zh-Hant-en", r"'zh-Hant-en' is not a pair.*\(en, fr, id\)"),
        ("en-nonsense", r"'en-nonsense' is not a pair"),
    ],
)
def test_pairs_that_cannot_be_asked_are_refused(spec, message):
    with pytest.raises(OptionError, match=message):
        pairs_of(LANGUAGES, spec)


# --- a whole run ---


def whole(forced, split="report"):
    """Family -> its row over all pairs; a tuned family's is the setting chosen."""
    rows = forced["forcing"].filter(pl.col("chosen"), split=split, source="all", target="all").to_dicts()
    return {row["family"]: row for row in rows}


def test_every_question_has_one_answer_under_every_setting_and_pair(forced):
    assert dict(forced["forced_answers"].schema) == ANSWERS
    assert dict(forced["forcing"].schema) == RECORDS
    for (split, family), rows in forced["forced_answers"].group_by("split", "family"):
        pairs = [("fr", "fr"), ("id", "id")] if family == "ceiling" else PAIRS
        count = 10 if split == "development" else 20
        cells = rows.group_by("setting", "source", "target").agg(pl.col("question").sort())
        assert all(cell == list(range(count)) for cell in cells["question"].to_list())
        assert len(cells) == len(pairs) * (rows["setting"].n_unique() if split == "development" else 1)
        assert set(cells.select("source", "target").rows()) == set(pairs)
    report = forced["forced_answers"].filter(split="report")
    assert set(report["family"]) == {"none", "ceiling", *TUNED, *FOLLOWERS}
    assert report.select("family", "target", "setting").n_unique() == report.select("family", "target").n_unique()
    assert forced.notes == NOTED


def test_every_setting_is_tried_on_the_development_questions(forced):
    found = set(forced["forced_answers"].filter(split="development").select("family", "setting").rows())
    expected = {(family, setting.name) for family in TUNED for setting in tried(family, 3)}
    assert found == expected | {(NONE.family, NONE.name), (CEILING.family, CEILING.name)}


def score(answers, family, setting, column, target):
    """A share over the ceiling's."""
    own = answers.filter(family=family, setting=setting, target=target)[column].mean()
    top = answers.filter(family="ceiling", target=target)[column].mean()
    return own / top if top else 0.0


@pytest.mark.parametrize(("family", "target"), product(TUNED, ("fr", "id")))
def test_the_reported_setting_of_a_target_is_its_best_on_the_development_questions(forced, family, target):
    answers = forced["forced_answers"].filter(split="development")
    names = [setting.name for setting in tried(family, 3)]
    scores = {
        name: [score(answers, family, name, column, target) for column in ("good", "in_language")] for name in names
    }
    (reported,) = forced["forced_answers"].filter(split="report", family=family, target=target)["setting"].unique()
    assert scores[reported] == pytest.approx(max(scores.values()))
    rows = forced["forcing"].filter(pl.col("chosen"), family=family, target=target)
    assert set(rows.select("split", "setting").rows()) == {("development", reported), ("report", reported)}


def test_each_target_is_reported_under_its_own_setting_and_what_follows_it(force, monkeypatch):
    settings = tried("neurons", 3)
    wanted, seen, inner = {"fr": settings[1], "id": settings[-1]}, set(), Bench.answers

    def answers(self, setting, questions, source, target, examples=()):
        if len(questions["en"]) == 20:
            seen.add((setting, target))
        return inner(self, CEILING if setting == wanted[target] else NONE, questions, source, target)

    monkeypatch.setattr(Bench, "answers", answers)
    table = force(families=("neurons", "target only", "permuted"))["forcing"]
    expected = {(one, target) for target, own in wanted.items() for one in (CEILING, own, *following(own))}
    assert seen == {(one, target) for one, target in expected if one.family in {"ceiling", *set(table["family"])}}
    assert set(table["family"]) == {"ceiling", "neurons", "target only", "permuted"}
    for family in ("neurons", "target only", "permuted"):
        rows = {row["target"]: row for row in table.filter(split="report", source="all", family=family).to_dicts()}
        found = {target: row["setting"] for target, row in rows.items()}
        assert found == {"fr": wanted["fr"].name, "id": wanted["id"].name, "all": BY_TARGET}
        assert all(row["chosen"] for row in rows.values())
        assert rows["all"]["in_language"] == pytest.approx(float(family == "neurons"))


def test_the_made_model_does_what_it_was_made_for(forced):
    share = {family: row["in_language"] for family, row in whole(forced).items()}
    assert [share[family] for family in ("ceiling", "mask")] == [1, 1]
    assert [share[family] for family in ("none", "source off", "other")] == [0] * 3
    assert share["random"] < 0.1
    assert min(share["neurons"], share["diffmean"]) > 0.9
    assert whole(forced)["ceiling"]["on_topic"] > 2 / CANDIDATES


def test_a_grader_grades_the_reported_answers_with_the_question_in_the_target_language(force, monkeypatch):
    seen = []

    def grades(self, asked, target):
        seen.append((self, target, [question for question, _ in asked]))
        return [None if number == 3 else number % 3 for number in range(len(asked))]

    monkeypatch.setattr(Grader, "grades", grades)
    found = force(families=("none",), grader_url="http://127.0.0.1:9/v1", grader_model="m")
    reported = found["forced_answers"].filter(split="report", family="none", target="fr").sort("question")
    assert reported["graded"].to_list() == [None if number == 3 else number % 3 for number in range(20)]
    assert found["forced_answers"].filter(split="development")["graded"].is_null().all()
    row = found["forcing"].filter(split="report", family="none", source="en", target="fr").to_dicts()[0]
    assert row["graded"] == pytest.approx(reported["graded"].mean())
    assert {(str(one), target, tuple(asked)) for one, target, asked in seen} == {
        (str(Grader("http://127.0.0.1:9/v1", "m")), target, tuple(REPORTING[target])) for target in ("fr", "id")
    }


def test_without_a_grader_nothing_is_graded(forced):
    assert forced["forced_answers"]["graded"].is_null().all()
    assert forced["forcing"]["graded"].is_null().all()


@pytest.mark.parametrize("fewer", [2, None])
def test_development_questions_may_have_fewer_candidates(force, monkeypatch, fewer):
    seen, inner = set(), verdicts_module.on_topic

    def spy(model, tokenizer, head, answers, questions, target, candidates, **rest):
        seen.add((len(questions), candidates))
        return inner(model, tokenizer, head, answers, questions, target, candidates, **rest)

    monkeypatch.setattr(verdicts_module, "on_topic", spy)
    force(families=("none",), development_candidates=fewer)
    assert seen == {(10, fewer or CANDIDATES), (20, CANDIDATES)}


def test_families_that_follow_neurons_are_missed_without_them(force):
    found = force(families=("none", "random", "permuted"))
    assert found.notes == (
        *NOTED,
        "random, permuted: left out, since they follow the setting chosen for neurons. Name neurons too.",
    )


def test_costs_are_those_of_the_edits_that_are_reported_on_every_language(forced):
    report = forced["forced_answers"].filter(split="report")
    edits = report.filter(pl.col("family").is_in(["neurons", "random", "diffmean"]))
    expected = {
        (*row, one) for row in edits.select("family", "setting", "source", "target").rows() for one in LANGUAGES
    }
    assert set(forced["costs"].select("family", "setting", "source", "target", "language").rows()) == expected
    assert len(forced["costs"]) == len(expected)


def test_the_identifiers_are_tried_on_text_as_long_as_the_ceiling_s_answers(forced):
    ceiling = forced["forced_answers"].filter(family="ceiling")
    for row in forced["identification"].to_dicts():
        lengths = ceiling.filter(target=row["language"])["answer"].str.len_chars()
        assert row["characters"] == int(lengths.median())
    found = set(forced["identification"].select("identifier", "language", "mixed_with").rows())
    assert found == {
        (identifier, *mixed)
        for identifier in ("lingua", "langid")
        for mixed in (("fr", None), ("fr", "id"), ("id", None), ("id", "fr"))
    }


def test_neurons_are_compared_with_every_other_family_but_the_ceiling(forced):
    families = {*TUNED, *FOLLOWERS, "none"} - {"neurons"}
    assert set(forced["forcing_differences"]["family"]) == families
    rows = whole(forced)
    for row in forced["forcing_differences"].to_dicts():
        expected = rows["neurons"][row["measure"]] - rows[row["family"]][row["measure"]]
        assert row["difference"] == pytest.approx(expected)
        assert row["low"] <= row["difference"] + 1e-9
        assert row["difference"] <= row["high"] + 1e-9


def test_the_report_shows_shares_beside_the_ceiling_costs_of_all_roles_and_tuned_pairs_apart(forced):
    blocks = {block.name: block for block in section(dict(forced)).blocks if isinstance(block, Rows)}
    ways = {row["family"]: row for row in blocks["ways of steering"].frame.to_dicts()}
    costs = forced["costs"]
    for family, row in whole(forced).items():
        for name in ("good", "good_minus_ceiling", "good_over_ceiling", "mixed"):
            assert ways[family][name] == row[name]
        for role in ("source", "target", "third"):
            mean = costs.filter(family=family, role=role)["delta_token"].mean()
            assert ways[family][f"cost_{role}"] == pytest.approx(mean)
    (finding,) = section(dict(forced)).findings
    assert f"a share of {whole(forced)['neurons']['good']:.2f} (" in finding
    apart = blocks["pairs tuned on"].frame
    assert set(apart["family"]) == {*TUNED, *FOLLOWERS, "none"}
    assert apart["tuned"].all()  # settings were chosen on all pairs
    assert set(apart["pairs"]) == {2}
    assert "pairs tuned on" not in {
        block.name for block in section({"forcing": forced["forcing"]}).blocks if isinstance(block, Rows)
    }


def test_pairs_that_are_only_reported_are_not_tuned(force):
    found = force(families=("none",), development_pairs="en-fr")
    rows = {
        (row["source"], row["target"]): row["tuned"]
        for row in found["forcing"].filter(family="none", split="report").to_dicts()
    }
    assert (rows["en", "fr"], rows["fr", "id"], rows["all", "all"]) == (True, False, None)
    assert set(found["forcing_transfer"].select("family", "tuned", "pairs").rows()) == {
        ("none", True, 1),
        ("none", False, 1),
    }


@cache
def unedited(question):
    """What the model answers by itself."""
    ids = torch.tensor([polyglot_tokenizer()(f"Q: {question}\nA:")["input_ids"]])
    out = polyglot().generate(ids, do_sample=False, max_new_tokens=8, repetition_penalty=1.1, pad_token_id=0)
    return polyglot_tokenizer().decode(out[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize(("family", "asked"), [("none", "en"), ("ceiling", "fr")])
def test_unedited_answers_are_greedy_continuations_of_the_question(forced, family, asked):
    cell = forced["forced_answers"].filter(split="report", family=family, source=asked, target="fr").sort("question")
    for question, answer in zip(REPORTING[asked][:4], cell["answer"], strict=False):
        assert answer == unedited(question)


@pytest.mark.parametrize("family", ["none", "ceiling", "prompt", "diffmean"])
@pytest.mark.parametrize("split", ["development", "report"])
def test_answers_are_judged_as_defined_and_by_the_native_answers(forced, split, family):
    model, tokenizer, head = polyglot(), polyglot_tokenizer(), find_head(polyglot())
    native = [unedited(question) for question in NATIVE["fr"]]
    bounds = Bounds(written(model, tokenizer, head, native))
    questions = {"development": DEVELOPMENT, "report": REPORTING}[split]["fr"]
    for row in (
        forced["forced_answers"]
        .filter(split=split, family=family, target="fr")
        .sort("setting", "question")[::3]
        .to_dicts()
    ):
        text = row["answer"]
        (guess,), (elsewhere,) = by_letter()([text]), spans([text], "fr", by_letter(), by_letter())
        (alone,) = written(model, tokenizer, head, [text])
        assert row["language"] == row["language_second"] == guess.language
        assert row["in_language"] is row["in_language_second"] is in_language(text, guess, "fr")
        assert row["fluent"] is bounds.fluent(alone)
        assert row["calibrated_on"] == bounds.calibrated_on(alone)
        topic = on_topic(model, tokenizer, head, [(row["question"], text)], questions, "fr", CANDIDATES)[0]
        assert row["on_topic"] is (topic if row["in_language"] and row["fluent"] else None)
        assert row["mixed"] == mixed(text, elsewhere)
        assert row["foreign"] == pytest.approx(foreign(text, elsewhere))
        assert row["good"] is (row["in_language"] and row["fluent"] and topic and not row["mixed"])
        assert row["nll"] == pytest.approx(alone.nll.mean(), abs=1e-5)
        assert row["distinct4"] == pytest.approx(1 - repetition(text))
        assert (row["empty"], row["wpr_after_lcb"]) == (False, None)  # Latin script


def test_native_answers_may_be_to_other_questions_which_are_never_reported(force, monkeypatch):
    seen, inner = [], Bench.answers

    def spy(self, setting, questions, source, target, examples=()):
        seen.append((setting, source, target, questions[target]))
        return inner(self, setting, questions, source, target, examples)

    monkeypatch.setattr(Bench, "answers", spy)
    native = polyglot_questions(5, 100)
    found = force(families=("none",), native=native, pairs="en-fr")
    assert [one[:3] for one in seen if one[3] == native["fr"]] == [(CEILING, "fr", "fr")]
    assert found.notes == ()
    assert found["forced_answers"].filter(pl.col("fluent"))["calibrated_on"].min() >= 39
    report = found["forcing"].filter(family="none", split="report", target="fr", source="en").row(0, named=True)
    assert report["calibrated_on"] == found["forced_answers"].filter(family="none")["calibrated_on"].min()
    few = force(families=("none",), pairs="en-fr", native=None, development=NATIVE).notes
    assert len(few) == 1
    assert "bounded by 20 native answers of each language; by fewer than 39" in few[0]
    assert "0.90. Better give 100" in few[0]


def test_an_answer_partly_in_another_language_is_not_good(force, monkeypatch):
    monkeypatch.setattr(verdicts_module, "mixed", lambda text, _found: sum(map(ord, text)) % 3 == 0)
    answers = force(families=("none",), pairs="en-fr")["forced_answers"].filter(family="ceiling")
    assert answers["mixed"].n_unique() == 2
    for row in answers.to_dicts():
        assert row["good"] is bool(row["on_topic"] and not row["mixed"])
    assert answers["good"].any()
    assert answers.filter(pl.col("on_topic") & ~pl.col("good")).height


def certain_of(words):
    """An identifier that is certain only of answers whose first word has one of these as its third letter."""

    def identify(texts):
        guesses = by_letter()(texts)
        return [
            guess if text.strip()[2:3] in words else Guess(None, 0.0)
            for text, guess in zip(texts, guesses, strict=True)
        ]

    return lambda _languages: identify


@pytest.mark.parametrize("words", ["abcd", "a"], ids=["enough", "too few"])
def test_examples_are_other_development_questions_with_the_ceiling_s_answers_in_the_language(force, monkeypatch, words):
    seen, inner = [], Bench.answers

    def spy(self, setting, questions, source, target, examples=()):
        seen.append((setting, questions, source, target, examples))
        return inner(self, setting, questions, source, target, examples)

    monkeypatch.setattr(Bench, "answers", spy)
    monkeypatch.setitem(IDENTIFIERS, "lingua", certain_of(words))
    found = force(families=("prompt",))
    ceiling = found["forced_answers"].filter(pl.col("in_language"), split="development", family="ceiling")
    known = {(row["target"], row["question"]): row["answer"] for row in ceiling.to_dicts()}
    shown = [one for one in seen if one[0].asking.shots]
    assert shown
    short = set()
    for setting, questions, source, target, examples in shown:
        assert len(examples) == len(questions[source])
        for question, some in zip(questions[source], examples, strict=True):
            others = [k for of, k in known if of == target and DEVELOPMENT[source][k] != question]
            assert len(set(some)) == len(some) == min(setting.asking.shots, len(others))
            short.add(len(some) < setting.asking.shots)
            for asked, answer in some:
                assert asked != question
                assert known[target, DEVELOPMENT[source].index(asked)] == answer
    assert (True in short) == (words == "a")


def test_where_examples_are_few_as_many_are_shown_as_there_are(stats, monkeypatch):
    prompts = []
    monkeypatch.setattr(bench_module, "generate", lambda _m, _t, asked, *_, **__: prompts.extend(asked) or asked)
    bench = Bench(polyglot(), polyglot_tokenizer(), stats, None, GenerationOptions())
    five = Setting("prompt", "five", asking=Asking(frame="target", shots=5))
    examples = [[(f"question {k}", f"answer {k}") for k in range(count)] for count in (0, 2, 5, 7)]
    bench.answers(five, {"en": ["one", "two", "three", "four", "five"]}, "en", "fr", examples)
    assert [prompt.count("answer") for prompt in prompts] == [0, 2, 5, 5, 0]
    assert [prompt.count("Question:") for prompt in prompts] == [1, 3, 6, 6, 1]


def test_english_words_are_judged_in_clean_answers_in_other_scripts_than_latin(stats, force):
    def named(of):
        return {"fr-Cyrl" if language == "fr" else language: value for language, value in of.items()}

    stats = ActivationStats(stats.space, named(stats.by_language), stats.manifest)
    questions = {"development": named(DEVELOPMENT), "reporting": named(REPORTING), "native": named(NATIVE)}
    found = force(stats=stats, **questions, neurons=None, families=("none",), pairs="en-fr-Cyrl,en-id")[
        "forced_answers"
    ]
    for row in found.to_dicts():
        judged = row["lpr_after_lcb"] and row["target"] == "fr-Cyrl"
        assert row["wpr_after_lcb"] is (not english_word(row["answer"]) if judged else None)
    assert found["wpr_after_lcb"].to_list().count(False)


def test_given_neurons_are_those_of_lape_settings(stats):
    neurons = identify(stats, "difference", per_language=12)
    assert {language: neurons[language].flat.tolist() for language in LANGUAGES} == {
        language: own_neurons(language) for language in LANGUAGES
    }
    bench = Bench(polyglot(), polyglot_tokenizer(), stats, None, GenerationOptions(), neurons=neurons)
    assert bench.sets("lape") is neurons


def test_settings_may_be_tried_on_other_pairs_than_are_reported(force):
    answers = force(families=("mask",), development_pairs="id-en")["forced_answers"]
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
        if len(generated) in stops:
            stops.remove(len(generated))
            raise Stopped
        generated.append((setting, len(questions["en"]), source, target))
        return inner(self, setting, questions, source, target, examples)

    monkeypatch.setattr(Bench, "answers", counted)
    stops = []
    expected = force(**{**options, "folder": None})
    every = generated.copy()
    generated.clear()
    stops += [5, len(every) - 2]  # while settings are tried, and while the chosen ones are reported
    for _ in range(2):
        with pytest.raises(Stopped):
            force(**options)
    found = force(**options)
    assert generated == every
    for table in ("forced_answers", "forcing", "forcing_differences"):
        assert found[table].equals(expected[table])
    assert isinstance(force(**options), Result)
    assert generated == every


SHORT = {"families": ("mask",), "pairs": "en-fr", "evaluation": polyglot_texts(4, 12)}


@pytest.fixture(scope="module")
def begun(force, stats, tmp_path_factory):
    """The folder of a run whose statistics do not say which model they are of."""
    folder = tmp_path_factory.mktemp("begun")
    force(**SHORT, stats=anonymous(stats), folder=folder)
    return folder


def anonymous(stats, **manifest):
    return ActivationStats(stats.space, stats.by_language, manifest)


def retrained():
    model = copy.deepcopy(polyglot())
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[100, 5] += 1e-3
    return model


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("options", lambda _: {"new_tokens": 7}),
        ("options", lambda _: {"seed": 1}),
        ("questions", lambda _: {"development": polyglot_questions(5, 10)}),
        ("questions", lambda _: {"reporting": polyglot_questions(3, 21)}),
        ("statistics", lambda stats: {"stats": anonymous(stats, corpus={"fr": {"hash": "other"}})}),
        ("model", lambda _: {"model": retrained()}),
        ("neurons", lambda stats: {"neurons": neurons_of(stats, fr=None)}),
        ("neurons", lambda stats: {"neurons": neurons_of(stats, fr="id", id="fr")}),  # the same taken together
        ("texts", lambda _: {"texts": polyglot_texts(9)}),
        ("evaluation", lambda _: {"evaluation": polyglot_texts(9)}),
    ],
)
def test_a_folder_with_cells_of_another_run_is_refused_and_left_as_it_is(force, stats, begun, what, changes):
    before = {path: path.stat().st_mtime_ns for path in begun.rglob("*")}
    with pytest.raises(
        FileError, match=rf"in which {what} was .*; now it is .*\. Give the same command to go on.*delete"
    ):
        force(**{**SHORT, "stats": anonymous(stats), "folder": begun, **changes(stats)})
    assert {path: path.stat().st_mtime_ns for path in begun.rglob("*")} == before


def test_a_folder_with_cells_of_other_settings_is_refused(force, stats, begun, monkeypatch):
    monkeypatch.setattr(module, "tried", lambda family, layers: tried(family, layers)[::-1])
    with pytest.raises(FileError, match="in which settings was"):
        force(**SHORT, stats=anonymous(stats), folder=begun)


def test_a_finished_folder_is_read_and_nothing_is_asked_or_measured_again(force, stats, begun, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in begun.rglob("*")}
    assert {path.name for path in begun.iterdir()} == {"cells", "costs.parquet", "state.checkpoint"}
    for name in ("answers", "under"):
        monkeypatch.delattr(Bench, name)
    again = force(**SHORT, stats=anonymous(stats), folder=begun)
    assert {path: path.stat().st_mtime_ns for path in begun.rglob("*")} == before
    assert len(again["forced_answers"]) == 10 * (len(tried("mask", 3)) + 1) + 20 * 2  # with the ceiling's


# --- what is left out, and what is refused ---


def test_families_that_lack_something_are_left_out_with_what_to_type(force):
    bare = record(polyglot(), polyglot_tokenizer(), polyglot_texts(1, 5))
    found = force(families=("mask", "diffmean", "none"), texts={"fr": polyglot_texts(1)["fr"]}, stats=bare)
    assert set(found["forced_answers"]["family"]) == {"ceiling", "none"}
    mask, diffmean = sorted(found.notes[1:], key=lambda note: "mask" not in note)
    assert "text in id" in mask
    assert "texts={'id': PATH}" in mask
    assert "--residual" in diffmean


def test_settings_without_neurons_for_some_pair_are_not_tried_and_a_note_says_why(force, stats):
    found = force(neurons=neurons_of(stats, id=None), families=("neurons", "none"))
    (first,) = (setting for setting in tried("neurons", 3) if setting.sets == "lape")
    (note,) = found.notes[1:]
    assert note.startswith(f"neurons, {first.name}, was not tried: fr → id: ")
    assert "--per-language" in note
    development = found["forced_answers"].filter(split="development", family="neurons")
    assert set(development["setting"]) == {setting.name for setting in tried("neurons", 3)} - {first.name}
    assert {target for _, target in PAIRS} == set(
        found["forced_answers"].filter(split="report", family="neurons")["target"]
    )


def test_without_any_usable_setting_the_family_and_what_follows_it_are_left_out(force, stats, monkeypatch):
    monkeypatch.setattr(
        module, "tried", lambda family, layers: tried(family, layers)[: 1 if family == "neurons" else None]
    )
    found = force(neurons=neurons_of(stats, fr=None), families=("neurons", "target only", "random", "none"))
    assert set(found["forced_answers"]["family"]) == {"ceiling", "none"}
    assert len(found.notes) == 2
    assert len(found["forcing_differences"]) == 0


def test_controls_without_neurons_are_left_out_and_a_note_says_why(force, stats):
    two = ActivationStats(stats.space, {k: stats[k] for k in ("en", "fr")}, stats.manifest)
    questions = {
        "development": polyglot_questions(2, 10, ("en", "fr")),
        "reporting": polyglot_questions(3, 20, ("en", "fr")),
    }
    found = force(stats=two, **questions, pairs="en-fr", families=("neurons", "other", "permuted"))
    (note,) = found.notes[1:]
    assert note.startswith("other was left out: en → fr: ")
    assert "three languages" in note
    assert set(found["forced_answers"].filter(split="report")["family"]) == {"ceiling", "neurons", "permuted"}


def test_what_a_setting_is_missing_is_said_of_the_first_such_pair(stats):
    neurons = neurons_of(stats, id=None)
    bench = Bench(polyglot(), polyglot_tokenizer(), stats, None, GenerationOptions(), neurons=neurons)
    lape, difference, *_ = tried("neurons", 3)
    assert bench.missing(lape, [("en", "fr"), ("id", "fr")]) is None
    assert bench.missing(lape, [("en", "fr"), ("en", "id"), ("fr", "id")]).startswith("en → id: ")
    every = [("en", "id"), ("fr", "id")]
    assert {bench.missing(one, every) for one in (difference, NONE, CEILING, *tried("mask", 3))} == {None}
    crowded = dataclasses.replace(lape, control="random", sets="difference:1700")
    assert bench.missing(crowded, [("en", "fr")]).startswith("en → fr: ")  # too few others are left to draw


def test_a_mask_without_text_is_refused_with_what_to_type(stats):
    bench = Bench(polyglot(), polyglot_tokenizer(), stats, None, GenerationOptions())
    with pytest.raises(TextError, match=r"text in fr.*texts={'fr': PATH}"):
        bench.answers(tried("mask", 3)[0], DEVELOPMENT, "en", "fr")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"families": ("neurons", "magic")}, OptionError, r"families is 'magic'\. Expected .*neurons"),
        ({"candidates": 1}, OptionError, "candidates is 1"),
        ({"resamples": 0}, OptionError, "resamples is 0"),
        ({"identifier": "nobody"}, OptionError, "nobody"),
        ({"development": {**DEVELOPMENT, "fr": DEVELOPMENT["fr"][:9]}}, TextError, r"en 10, fr 9, id 10"),
        ({"reporting": {"en": ["a"], "fr": ["b"], "id": ["c"]}}, TextError, "fewer than 2"),
        ({"reporting": {}}, TextError, "fewer than 2"),
        ({"reporting": polyglot_questions(3, 20, ("en", "fr"))}, TextError, "different languages"),
        ({"development": {"en": ["a", "b"]}, "reporting": {"en": ["a", "b"]}}, TextError, "At least two"),
        ({"native": polyglot_questions(2, 18)}, OptionError, r"only 18 native questions.*at least 19, better 100"),
        ({"native": None}, OptionError, r"only 10 native questions"),
        ({"native": {"en": NATIVE["en"], "fr": NATIVE["fr"]}}, TextError, r"no native questions in id"),
        ({"native": REPORTING}, TextError, r"for native answers have 20 questions in en in common"),
        ({"development": REPORTING}, TextError, r"for development have 20 questions in en in common"),
    ],
)
def test_what_makes_no_sense_is_refused(force, changes, error, message):
    with pytest.raises(error, match=message):
        force(**changes)


def test_statistics_of_another_model_are_refused_with_both_sizes(stats):
    with pytest.raises(MismatchError, match=r"3 × 1,200.*3 × 44"):
        forcing(model_of("llama"), polyglot_tokenizer(), stats, DEVELOPMENT, REPORTING)


def test_statistics_of_another_model_of_the_same_shape_are_refused(stats, force, tmp_path):
    with pytest.raises(MismatchError, match=r"checksum [0-9a-f]{12}….*lape record"):
        force(model=retrained(), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()
