"""Files damaged by chance: a refusal or a right result, never a traceback, a hang, something half-written or impossible numbers."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import pytest

from lape.ship.server import Answering, ask_server
from support.fuzz import IMPOSSIBLE, KINDS, REPLIES, Kind, World, called, whole
from support.serving import ADAPTER, BASE, Fake, serving

SEED = os.environ.get("LAPE_FUZZ_SEED") or str(random.SystemRandom().randrange(10**6))
"""Another one each time; LAPE_FUZZ_SEED repeats a run. It stands in every line that the test prints."""
SHORT, LONG = 8, 120
"""Damaged files of a kind, and those of the long rounds."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("fuzz"))


def rounds(world: World, kind: Kind, times: int) -> tuple[list[str], int]:
    """What went wrong, of so many damaged files, half of them no files of their kind and half such with something else in them; how many were accepted."""
    good = {}
    for command in kind.commands:
        outcome = world.run(command, world.damaged(kind, whole, random.Random(0)))
        assert (outcome.code, outcome.left) == (0 if kind.good else 2, ()), outcome.said
        good[command] = outcome.result
    wrong, accepted = [], 0
    for number in range(times):
        changes = kind.meaning if number % 2 and kind.meaning else kind.syntax
        change = changes[number // 2 % len(changes)]
        command = kind.commands[number // 2 // len(changes) % len(kind.commands)]
        path = world.damaged(kind, change, random.Random(f"{kind.name} {SEED} {number}"))
        outcome = world.run(command, path)
        what = f"LAPE_FUZZ_SEED={SEED}: {kind.name} {number}, {change.__name__}: {command}"
        accepted += outcome.code == 0
        if outcome.code not in (0, 2):
            wrong.append(f"{what}: {outcome.said[-900:]}")
        elif outcome.left:
            wrong.append(f"{what} left {outcome.left}")
        elif outcome.code == 0 and change in kind.exact and outcome.result != good[command]:
            wrong.append(f"{what}: accepted, with another result")
    return wrong, accepted


def said(capsys: pytest.CaptureFixture[str], kind: Kind, times: int, accepted: int) -> None:
    with capsys.disabled():
        print(f"\n{kind.name}: {accepted} of {times} damaged files were accepted (LAPE_FUZZ_SEED={SEED})", end="")  # noqa: T201


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("times", [SHORT, pytest.param(LONG, marks=pytest.mark.soak)], ids=["short", "long"])
def test_a_damaged_file_is_refused_or_changes_nothing(
    world: World, kind: Kind, times: int, capsys: pytest.CaptureFixture[str]
) -> None:
    if not (world.folder / Path(kind.file)).exists():
        pytest.skip(f"there is no package that writes {kind.name}")
    wrong, accepted = rounds(world, kind, times)
    said(capsys, kind, times, accepted)
    assert not wrong


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in IMPOSSIBLE.items() for case in cases])
def test_what_cannot_be_is_refused_in_its_own_words_whatever_its_seal_says(world: World, name: str, case: str) -> None:
    kind = next(kind for kind in KINDS if kind.name == name)
    change, words = IMPOSSIBLE[name][case]
    path = world.damaged(kind, whole, random.Random(0))
    change(path)
    outcome = world.run(kind.commands[-1 if name == "lape.json" else 0], path)
    assert outcome.code == 2, outcome.said
    assert re.search(words, outcome.said), outcome.said


@pytest.mark.parametrize("reply", REPLIES)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions"])
def test_whatever_a_server_sends_is_an_answer_or_a_refusal_in_one_paragraph(path: str, reply: str) -> None:
    with serving(Fake(replies={path: REPLIES[reply]})) as fake:
        asked = [
            called(lambda: Answering.at(fake.url, BASE).answer([{"role": "user", "content": "Why?"}])),
            called(lambda: ask_server(fake.url, ADAPTER, ["Why?"])),
        ]
    for code, words in asked:
        assert code in (0, 2), words
        assert "\n" not in words or code == 0
        words.encode()
