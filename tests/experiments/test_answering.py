"""Questions about passages: their file, their prompts, their scores by definition, and the table under each condition."""

from __future__ import annotations

import importlib.util
import json
import unicodedata
from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lape.edit.edit import Add, Off, Scale, edited
from lape.edit.steer import PUBLISHED
from lape.errors import FileError, MismatchError, OptionError, TextError
from lape.experiments.answering import run
from lape.experiments.answering.passages import first_line, passage_prompt, shots_for, spread
from lape.experiments.answering.run import ANSWERS, TABLE, AnsweringOptions, answering, table_of
from lape.experiments.answering.scores import overlap, tokens
from lape.experiments.answering.squad import Question, read_squad
from lape.measure.bootstrap import Resamples
from lape.measure.conditions import conditions, energy
from lape.measure.generation import GenerationOptions, generate
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.space import NeuronSpace
from support.brute import lively, logits_of, some_texts, tokenizer_of
from support.made import made_stats
from support.stopped import stopped
from support.tiny import LAYERS

SPACE = NeuronSpace.dense(LAYERS, 44)
STATS = made_stats(languages=("en", "fr", "sw"), space=SPACE, sums=True, written=True, of=None)
SETS = {"en": range(12), "fr": [*range(8, 16), *range(50, 58), *range(90, 93)], "sw": range(60, 64), "de": range(0)}
CALM = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)  # the library takes seconds to import
FAST = {"new_tokens": 6, "resamples": 100}


def neurons_of(sets=SETS, space=SPACE):
    return LanguageNeurons(space, {k: NeuronSet(space, torch.tensor(list(v))) for k, v in sets.items()})


@cache
def model_of():
    return lively("llama", torch.float32)


def squad(articles=3, each=2, words=None, seed=0):
    """Articles of one passage with questions; `words` are their answers in order."""
    texts = iter(some_texts(articles * (1 + each), seed))
    data = []
    for a in range(articles):
        context = next(texts)
        asked = [
            {
                "id": f"q{a}.{k}",
                "question": f"{next(texts)[:20]}?",
                "answers": [{"text": words[a * each + k] if words else context.split()[0], "answer_start": 0}],
            }
            for k in range(each)
        ]
        data.append({"title": f"t{a}", "paragraphs": [{"context": context, "qas": asked}]})
    return {"version": "1.1", "data": data}


