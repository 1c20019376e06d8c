"""Answers with a language's neurons off: on a made model by hand, its tables by brute force, and what is refused."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from threading import Thread

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lape.data import samples
from lape.data.language_id import IDENTIFIERS
from lape.edit.edit import Off, edited
from lape.errors import FileError, MismatchError, OptionError, TextError
from lape.experiments.generation.run import ANSWERS, SilencedOptions, silenced
from lape.experiments.generation.table import DROPS, MEASURES, SHARES, drops, shares
from lape.measure.answer_fluency import Bounds, written
from lape.measure.answer_quality import in_language, on_topic
from lape.measure.answer_spans import foreign, mixed, spans
from lape.measure.bench import Bench
from lape.measure.bootstrap import Resamples
from lape.measure.conditions import conditions
from lape.model.loss import find_head
from lape.options import keywords_of
from lape.recording.record import record
from lape.values.neurons import LanguageNeurons, NeuronSet
from support.made import made_stats
from support.polyglot import (
    LANGUAGES,
    by_letter,
    own_neurons,
    polyglot,
    polyglot_questions,
    polyglot_texts,
    polyglot_tokenizer,
)

silenced = keywords_of(SilencedOptions)(silenced)

torch.set_num_threads(1)

NATIVE, REPORTING = polyglot_questions(2, 20), polyglot_questions(3, 12)
FAST = {"native": NATIVE, "new_tokens": 6, "candidates": 3, "batch": 12, "draws": 2}
WIDE = range(12, 400)
"""Neurons of every layer that are no language's: off, they change what is said."""


@pytest.fixture(scope="module", autouse=True)
def identifiers():
    with pytest.MonkeyPatch.context() as patch:
        for name in IDENTIFIERS:
            patch.setitem(IDENTIFIERS, name, by_letter)
        yield


@pytest.fixture(scope="module")
def stats():
    return record(polyglot(), polyglot_tokenizer(), polyglot_texts(1))


def neurons_of(stats, **changed):
    """Each language's own neurons, and for French many more; `changed`: language -> flat indices instead."""
    flat = {language: own_neurons(language) for language in LANGUAGES}
    flat["fr"] = [*flat["fr"], *WIDE]
    sets = {k: NeuronSet(stats.space, torch.tensor(list(v), dtype=torch.int64)) for k, v in (flat | changed).items()}
    return LanguageNeurons(stats.space, sets, method="made")


@pytest.fixture(scope="module")
def run(stats):
    """A run on the made model."""

    def inner(questions=REPORTING, **changes):
        given = {"neurons": neurons_of(stats), "stats": stats, **FAST, **changes}
        return silenced(polyglot(), polyglot_tokenizer(), questions=questions, **given)

    return inner


@pytest.fixture(scope="module")
def answers(run):
    return run()


def cell(answers, off, language, control=False, draw=0):
    return answers.filter(off=off, language=language, control=control, draw=draw).sort("question")


def by_hand(questions, edit=None, wish=""):
    """Greedy continuations of each question alone, up to the next question."""
    model, tokenizer = polyglot(), polyglot_tokenizer()
    result = []
    with edited(model, [] if edit is None else [edit]):
        for question in questions:
            ids = torch.tensor([tokenizer(f"Q: {question}{wish}\nA:")["input_ids"]])
            out = model.generate(ids, do_sample=False, max_new_tokens=6, repetition_penalty=1.1, pad_token_id=0)
            result.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    return result


# --- the answers ---


def test_every_question_is_asked_with_every_language_off_and_with_every_control(answers):
    assert dict(answers.schema) == ANSWERS
    expected = {("none", language, False, 0) for language in LANGUAGES}
    expected |= {(off, language, False, 0) for off in LANGUAGES for language in LANGUAGES}
    expected |= {(off, k, True, draw) for off in LANGUAGES for k in LANGUAGES for draw in (0, 1)}
    cells = answers.group_by("off", "language", "control", "draw").agg(pl.col("question").sort())
    assert set(cells.drop("question").rows()) == expected
    assert cells["question"].to_list() == [list(range(12))] * len(cells)


