"""The help: verbs in the order of work, flags in panels."""

from __future__ import annotations

import re

import pytest

from lape.cli import ORDER, VERBS, app, run
from lape.cli.panels import ELSEWHERE, EXPERT, PANELS, sorted_in_panels
from lape.experiments import experiments

MOST = 10
"""Flags in a panel that is not for experts."""
COMMANDS = [
    *({"evaluate": "eval"}.get(verb, verb) for verb in VERBS),
    *(f"run {name}" for name in experiments() if experiments()[name].run.__module__.startswith("lape.")),
]


def flags_of(command: str) -> list[str]:
    at = app()
    for word in command.split():
        at = at[word]
    return [one.names[0].lstrip("-").lower() for one in at.assemble_argument_collection() if one.parse and one.show]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_flag_has_one_panel_and_none_but_the_last_is_long(command):
    flags = flags_of(command)
    panels = sorted_in_panels(command.split()[0], flags)
    assert sorted(flag for some in panels.values() for flag in some) == sorted(flags)
    assert list(panels) == [panel for panel in (*PANELS, EXPERT) if panel in panels]
    assert max((len(some) for panel, some in panels.items() if panel != EXPERT), default=0) <= MOST


def test_no_panel_holds_a_flag_that_no_verb_has():
    every = {flag for command in COMMANDS for flag in flags_of(command)}
    assert {flag for panel in PANELS.values() for flag in panel} <= every
    for verb, flags in ELSEWHERE.items():
        assert {*flags} <= {*flags_of(verb)}


def test_lape_alone_shows_the_order_of_work_and_where_to_start(capsys):
    assert run([]) == 0
    said = capsys.readouterr().out
    at = [said.index(title) for title in ORDER]
    assert at == sorted(at)
    order = [
        said.index(f"\n│ {verb} ") for verb in ("demo", "record", "identify", "perplexity", "steer", "export", "report")
    ]
    assert order == sorted(order)
    assert "Start with lape demo" in " ".join(said.split())


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("record", "lape record MODEL --text TAG=PATH --out OUT [OPTIONS]"),
        ("steer", "lape steer MODEL [PROMPTS ...] --to TO [OPTIONS]"),
        ("run layers", "lape run layers [MODEL] --run RUN [OPTIONS]"),
    ],
)
def test_usage_is_said_in_the_order_in_which_it_is_typed(command, usage, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run([*command.split(), "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"Usage: {usage}\n")
    titles = re.findall(r"╭─ (\w+) ─", said)
    assert titles == sorted(set(titles), key=[*PANELS, EXPERT].index)
    assert max(map(len, said.splitlines())) <= 80
    assert "[default: False]" not in said


def test_help_leaves_the_app_of_an_experiment_as_it_was(capsys):
    before = app()["run"]["layers"].usage
    assert run(["run", "layers", "--help"]) == 0
    assert "lape run layers" in capsys.readouterr().out
    assert app()["run"]["layers"].usage == before