def written(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


# --- the file ---


def test_every_question_is_read_with_its_passage_and_its_answers(tmp_path):
    whole = squad(articles=2, each=2)
    whole["data"][0]["paragraphs"][0]["qas"][0]["answers"] += [{"text": "b"}, {"text": "b"}, {"text": " "}]
    whole["data"][1]["paragraphs"].append(
        {"context": "more", "qas": [{"id": 7, "question": "?", "answers": [{"text": "x"}]}]}
    )
    found = read_squad(written(tmp_path / "a.json", whole))
    assert [one.id for one in found] == ["q0.0", "q0.1", "q1.0", "q1.1", "7"]
    assert [one.number for one in found] == [0, 1, 2, 3, 4]
    assert [one.article for one in found] == [0, 0, 1, 1, 1]
    assert [one.passage for one in found] == [0, 0, 1, 1, 2]
    first = whole["data"][0]["paragraphs"][0]
    assert found[0].context == first["context"]
    assert found[0].text == first["qas"][0]["question"]
    assert found[0].answers == (first["context"].split()[0], "b")
    assert found[4].context == "more"


def test_a_byte_order_mark_is_no_damage(tmp_path):
    assert read_squad(written(tmp_path / "a.json", "\ufeff" + json.dumps(squad())))


def test_questions_without_an_answer_are_left_out(tmp_path):
    whole = squad()
    whole["data"][0]["paragraphs"][0]["qas"][0]["answers"] = []
    assert [one.id for one in read_squad(written(tmp_path / "a.json", whole))] == [
        "q0.1",
        "q1.0",
        "q1.1",
        "q2.0",
        "q2.1",
    ]


@pytest.mark.parametrize("text", ["", "{", '{"data": [', "Q: who?", "[" * 100_000])
def test_what_is_no_json_is_refused(tmp_path, text):
    with pytest.raises(FileError, match="not JSON"):
        read_squad(written(tmp_path / "a.json", text))


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(FileError, match="no file"):
        read_squad(tmp_path / "none.json")
    (tmp_path / "a.json").write_bytes(b'{"data": "\xff"}')
    with pytest.raises(FileError, match="not JSON"):
        read_squad(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ([], "'data' is missing"),
        ({"questions": []}, "'data' is missing"),
        ({"data": {}}, "'data' is not a list"),
        ({"data": ["x"]}, r"data\[0\]: 'paragraphs' is missing"),
        ({"data": [{"paragraphs": [{"qas": []}]}]}, r"data\[0\], paragraphs\[0\]: 'context' is missing"),
        ({"data": [{"paragraphs": [{"context": 3, "qas": []}]}]}, "'context' is not a text"),
        ({"data": [{"paragraphs": [{"context": "c"}]}]}, "'qas' is missing"),
        ({"data": [{"paragraphs": [{"context": "c", "qas": [{"id": "1", "question": "?"}]}]}]}, r"qas\[0\]: 'answers' is m"),
        ({"data": [{"paragraphs": [{"context": "c", "qas": [{"answers": [{"answer_start": 1}]}]}]}]}, r"answers\[0\]: 'text'"),
        ({"data": [{"paragraphs": [{"context": "c", "qas": [{"answers": [{"text": "c"}]}]}]}]}, "'id' is missing"),
        ({"data": [{"paragraphs": [{"context": "c", "qas": [{"id": "1", "answers": [{"text": "c"}]}]}]}]}, "'question' is m"),
        ({"data": []}, "no question with an answer"),
    ],
    ids=str,
)  # fmt: skip
def test_json_of_another_form_is_refused_saying_what_is_missing_where(tmp_path, broken, words):
    with pytest.raises(TextError, match=words):
        read_squad(written(tmp_path / "a.json", broken))


def test_an_id_that_comes_twice_is_refused(tmp_path):
    whole = squad()
    whole["data"][1]["paragraphs"][0]["qas"][0]["id"] = "q0.0"
    with pytest.raises(TextError, match=r"'q0\.0' comes 2 times"):
        read_squad(written(tmp_path / "a.json", whole))


# --- the prompts ---

ASKED = Question("1", 5, 2, 2, "Il dort.\n", "Qui dort ?", ("il",))
SHOT = Question("2", 0, 0, 0, "Elle lit.", "Qui lit ?", ("Elle", "elle"))


def test_a_prompt_is_passage_question_and_the_word_for_answer_after_its_examples():
    expected = (
        "Passage: Elle lit.\nQuestion: Qui lit ?\nRéponse: Elle\n\nPassage: Il dort.\nQuestion: Qui dort ?\nRéponse:"
    )
    assert passage_prompt(tokenizer_of(), ASKED, "fr", [SHOT]) == expected


def test_a_language_without_words_of_its_own_is_asked_with_english_ones():
    assert passage_prompt(tokenizer_of(), ASKED, "sw") == passage_prompt(tokenizer_of(), ASKED, "en")
    assert passage_prompt(tokenizer_of(), ASKED, "zh-Hant").startswith("文章: ")


@pytest.mark.parametrize("language", ["en", "zh", "fr", "es", "vi", "id", "ja", "de", "ru", "ar", "ko"])
def test_every_frame_holds_passage_and_question_once_and_ends_where_the_answer_begins(language):
    prompt = passage_prompt(tokenizer_of(), ASKED, language)
    assert prompt.count("Il dort.") == prompt.count("Qui dort ?") == 1
    assert prompt.endswith(":")
    assert len({line.split(":")[0] for line in prompt.splitlines()}) == 3