@pytest.mark.parametrize("off", ["none", *LANGUAGES])
def test_answers_are_those_of_the_model_with_the_neurons_off(stats, answers, off):
    edit = None if off == "none" else Off(neurons_of(stats)[off])
    for language in LANGUAGES:
        assert cell(answers, off, language)["answer"].to_list() == by_hand(REPORTING[language], edit)


def test_controls_are_those_of_the_other_tasks(stats, answers):
    found, _ = conditions(polyglot(), neurons_of(stats), stats, "fr", steer=None, draws=2, seed=0)
    for one in found:
        if one.name == "control":
            expected = by_hand(REPORTING["fr"], one.edits[0])
            assert cell(answers, "fr", "fr", True, one.draw)["answer"].to_list() == expected


def test_switching_off_changes_answers_here_and_is_undone(answers):
    none = cell(answers, "none", "fr")["answer"].to_list()
    assert none != cell(answers, "fr", "fr")["answer"].to_list()
    assert none == by_hand(REPORTING["fr"])


def test_answers_are_judged_by_the_unedited_model_and_its_native_answers(answers):
    model, tokenizer, head = polyglot(), polyglot_tokenizer(), find_head(polyglot())
    for language in ("fr", "id"):
        bounds = Bounds(written(model, tokenizer, head, by_hand(NATIVE[language])))
        for row in answers.filter(language=language, control=False).to_dicts():
            text = row["answer"]
            (guess,), (alone,) = by_letter()([text]), written(model, tokenizer, head, [text])
            (elsewhere,) = spans([text], language, by_letter(), by_letter())
            topic = on_topic(model, tokenizer, head, [(row["question"], text)], REPORTING[language], language, 3)[0]
            assert row["identified"] == guess.language
            assert row["in_language"] is in_language(text, guess, language)
            assert (row["fluent"], row["calibrated_on"]) == (bounds.fluent(alone), bounds.calibrated_on(alone))
            assert row["on_topic"] is (topic if row["in_language"] and row["fluent"] else None)
            assert row["mixed"] == mixed(text, elsewhere)
            assert row["foreign"] == pytest.approx(foreign(text, elsewhere))
            assert row["good"] is (row["in_language"] and row["fluent"] and topic and not row["mixed"])
            assert row["grade"] is None
    assert 0 < answers["good"].sum() < len(answers)


def test_an_answer_may_be_asked_for_in_the_question_s_language(run):
    found = run(wish=True, draws=0)
    for language, wish in (("en", " Answer in English."), ("fr", " Répondez en français.")):
        assert cell(found, "none", language)["answer"].to_list() == by_hand(REPORTING[language], wish=wish)


def test_the_bundled_questions_are_the_default_and_native_ones_are_not_reported(run, stats, monkeypatch):
    seen = []

    def answers(_self, _setting, questions, _source, target, _examples=()):
        seen.append((target, questions[target]))
        return ["Q"] * len(questions[target])  # in no language, so that no topic is scored

    monkeypatch.setattr(Bench, "answers", answers)
    some = {k: v for k, v in neurons_of(stats).sets.items() if k != "id"}
    found = run(questions=None, native=None, draws=0, neurons=LanguageNeurons(stats.space, some))
    parts = {part: samples.questions(part) for part in ("development", "reporting")}
    assert [one for one in seen if len(one[1]) == 24] == [(k, parts["development"][k]) for k in some]
    assert {k for k, asked in seen if asked == parts["reporting"][k]} == set(some)
    assert len(found) == 6 * 40


def test_languages_are_those_with_questions_statistics_and_neurons(run, stats):
    some = {k: REPORTING[k] for k in ("fr", "en")} | {"ja": REPORTING["en"]}
    found = run(some, draws=0)
    assert found["language"].unique(maintain_order=True).to_list() == ["fr", "en"]
    assert found["off"].unique(maintain_order=True).to_list() == ["none", "fr", "en"]


def test_a_language_without_neurons_is_asked_but_not_switched_off(run, stats):
    found = run(neurons=neurons_of(stats, en=[]), draws=1)
    assert set(found["language"]) == set(LANGUAGES)
    assert set(found["off"]) == {"none", "fr", "id"}


