"""`lape doctor URL`: what it shows in a pipe and at 80 columns, when it fails, and what it compares with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import lape
from lape.cli import run
from lape.cli.common import out
from lape.data import samples
from lape.data.language_id import Guess
from lape.errors import OptionError
from lape.measure.generation import GenerationOptions, generate
from support.planted import planted_folder
from support.serving import ADAPTER, BASE, Fake, serving

pytestmark = pytest.mark.usefixtures("one_thread")
FRENCH = "Le ciel paraît bleu pendant la journée parce que la lumière du soleil est diffusée par l'air."
ENGLISH = "The sky looks blue during the day because the light of the sun is scattered by the air."
PLAIN = GenerationOptions(new_tokens=20, repetition_penalty=1.0)


@pytest.fixture
def start() -> Iterator[Callable[..., Fake]]:
    """Starts a server that answers as `Fake(…)` says, in French and English unless it says otherwise."""
    with ExitStack() as stack:
        usual: dict[str, Any] = {"says": lambda _, acts: FRENCH if acts else ENGLISH}
        yield lambda **how: stack.enter_context(serving(Fake(**{**usual, **how})))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Languages without an identifier's package."""

    class Names:
        missing = None

        def __init__(self, languages: Any) -> None: ...

        def __call__(self, text: str) -> Guess:
            return Guess("fr" if "é" in text else "en", 0.9)

    monkeypatch.setattr("lape.cli.served.Teller", Names)


def asked(fake: Fake) -> list[str]:
    return [body["messages"][-1]["content"] for _, body, _ in fake.seen if body]


def test_both_answers_are_shown_each_with_its_language(start: Any, told: None, capsys: Any) -> None:
    fake = start()
    assert run(["doctor", fake.url, "--adapter", ADAPTER]) == 0
    said = capsys.readouterr().out
    assert f"without {ADAPTER}: {ENGLISH}\n  en, 90% certain\nwith {ADAPTER}: {FRENCH}\n  fr, 90% certain\n" in said
    assert "24 of 24 answers changed" in said
    assert "languages without: en 24; with: fr 24" in said
    assert "asked twice without it: the same answer" in said
    assert f"The server uses {ADAPTER}." in said
    assert asked(fake) == [one for one in samples.questions("development")["en"] for _ in range(3)]