def test_a_chat_model_is_asked_in_its_template():
    class Chat:
        chat_template = "x"
        bos_token_id = None

        def __call__(self, _text):
            return {"input_ids": []}

        def apply_chat_template(self, turns, **_):
            return "|".join(f"{turn['role']}={turn['content']}" for turn in turns)

    assert passage_prompt(Chat(), ASKED, "en", [SHOT]) == (
        "user=Passage: Elle lit.\nQuestion: Qui lit ?|assistant=Elle|user=Passage: Il dort.\nQuestion: Qui dort ?"
    )


def questions_in(articles):
    return [Question(f"{k}", k, article, article, "c", "q", ("a",)) for k, article in enumerate(articles)]


@CALM
@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.integers(0, 3), st.integers(0, 9))
def test_examples_come_from_other_articles_each_from_its_own(articles, count, seed):
    questions = questions_in(sorted(articles))
    for asked in questions:
        if len(set(articles)) - 1 < count:
            with pytest.raises(OptionError, match="fewer shots"):
                shots_for(asked, questions, count, seed)
            continue
        shown = [one.article for one in shots_for(asked, questions, count, seed)]
        assert len(set(shown)) == len(shown) == count
        assert asked.article not in shown


def test_examples_are_the_same_questions_in_parallel_files_and_differ_between_questions_and_seeds():
    one, two = (
        questions_in([0, 0, 1, 2, 2, 3]),
        [replace(q, text="?", id="x") for q in questions_in([0, 0, 1, 2, 2, 3])],
    )
    drawn = [[q.number for q in shots_for(asked, one, 2, 3)] for asked in one]
    assert drawn == [[q.number for q in shots_for(asked, two, 2, 3)] for asked in two]
    assert drawn != [[q.number for q in shots_for(asked, one, 2, 4)] for asked in one]
    assert drawn[0] != drawn[1]


@CALM
@given(st.integers(1, 50), st.one_of(st.none(), st.integers(1, 60)))
def test_fewer_questions_are_spread_evenly(count, most):
    chosen = [q.number for q in spread(questions_in([0] * count), most)]
    assert len(chosen) == min(count, most or count)
    steps = np.diff([*chosen, count])
    assert chosen[0] == 0
    assert steps.min() >= 1
    assert steps.max() - steps.min() <= 1


@pytest.mark.parametrize(
    ("answer", "line"), [(" Paris\nPassage: x", "Paris"), ("\n \n il \n", "il"), ("", ""), (" \n", ""), ("a b", "a b")]
)
def test_an_answer_is_its_first_line_that_holds_anything(answer, line):
    assert first_line(answer) == line


# --- the scores ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat's  Pyjamas.", ["the", "cat", "s", "pyjamas"]),
        ("3,5 %", ["3", "5"]),
        ("Straße ＡＢＣ", ["strasse", "abc"]),
        ("e\u0301te\u0301", ["été"]),
        ("在1990年,NASA说", ["在", "1990", "年", "nasa", "说"]),
        ("東京タワー", ["東", "京", "タ", "ワ", "ー"]),
        ("한국어 답변", ["한국어", "답변"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("กี่คน", ["กี่", "ค", "น"]),
        ("مرحبا، العالم؟", ["مرحبا", "العالم"]),
        ("?!…", []),
        ("", []),
    ],
)
def test_tokens_are_words_or_characters_where_words_are_not_spaced(text, expected):
    assert tokens(text) == expected


@CALM
@given(st.text())
def test_tokens_hold_every_letter_in_order_and_nothing_but_letters_marks_and_numbers(text):
    whole = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept = "".join(c for c in whole if unicodedata.category(c)[0] in "LMN")
    assume(not kept or unicodedata.category(kept[0])[0] != "M")
    assert "".join(tokens(text)) == kept


def f1_by_hand(a, b):
    shared = sum((Counter(a) & Counter(b)).values())
    return 2 * shared / (len(a) + len(b)) if shared else 0.0


def rouge_by_hand(a, b):
    def longest(i, j):
        if i == len(a) or j == len(b):
            return 0
        return 1 + longest(i + 1, j + 1) if a[i] == b[j] else max(longest(i + 1, j), longest(i, j + 1))

    shared = longest(0, 0)
    return 2 * shared / (len(a) + len(b)) if shared else 0.0