def test_a_set_too_large_for_a_control_has_none(run, stats):
    found = run(neurons=neurons_of(stats, fr=range(700)), draws=1)
    assert set(found.filter("control")["off"]) == {"en", "id"}
    table = {row["language"]: row for row in drops(found, resamples=10, seed=0).to_dicts()}
    assert [table["fr"][k] for k in ("draws", "control", "control_largest", "value")] == [0, None, None, None]
    assert table["mean"]["draws"] == 1
    assert table["mean"]["control"] == pytest.approx((table["en"]["control"] + table["id"]["control"]) / 2)


# --- a run that is stopped ---


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 7])
def test_a_stopped_run_goes_on_from_its_finished_cells_and_gives_the_same_table(
    run, answers, monkeypatch, tmp_path, stop
):
    asked, inner = [], Bench.answers

    def counted(self, setting, questions, source, target, _examples=()):
        if len(asked) == stop and not stopped:
            stopped.append(True)
            raise Stopped
        asked.append(len(questions[target]))
        return inner(self, setting, questions, source, target)

    stopped: list[bool] = []
    monkeypatch.setattr(Bench, "answers", counted)
    with pytest.raises(Stopped):
        run(folder=tmp_path, draws=0)
    expected = answers.filter(~pl.col("control"))
    assert run(folder=tmp_path, draws=0).equals(expected)
    assert sorted(asked) == [12] * 12 + [20] * 3
    assert run(folder=tmp_path, draws=0).equals(expected)
    assert len(asked) == 15


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("options", lambda _: {"new_tokens": 7}),
        ("questions", lambda _: {"questions": polyglot_questions(5, 12)}),
        ("native", lambda _: {"native": polyglot_questions(5, 20)}),
        ("neurons", lambda stats: {"neurons": neurons_of(stats, en=own_neurons("id"))}),
    ],
)
def test_a_folder_with_cells_of_another_run_is_refused(run, stats, tmp_path, monkeypatch, what, changes):
    monkeypatch.setattr(Bench, "answers", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(folder=tmp_path)
    with pytest.raises(FileError, match=f"in which {what} was"):
        run(folder=tmp_path, **changes(stats))


# --- a judge's marks ---


@pytest.fixture
def endpoint():
    """An endpoint that marks an answer by the number of its words, and keeps what it was asked."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = body["messages"][0]["content"]
            seen.append(text)
            mark = marked(text.split("Answer: <<<")[1].split(">>>")[0])
            data = json.dumps({"choices": [{"message": {"content": f"{mark}"}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", seen
    server.shutdown()
    server.server_close()


def marked(answer):
    return 3 + len(set(answer.split()))


def test_an_endpoint_marks_the_reported_answers_and_an_empty_one_is_1(run, stats, endpoint, monkeypatch):
    url, seen = endpoint
    inner = Bench.answers
    monkeypatch.setattr(Bench, "answers", lambda *given: ["", *inner(*given)[1:]])
    found = run(grader_url=url, grader_model="m", draws=0, neurons=neurons_of(stats, en=[], fr=[]))
    assert len(seen) == 6 * 11  # neither an empty answer nor a native question
    assert all("from 1 to 10" in text for text in seen)
    for row in found.to_dicts():
        assert row["grade"] == (1 if row["question"] == 0 else marked(row["answer"]))
        assert row["question"] == 0 or any(REPORTING[row["language"]][row["question"]] in text for text in seen)
    table = shares(found, resamples=10, seed=0)
    expected = found.group_by("off", "language", "control", "draw", maintain_order=True).agg(pl.col("grade").mean())
    assert table["grade"].to_list() == pytest.approx(expected["grade"].to_list())


# --- the tables ---

PARTS = {"in_language": 0.8, "fluent": 0.7, "on_topic": 0.6}


def made(questions=24, seed=0, languages=("en", "fr", "zh"), draws=2, graded=True):
    """Random verdicts; those of one language off are worse."""
    random = np.random.default_rng(seed)
    runs = [("none", k, False, 0) for k in languages]
    runs += [(off, k, False, 0) for off in languages for k in languages]
    runs += [(off, k, True, draw) for off in languages for k in languages for draw in range(draws)]
    rows = []
    for off, language, control, draw in runs:
        worse = 0.6 if off == language and not control else 1.0
        for question in range(questions):
            inside, fluent, topic = (bool(random.random() < share * worse) for share in PARTS.values())
            rows.append(
                {
                    "off": off,
                    "language": language,
                    "control": control,
                    "draw": draw,
                    "question": question,
                    "answer": "",
                    "identified": None,
                    "in_language": inside,
                    "fluent": fluent,
                    "on_topic": topic if inside and fluent else None,
                    "mixed": bool(random.random() < 0.1),
                    "good": inside and fluent and topic,
                    "foreign": float(random.random()),
                    "calibrated_on": 100,
                    "grade": int(random.integers(1, 11)) if graded and random.random() < 0.95 else None,
                }
            )
    return pl.DataFrame(rows, schema=ANSWERS)


def brute_mean(rows, measure, times):
    """The mean over answers, each counted as often as its question was drawn."""
    amount = size = 0.0
    for row in rows:
        weight = times[row["question"]]
        counts = {
            **dict.fromkeys(("fluent", "mixed"), row["in_language"]),
            "on_topic": row["in_language"] and row["fluent"],
            "grade": row["grade"] is not None,
        }.get(measure, True)
        if counts:
            amount += weight * float(row[measure])
            size += weight
    return amount / size if size else float("nan")


def rows_of(answers):
    result = {}
    for row in answers.to_dicts():
        result.setdefault((row["off"], row["language"], row["control"], row["draw"]), []).append(row)
    return result


def test_shares_and_their_paired_changes_are_those_of_brute_force():
    answers = made(40)
    cells, sampled = rows_of(answers), Resamples(40, 60, 3)
    table = shares(answers, resamples=60, seed=3)
    assert dict(table.schema) == SHARES
    assert set(table.select("off", "language", "control", "draw").rows()) == set(cells)
    for row in table.to_dicts():
        key = row["off"], row["language"], row["control"], row["draw"]
        own, none = cells[key], cells["none", row["language"], False, 0]
        for measure in MEASURES:
            value = brute_mean(own, measure, np.ones(40))
            assert row[measure] == pytest.approx(value)
            inside = sum(one["in_language"] for one in own)
            of = {**dict.fromkeys(("fluent", "mixed"), inside),
                  "on_topic": sum(one["in_language"] and one["fluent"] for one in own)}  # fmt: skip
            drawn = np.array([brute_mean(own, measure, times) for times in sampled.weights])
            found = row[f"{measure}_low"], row[f"{measure}_high"]
            assert found == (pytest.approx(sampled.interval(drawn)[1:]) if of.get(measure, 40) >= 20 else (None, None))
            if row["off"] == "none":
                assert row[f"{measure}_change"] is None
                continue
            assert row[f"{measure}_change"] == pytest.approx(value - brute_mean(none, measure, np.ones(40)))
            if measure in ("good", "in_language", "grade"):
                paired = [brute_mean(own, measure, t) - brute_mean(none, measure, t) for t in sampled.weights]
                found = row[f"{measure}_change_low"], row[f"{measure}_change_high"]
                assert found == pytest.approx(sampled.interval(np.array(paired))[1:])


@pytest.mark.parametrize("measure", ["good", "in_language", "grade"])
def test_drops_are_those_of_brute_force(measure):
    languages, answers = ("en", "fr", "zh"), made(25, seed=1)
    cells, sampled = rows_of(answers), Resamples(25, 50, 7)

    def drop(key, times):
        return brute_mean(cells["none", key[1], False, 0], measure, times) - brute_mean(cells[key], measure, times)

    def falls(language, row):
        times = sampled.weights[row]
        own = drop((language, language, False, 0), times)
        others = [drop((language, k, False, 0), times) for k in languages if k != language]
        controls = [drop((language, language, True, draw), times) for draw in (0, 1)]
        elsewhere = [
            np.mean([drop((language, k, True, draw), times) for k in languages if k != language]) for draw in (0, 1)
        ]
        control, there = np.mean(controls), np.mean(elsewhere)
        a, b = max(own, 0), max(sum(others) / 2, 0)
        return {
            "own": own,
            "others": sum(others) / 2,
            "selectivity": a / (a + b) if a else 0.0,
            "control": control,
            "value": own - control,
            "control_others": there,
            "others_value": sum(others) / 2 - there,
            "worst": max(others),
            "controls": controls,
            "elsewhere": elsewhere,
        }

    table = drops(answers, resamples=50, seed=7, measure=measure)
    assert dict(table.schema) == DROPS
    assert table["language"].to_list() == [*languages, "mean"]
    every = {language: [falls(language, row) for row in range(len(sampled.weights))] for language in languages}
    for row in table.to_dicts():
        some = [row["language"]] if row["language"] in every else languages
        assert (row["questions"], row["draws"]) == (25, 2)
        for name in ("own", "others", "selectivity", "control", "value", "control_others", "others_value"):
            rows = range(len(sampled.weights))
            values = np.array([float(np.mean([every[k][r][name] for k in some])) for r in rows])
            low, high = (row[k] if name == "value" else row[f"{name}_{k}"] for k in ("low", "high"))
            sample = {"control": "controls", "value": "controls"}
            sample |= {"control_others": "elsewhere", "others_value": "elsewhere"}
            kept = [np.array(every[k][0][sample[name]]) / len(some) for k in some] if name in sample else []
            assert (row[name], low, high) == pytest.approx(sampled.interval(values, draws=kept))
            if name in ("value", "others"):
                quantiles = row["quantiles" if name == "value" else "others_quantiles"]
                assert quantiles == pytest.approx(sampled.quantiles(values, draws=kept), nan_ok=True)
        if row["language"] in every:
            values = np.array([one["worst"] for one in every[row["language"]]])
            assert (row["worst"], row["worst_low"], row["worst_high"]) == pytest.approx(sampled.interval(values))
            of = row["language"], row["worst_other"]
            assert drop((*of, False, 0), np.ones(25)) == pytest.approx(row["worst"])
            there = [drop((*of, True, draw), np.ones(25)) for draw in (0, 1)]
            assert row["control_there"] == pytest.approx(np.mean(there))
        largest = max(np.mean([every[k][0]["controls"][draw] for k in some]) for draw in (0, 1))
        assert row["control_largest"] == pytest.approx(largest)


def test_draws_of_a_control_are_a_sample_too():
    """The same in every question, but not in every draw: how much a set does beyond its control is as sure as its draws are alike."""
    answers = made(40).with_columns(good=~pl.col("control") & (pl.col("off") == "none"))
    unlike = answers.with_columns(good=pl.col("good") | (pl.col("control") & (pl.col("draw") == 0)))
    alike, other = (drops(one, resamples=200).row(0, named=True) for one in (answers, unlike))
    assert (alike["value"], alike["low"], alike["high"]) == (0, 0, 0)
    assert other["value"] == 0.5
    assert other["low"] < 0.25
    assert other["high"] > 0.75


def test_the_mean_is_over_the_languages_asked_for():
    found = drops(made(), over=["fr", "zh"], resamples=20)
    assert found["language"].to_list() == ["en", "fr", "zh", "mean"]
    assert found["own"][3] == pytest.approx(found["own"][1:3].mean())


def test_what_answers_turn_to_is_counted_with_the_set_and_with_its_controls_off():
    languages = {("fr", False): ["en"] * 5 + ["zh"] * 3 + ["fr"] * 2, ("fr", True): ["en", None, *["fr"] * 8]}
    rows = [
        {"off": off, "language": "fr", "control": control, "draw": draw, "question": k, "in_language": one == "fr", "fluent": True,
         "identified": one, "energy_ratio": 2.0 if control else None, "good": one == "fr"}
        for off, control, draw in (("none", False, 0), ("fr", False, 0), ("fr", True, 0), ("fr", True, 1))
        for k, one in enumerate(languages.get((off, control), ["fr"] * 10))
    ]  # fmt: skip
    found = drops(pl.DataFrame(rows, schema=ANSWERS), resamples=20).row(0, named=True)
    assert (found["turned_to"], found["turned"], found["control_turned"]) == ("en", 0.5, 0.1)
    assert found["energy_ratio"] == 2
    assert "less energy" in found["unlike"]
    assert found["worst_other"] is found["worst"] is found["control_there"] is None  # asked in one language


def test_what_is_paired_moves_together():
    """Off is none but for one question: however bad all are, the change is of that question alone."""
    answers = made(40)
    none = answers.filter(off="none", language="fr")
    same = none.with_columns(off=pl.lit("fr"))
    table = shares(pl.concat([none, same]), resamples=200, seed=0).filter(off="fr").to_dicts()[0]
    assert [table[f"good_change{end}"] for end in ("", "_low", "_high")] == [0, 0, 0]
    assert table["good_low"] < table["good"] < table["good_high"]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 45), st.integers(0, 99))
def test_parts_multiply_to_good_where_nothing_is_refused_or_mixed_and_only_20_questions_have_an_interval(
    questions, seed
):
    table = shares(made(questions, seed, draws=1), resamples=30, seed=0)
    for row in table.to_dicts():
        parts = [row[k] for k in ("in_language", "fluent", "on_topic")]
        assert row["good"] == pytest.approx(0 if None in parts else float(np.prod(parts)))
        assert (row["good_low"] is None) == (questions < 20)
        for a, b in pairwise(row[f"good{end}"] for end in ("_low", "", "_high") if questions >= 20):
            assert a <= b + 1e-9
    falls = drops(made(questions, seed, draws=2), resamples=30, seed=0).to_dicts()
    assert all((row["low"] is None) == (row["own_high"] is None) == (questions < 20) for row in falls)


def test_the_order_of_the_rows_does_not_matter():
    answers = made()
    mixed = answers.sample(fraction=1.0, shuffle=True, seed=1)
    for table, keys in ((shares, ["off", "language", "control", "draw"]), (drops, ["language"])):
        both = (table(one, resamples=40).sort(keys) for one in (mixed, answers))
        assert_frame_equal(*both)


def test_nothing_is_said_of_what_was_not_measured():
    alone = made(languages=("en",), draws=0, graded=False)
    row = drops(alone, resamples=40, seed=0).to_dicts()[0]
    assert row["own"] is not None
    assert all(row[k] is None for k in ("others", "selectivity", "control", "control_largest", "value", "low"))
    assert drops(alone, resamples=40, seed=0, measure="grade").to_dicts()[0]["own"] is None
    assert shares(alone, resamples=40, seed=0)["grade"].to_list() == [None, None]
    assert len(drops(alone.filter(off="none"), resamples=40, seed=0)) == 0


def test_another_measure_or_no_answers_are_refused():
    with pytest.raises(OptionError, match=r"no measure 'nice'\. Expected one of: good"):
        drops(made(), resamples=10, seed=0, measure="nice")
    with pytest.raises(OptionError, match="no answers"):
        shares(made().clear(), resamples=10, seed=0)


# --- what is refused ---


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"questions": {"ja": REPORTING["en"]}}, TextError, "questions in ja, statistics of en, fr, id"),
        ({"native": {"en": NATIVE["en"]}}, TextError, "no native questions in fr, id"),
        (
            {"native": {k: [*REPORTING[k], *NATIVE[k][:8]] for k in LANGUAGES}},
            TextError,
            "have 12 questions in en in common",
        ),
        ({"questions": {"en": ["?"], "fr": ["?", "!"]}}, TextError, "numbers differ"),
        ({"native": polyglot_questions(2, 18)}, OptionError, "only 18 native questions"),
        ({"candidates": 1}, OptionError, "candidates is 1"),
        ({"draws": -1}, OptionError, "draws is -1"),
        ({"grader_url": "http://x/v1"}, OptionError, "grader_model"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_what_cannot_be_measured_is_refused(run, changes, kind, words):
    with pytest.raises(kind, match=words):
        run(**changes)


def test_no_neurons_at_all_and_those_of_another_model_are_refused(run, stats):
    with pytest.raises(OptionError, match="None of en, fr, id has any neurons"):
        run(neurons=neurons_of(stats, en=[], fr=[], id=[]))
    other = made_stats(languages=LANGUAGES, sums=True)
    with pytest.raises(MismatchError, match="neurons belong to a model"):
        run(stats=other)


def test_the_defaults_are_the_bare_question_one_control_and_no_endpoint():
    default = SilencedOptions()
    assert (default.wish, default.draws, default.candidates, default.grader_url) == (False, 1, 8, None)
