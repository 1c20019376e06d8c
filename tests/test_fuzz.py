"""Files damaged by chance: a refusal or a right result, never a traceback, a hang, something half-written or impossible numbers."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from lape.store.tensors import write_tensors
from support.fuzz import IMPOSSIBLE, KINDS, Kind, World, opened, whole

OURS = [kind for kind in KINDS if kind.ours]
NAMES = [kind.name for kind in KINDS]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("fuzz"))


def rounds(world: World, kind: Kind, times: int, seed: int) -> list[str]:
    """What went wrong, of so many damaged files."""
    good = {}
    for command in kind.commands:
        outcome = world.run(command, world.damaged(kind, whole, random.Random(0)))
        assert (outcome.code, outcome.left) == (0 if kind.good else 2, ()), outcome.said
        good[command] = outcome.result
    wrong = []
    for number in range(times):
        change = kind.change[number % len(kind.change)]
        command = kind.commands[number // len(kind.change) % len(kind.commands)]
        path = world.damaged(kind, change, random.Random(f"{kind.name} {seed} {number}"))
        outcome = world.run(command, path)
        what = f"{kind.name} {change.__name__} {seed} {number}: {command.split()[0]}"
        if outcome.code not in (0, 2):
            wrong.append(f"{what}: {outcome.said[-900:]}")
        elif outcome.left:
            wrong.append(f"{what} left {outcome.left}")
        elif outcome.code == 0 and change in kind.exact and outcome.result != good[command]:
            wrong.append(f"{what}: accepted, with another result")
    return wrong


@pytest.mark.parametrize("kind", OURS, ids=[kind.name for kind in OURS])
def test_a_damaged_file_of_ours_is_refused_or_changes_nothing(world: World, kind: Kind) -> None:
    assert not rounds(world, kind, 6, 0)


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in IMPOSSIBLE.items() for case in cases])
def test_what_cannot_be_is_refused_whatever_its_seal_says(world: World, name: str, case: str) -> None:
    kind = next(kind for kind in KINDS if kind.name == name)
    for command in kind.commands:
        path = world.damaged(kind, whole, random.Random(0))
        held = opened(path)
        IMPOSSIBLE[name][case](held)
        write_tensors(path, held.tensors, held.header)
        outcome = world.run(command, path)
        assert outcome.code == 2, f"{command}: {outcome.said}"
        assert "damaged" in outcome.said or "format" in outcome.said


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_thousands_of_damaged_files_are_refused_or_change_nothing(world: World, kind: Kind) -> None:
    if not (world.folder / Path(kind.file)).exists():
        pytest.skip(f"there is no package that writes {kind.name}")
    assert not rounds(world, kind, 150 if kind.ours else 70, 1)