WORDS = st.lists(st.sampled_from(["le", "chat", "夜", "x1"]), max_size=5).map(" ".join)


@CALM
@given(WORDS, st.lists(WORDS, min_size=1, max_size=3))
def test_scores_are_the_best_over_the_accepted_answers(answer, accepted):
    pytest.importorskip("rouge_score")
    own = tokens(answer)
    others = [tokens(one) for one in accepted]
    found = overlap(answer, accepted)
    assert found.exact == float(bool(own) and own in others)
    assert found.f1 == pytest.approx(max(f1_by_hand(own, one) for one in others))
    assert found.rouge_l == pytest.approx(max(rouge_by_hand(own, one) for one in others))


def test_case_width_and_punctuation_do_not_count_but_order_does():
    pytest.importorskip("rouge_score")
    assert overlap("“NASA”.", ["ｎａｓａ"]) == (1, 1, 1)
    assert overlap("chat le", ["le chat"]) == (0, 1, 0.5)
    assert overlap("京东", ["东京"]) == (0, 1, 0.5)


# --- the measurement ---


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files whose accepted answers are what the unedited model writes; 24 questions of en, 8 of fr, each of a passage of its own."""
    pytest.importorskip("rouge_score")
    folder = tmp_path_factory.mktemp("squad")
    found = {}
    for language, articles in (("en", 24), ("fr", 8)):
        path = written(folder / f"{language}.json", squad(articles, each=1))
        answers = answering(
            model_of(), tokenizer_of(), neurons_of(), STATS, {language: path}, shots=0, draws=0, **FAST
        )["answers"].filter(pl.col("condition") == "none")
        words = [answer if tokens(answer) else "nothing" for answer in answers["answer"]]
        found[language] = written(path, squad(articles, each=1, words=words))
    return found


@pytest.fixture(scope="module")
def found(files):
    return answering(model_of(), tokenizer_of(), neurons_of(), STATS, files, shots=0, draws=2, **FAST)


def test_there_is_a_row_for_every_question_in_every_condition(found):
    assert dict(found["answers"].schema) == ANSWERS
    runs = [("none", 0), ("off", 0), ("steered", 0), ("control", 0), ("control", 1)]
    counts = found["answers"].group_by("language", "condition", "draw", maintain_order=True).len().rows()
    assert counts == [(k, *run, count) for k, count in (("en", 24), ("fr", 8)) for run in runs]
    assert found["answers"].select("language", "condition", "draw", "id").is_unique().all()
    assert found.notes == ()


def test_answers_are_those_of_the_model_under_the_edit(files, found):
    model, tokenizer = model_of(), tokenizer_of()
    questions = read_squad(files["fr"])
    options = GenerationOptions(new_tokens=6, repetition_penalty=1.0)
    own = neurons_of()["fr"]
    for name, edits in (("none", []), ("off", Off(own)), ("steered", Add(own, STATS.mean("fr")))):
        with edited(model, edits):
            expected = [
                first_line(generate(model, tokenizer, [passage_prompt(tokenizer, q, "fr")], options)[0])
                for q in questions
            ]
        rows = found["answers"].filter((pl.col("language") == "fr") & (pl.col("condition") == name))
        assert rows["answer"].to_list() == expected
        assert rows["id"].to_list() == [q.id for q in questions]
        assert [(row["exact"], row["f1"], row["rouge_l"]) for row in rows.iter_rows(named=True)] == [
            overlap(answer, q.answers) for answer, q in zip(expected, questions, strict=True)
        ]


def test_edits_change_answers_here(found):
    means = {
        (row["language"], row["condition"], row["draw"]): row["exact"]
        for row in found["answering"].iter_rows(named=True)
    }
    assert means["en", "none", 0] > 0.5
    assert means["en", "off", 0] < means["en", "none", 0]
    assert means["fr", "steered", 0] < means["fr", "none", 0]


def test_the_table_holds_means_and_differences_question_by_question(found):
    assert dict(found["answering"].schema) == TABLE
    assert len(found["answering"]) == 10
    for row in found["answering"].iter_rows(named=True):
        mine = (pl.col("language") == row["language"]) & (pl.col("condition") == row["condition"])
        rows = found["answers"].filter(mine & (pl.col("draw") == row["draw"]))
        assert row["questions"] == len(rows)
        for score in ("exact", "f1", "rouge_l"):
            assert row[score] == pytest.approx(rows[score].mean())
        if row["condition"] == "none":
            assert row["difference_f1"] is None
        else:
            base = found["answers"].filter((pl.col("language") == row["language"]) & (pl.col("condition") == "none"))
            assert row["difference_f1"] == pytest.approx(rows["f1"].mean() - base["f1"].mean())


def test_intervals_are_paired_and_there_are_none_under_20_passages(found):
    few = found["answering"].filter(pl.col("language") == "fr")
    assert few.select(pl.col("^.*_(low|high)$")).null_count().sum_horizontal()[0] == 10 * len(few)
    drawn = Resamples(24, 100, 0)
    off = found["answers"].filter((pl.col("language") == "en") & (pl.col("condition") == "off"))["f1"].to_numpy()
    none = found["answers"].filter((pl.col("language") == "en") & (pl.col("condition") == "none"))["f1"].to_numpy()
    row = found["answering"].filter((pl.col("language") == "en") & (pl.col("condition") == "off")).row(0, named=True)
    assert (row["f1_low"], row["f1_high"]) == pytest.approx(drawn.interval(drawn.ratio(off, np.ones(24)))[1:])
    change = drawn.ratio(off - none, np.ones(24))
    expected = drawn.interval(change)[1:]
    assert row["difference_f1_quantiles"] == pytest.approx(drawn.quantiles(change), nan_ok=True)
    assert (row["difference_f1_low"], row["difference_f1_high"]) == pytest.approx(expected)
    assert expected[0] < row["difference_f1"] < expected[1]


def test_the_same_question_shares_its_resamples_over_languages(found):
    """Two languages with the same scores have the same intervals, even where one was asked only some of the questions."""
    one = found["answers"].filter(pl.col("language") == "en")
    table = table_of(pl.concat([one, one.with_columns(language=pl.lit("fr"))]), AnsweringOptions(resamples=100))
    halves = [
        table.filter(pl.col("language") == k).select(pl.exclude("language", "^below_control.*$")) for k in ("en", "fr")
    ]
    assert halves[0].equals(halves[1])


def test_a_set_is_beside_the_mean_of_its_controls_question_by_question_and_over_their_draws(found):
    scored = {
        key: part["f1"].to_numpy()
        for key, part in found["answers"]
        .filter(pl.col("language") == "en")
        .partition_by("condition", "draw", as_dict=True)
        .items()
    }
    drawn = Resamples(24, 100, 0)
    each = np.stack([drawn.sums(scored["control", k] - scored["off", 0]) / 24 for k in (0, 1)], 1)
    row = found["answering"].filter((pl.col("language") == "en") & (pl.col("condition") == "off")).row(0, named=True)
    ends = (row["below_control"], row["below_control_low"], row["below_control_high"])
    assert ends == pytest.approx(drawn.interval(each.mean(1), draws=[each[0]]))
    controls = found["answers"].filter(pl.col("language") == "en", pl.col("condition") == "control")
    ratios = [controls.filter(pl.col("draw") == draw)["energy_ratio"][0] for draw in (0, 1)]
    assert row["energy_ratio"] == pytest.approx(2 / sum(1 / ratio for ratio in ratios))
    rest = found["answering"].filter(pl.col("condition") != "off")
    assert rest["below_control"].null_count() == len(rest)


def test_questions_of_a_passage_are_drawn_together():
    """Five questions of a passage that are answered alike say no more than one."""
    random, rows = np.random.default_rng(0), []
    for condition in ("none", "off", "control"):
        for passage, right in enumerate(random.random(30) < {"none": 0.9, "off": 0.2, "control": 0.7}[condition]):
            of = {"language": "fr", "condition": condition, "draw": 0, "passage": passage}
            rows += [{**of, "number": 5 * passage + k, "exact": right, "f1": right, "rouge_l": right} for k in range(5)]
    five = pl.DataFrame(rows, schema=ANSWERS)
    one = five.filter(pl.col("number") % 5 == 0)
    tables = [table_of(some, AnsweringOptions(resamples=200)).drop("questions") for some in (five, one)]
    for a, b in zip(*(table.select(pl.exclude(pl.String, pl.List)).rows() for table in tables), strict=True):
        assert a == pytest.approx(b, nan_ok=True)


def test_fewer_questions_and_examples_of_other_articles(files):
    found = answering(model_of(), tokenizer_of(), neurons_of(), STATS, files, questions=3, draws=0, **FAST)["answers"]
    assert found.filter(pl.col("condition") == "none")["id"].to_list() == [
        "q0.0",
        "q8.0",
        "q16.0",
        "q0.0",
        "q2.0",
        "q5.0",
    ]
    asked, every = spread(read_squad(files["fr"]), 3), read_squad(files["fr"])
    prompts = [passage_prompt(tokenizer_of(), q, "fr", shots_for(q, every, 1, 0)) for q in asked]
    options = GenerationOptions(new_tokens=6, repetition_penalty=1.0)
    expected = [first_line(generate(model_of(), tokenizer_of(), [prompt], options)[0]) for prompt in prompts]
    mine = found.filter((pl.col("language") == "fr") & (pl.col("condition") == "none"))
    assert mine["answer"].to_list() == expected


def test_a_language_without_neurons_or_frame_is_asked_and_noted(tmp_path):
    pytest.importorskip("rouge_score")
    path = written(tmp_path / "a.json", squad())
    sets = {**SETS, "fr": range(0)}
    found = answering(model_of(), tokenizer_of(), neurons_of(sets), STATS, {"fr": path, "sw": path}, **FAST)
    assert found["answering"].select("language", "condition").rows() == [
        ("fr", "none"), ("sw", "none"), ("sw", "off"), ("sw", "steered"), ("sw", "control"),
    ]  # fmt: skip
    assert len(found.notes) == 2
    assert "fr has no neurons" in found.notes[0]
    assert "sw has no words of its own" in found.notes[1]


def test_control_neurons_match_layers_are_nobody_s_and_follow_the_seed():
    neurons, model = neurons_of(), model_of()
    kinds, notes = conditions(model, neurons, STATS, "fr", steer=None, draws=2, seed=0)
    assert [(one.name, one.draw) for one in kinds] == [("off", 0), ("control", 0), ("control", 1)]
    assert notes == []
    own, first, second = (one.edits[0].neurons for one in kinds)
    assert own == neurons["fr"]
    assert first != second
    for control in (first, second):
        assert {k: len(v) for k, v in control.by_layer().items()} == {k: len(v) for k, v in own.by_layer().items()}
        assert len(control & neurons.union) == 0
    again, _ = conditions(model, neurons, STATS, "fr", steer=None, draws=1, seed=0)
    other, _ = conditions(model, neurons, STATS, "fr", steer=None, draws=1, seed=1)
    assert again[1].edits[0].neurons == first
    assert other[1].edits[0].neurons != first


def test_control_neurons_are_matched_by_what_they_write_in_the_language():
    model, by = model_of(), energy(model_of(), STATS, "fr")
    for layer in range(LAYERS):
        columns = model.model.layers[layer].mlp.down_proj.weight.detach().double()
        for index in (0, 7, 43):
            flat = 44 * layer + index
            mean = STATS["fr"].sums("written_square")[flat] / STATS["fr"].tokens.sum()
            assert float(by[flat]) == pytest.approx(float(mean * columns[:, index].square().sum()), rel=1e-6)


def test_a_set_too_large_for_a_control_is_switched_off_without_one():
    kinds, notes = conditions(model_of(), neurons_of({"fr": range(40)}), STATS, "fr", steer=None, draws=1, seed=0)
    assert [one.name for one in kinds] == ["off"]
    assert "fr has no control" in notes[0]


def test_how_it_is_steered_is_an_option(files):
    model, own = model_of(), neurons_of()["fr"]
    how = replace(PUBLISHED, how="scale", strength=3.0, tokens="generated", first=2)
    found = answering(
        model,
        tokenizer_of(),
        neurons_of(),
        STATS,
        {"fr": files["fr"]},
        steer=how,
        shots=0,
        draws=0,
        questions=2,
        **FAST,
    )["answers"]
    asked = spread(read_squad(files["fr"]), 2)
    options = GenerationOptions(new_tokens=6, repetition_penalty=1.0)
    with edited(model, Scale(own, 3.0), tokens="generated", first=2):
        prompts = [passage_prompt(tokenizer_of(), q, "fr") for q in asked]
        expected = [first_line(generate(model, tokenizer_of(), [prompt], options)[0]) for prompt in prompts]
    assert found.filter(pl.col("condition") == "steered")["answer"].to_list() == expected


def test_measuring_leaves_the_model_as_it_was(files):
    ids = torch.tensor([[1, 20, 30, 40]])
    before = logits_of(model_of(), ids)
    answering(model_of(), tokenizer_of(), neurons_of(), STATS, {"fr": files["fr"]}, questions=1, **FAST)
    assert torch.equal(logits_of(model_of(), ids), before)


def test_finished_conditions_are_kept_and_found_again(files, found, tmp_path, monkeypatch):
    counted, ran = stopped(run._written, 3)

    def again():
        return answering(
            model_of(),
            tokenizer_of(),
            neurons_of(),
            STATS,
            {"en": files["en"]},
            shots=0,
            draws=2,
            folder=tmp_path,
            **FAST,
        )

    monkeypatch.setattr(run, "_written", counted)
    with pytest.raises(KeyboardInterrupt):
        again()
    ran.clear()
    assert again()["answers"].equals(found["answers"].filter(language="en"))
    assert len(ran) == 2  # of five


# --- what is refused ---


def refused(path, kind, words, neurons=None, stats=STATS, language="fr", **options):
    with pytest.raises(kind, match=words):
        answering(model_of(), tokenizer_of(), neurons or neurons_of(), stats, {language: path}, **{**FAST, **options})


def test_what_cannot_be_asked_is_refused(tmp_path):
    pytest.importorskip("rouge_score")
    path = written(tmp_path / "a.json", squad())
    one = written(tmp_path / "b.json", squad(articles=1))
    refused(path, TextError, "no neurons of ja", language="ja")
    refused(path, TextError, "de was not recorded", neurons_of({"de": range(3)}), language="de")
    refused(one, OptionError, "another article")
    refused(path, OptionError, r"1024 positions.*Lower shots", new_tokens=1000)
    refused(path, MismatchError, "3 × 40", stats=made_stats(space=NeuronSpace.dense(3, 40), sums=True, of=None))
    refused(path, OptionError, "Record them", stats=made_stats(space=SPACE, of=None))
    with pytest.raises(TextError, match="No file"):
        answering(model_of(), tokenizer_of(), neurons_of(), STATS, {})
    with pytest.raises(TextError, match="named twice"):
        answering(model_of(), tokenizer_of(), neurons_of(), STATS, {"fr": path, "fra_Latn": path})


@pytest.mark.parametrize("options", [{"questions": 0}, {"shots": -1}, {"draws": -1}, {"resamples": 0}, {"batch": 0}])
def test_numbers_that_cannot_be_are_refused(options):
    with pytest.raises(OptionError):
        AnsweringOptions(**options)


def test_without_the_library_it_says_what_to_type(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(OptionError, match=r'pip install "\.\[eval\]"'):
        answering(model_of(), tokenizer_of(), neurons_of(), STATS, {"fr": written(tmp_path / "a.json", squad())})