def test_at_80_columns_they_stand_side_by_side(start: Any, told: None, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(out, "_force_terminal", True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    assert run(["doctor", start().url, "--adapter", ADAPTER, "--source", "fr"]) == 0
    lines = capsys.readouterr().out.splitlines()
    beside = [line for line in lines if "The sky looks" in line]
    assert len(beside) == 24
    assert all("Le ciel" in line for line in beside)
    answers = lines[: next(at for at, line in enumerate(lines) if line.startswith("vLLM"))]
    assert max(map(len, answers)) <= 80


def test_without_the_extra_languages_are_not_told(start: Any, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("lape.data.language_id.need", lambda *_: (_ for _ in ()).throw(OptionError("no lingua")))
    assert run(["doctor", start().url, "--adapter", ADAPTER]) == 0
    said = capsys.readouterr().out
    assert "language not identified (needs the extra lid)" in said
    assert "languages without" not in said


def test_a_server_that_ignores_the_adapter_fails(start: Any, told: None, capsys: Any) -> None:
    assert run(["doctor", start(uses=lambda _: False).url, "--adapter", ADAPTER]) == 2
    said = capsys.readouterr()
    assert f"with and without {ADAPTER}: {ENGLISH}\n" in said.out
    assert "The server uses" not in said.out
    assert "byte for byte" in said.err
    assert "--new-tokens 64" in said.err
    assert said.err.count("\n") == 1


def test_a_server_that_goes_on_from_another_adapter_s_prompt_is_warned_of(start: Any, told: None, capsys: Any) -> None:
    assert run(["doctor", start(engine="llamacpp", keeps=True).url, "--adapter", ADAPTER, "--base", BASE]) == 0
    said = capsys.readouterr()
    assert "The server uses" in said.out
    assert "answers 24 of 24 prompts otherwise once" in said.err
    assert "--no-cache-prompt" in said.err
    assert said.err.count("\n") == 1


def test_prompts_come_from_a_file(start: Any, told: None, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("one\n\n two \n")
    talk = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    (tmp_path / "p.jsonl").write_text(json.dumps({"messages": talk}))
    fake = start()
    for name in ("p.txt", "p.jsonl"):
        assert run(["doctor", fake.url, "--adapter", ADAPTER, "--prompts", str(tmp_path / name)]) == 0
    assert asked(fake) == ["one"] * 3 + ["two"] * 3 + ["u"] * 3
    assert fake.seen[-1][1]["messages"] == talk


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["URL"], "lape doctor URL --adapter NAME"),
        (["URL", "--adapter", "to-it"], "Its adapters: to-fr"),
        (["sample", "--adapter", "to-fr"], "sample is no address"),
        (["URL", "--adapter", "to-fr", "--source", "xx"], "Name one of these, or give --prompts FILE"),
        (["URL", "--adapter", "to-fr", "--prompts", "HERE/none.txt"], "There is no file"),
        (["URL", "--adapter", "to-fr", "--prompts", "HERE/empty.txt"], "holds no prompt"),
        (["URL", "--adapter", "to-fr", "--prompts", "HERE/talk.jsonl", "--bare"], "no messages can be used"),
        (["URL", "--adapter", "to-fr", "--folder", "HERE"], "Name the model too: --local MODEL"),
        (["URL", "--adapter", "to-fr", "--folder", "HERE", "--local", "HERE"], "which says which edits"),
        (["URL", "--adapter", "to-fr", "--base", "none"], "It serves: org/base"),
        (["URL", "--adapter", "to-fr", "--new-tokens", "0"], "Expected 1 or more"),
        (
            ["http://127.0.0.1:9", "--adapter", "to-fr", "--local", "nowhere"],
            "could not be used",
        ),  # before any is loaded
        (["http://192.0.2.1", "--adapter", "to-fr"], "Type --remote to allow that"),
    ],
)
def test_a_mistake_is_one_paragraph(words: list[str], said: str, start: Any, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "talk.jsonl").write_text('[{"role": "user", "content": "u"}]')
    url = start().url
    assert run(["doctor", *(word.replace("URL", url).replace("HERE", str(tmp_path)) for word in words)]) == 2
    found = capsys.readouterr().err
    assert said.replace("URL", url) in found
    assert found.count("\n") == 1


@pytest.mark.parametrize("honest", [True, False])
def test_the_server_is_compared_with_the_model_at_hand(
    honest: bool, start: Any, told: None, tmp_path: Path, capsys: Any
) -> None:
    """A server that runs the very model agrees with it; one that uses another strength does not with the edited one."""
    here = planted_folder(tmp_path)
    model, tokenizer = lape.load(here / "model", device="cpu")
    neurons = lape.LanguageNeurons.load(here / "run")
    edits = [lape.Scale(neurons["fr"], 3.0), lape.Off(neurons["en"])]
    folder = lape.export(model, edits, tmp_path / "adapter", tokenizer=tokenizer)
    used = edits if honest else [lape.Scale(neurons["en"], 9.0)]

    def says(prompt: str, acts: bool) -> str:
        with lape.edited(model, used if acts else []):
            return generate(model, tokenizer, [prompt], PLAIN)[0]

    (tmp_path / "p.txt").write_text("fr01 fr02\nen03 en01 en04\nfr05\n")
    words = [
        "doctor",
        start(says=says).url,
        "--adapter",
        ADAPTER,
        "--bare",
        "--prompts",
        str(tmp_path / "p.txt"),
        "--new-tokens",
        "20",
    ]
    words += ["--local", str(here / "model"), "--device", "cpu"]
    assert run([*words, "--folder", str(folder)]) == 0
    said = capsys.readouterr()
    assert "as the unedited model at hand has them: 1.00; all of them in 3 of 3 answers" in said.out
    assert ("as the edited model at hand has them: 1.00" in said.out) is honest
    assert ("agrees less with the edited model" in said.err) is not honest
    if honest:
        assert run(words) == 0
        said = capsys.readouterr().out
        assert "as the unedited model at hand has them: 1.00" in said
        assert "as the edited" not in said
