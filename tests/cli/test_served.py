"""`lape doctor URL`: what it shows, and when it fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lape.cli import run
from lape.data import samples
from support.serving import ADAPTER, Fake, serving

FRENCH = "Le ciel paraît bleu pendant la journée parce que la lumière du soleil est diffusée par l'air."
ENGLISH = "The sky looks blue during the day because the light of the sun is scattered by the air."


@pytest.fixture
def start() -> Iterator[Callable[..., Fake]]:
    """Starts a server that answers as `Fake(…)` says, in French and English unless it says otherwise."""
    with ExitStack() as stack:
        usual: dict[str, Any] = {"says": lambda _, acts: FRENCH if acts else ENGLISH}
        yield lambda **how: stack.enter_context(serving(Fake(**{**usual, **how})))


def asked(fake: Fake) -> list[str]:
    return [body["messages"][-1]["content"] for _, body, _ in fake.seen if body]


def test_both_answers_are_shown_and_the_verdict(start: Any, capsys: Any) -> None:
    fake = start()
    assert run(["doctor", fake.url, "--adapter", ADAPTER]) == 0
    said = capsys.readouterr().out
    assert f"without {ADAPTER}: {ENGLISH}\nwith {ADAPTER}: {FRENCH}\n" in said
    assert f"{ADAPTER} changes 24 of 24 answers; asked twice without it, the server changes 0" in said
    assert f"The server uses {ADAPTER}." in said
    assert asked(fake) == [question for question in samples.questions("development")["en"] for _ in range(3)]


def test_a_server_that_ignores_the_adapter_fails(start: Any, capsys: Any) -> None:
    assert run(["doctor", start(uses=lambda _: False).url, "--adapter", ADAPTER]) == 2
    said = capsys.readouterr()
    assert f"with and without {ADAPTER}: {ENGLISH}\n" in said.out
    assert "The server uses" not in said.out
    assert "byte for byte" in said.err
    assert "--new-tokens 64" in said.err
    assert said.err.count("\n") == 1


def test_prompts_come_from_a_file(start: Any, tmp_path: Path) -> None:
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
        (["URL", "--adapter", "to-fr", "--prompts", "HERE/none.txt"], "There is no file"),
        (["URL", "--adapter", "to-fr", "--prompts", "HERE/empty.txt"], "holds no prompt"),
        (["URL", "--adapter", "to-fr", "--prompts", "HERE/talk.jsonl", "--bare"], "no messages can be used"),
        (["URL", "--adapter", "to-fr", "--base", "none"], "It serves: org/base"),
        (["URL", "--adapter", "to-fr", "--new-tokens", "0"], "Expected 1 or more"),
        (["http://127.0.0.1:9", "--adapter", "to-fr"], "could not be used"),
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
