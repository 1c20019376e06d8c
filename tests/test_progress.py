"""What is told of work while it goes on."""

from __future__ import annotations

import ast
import io
import sys
import threading
from pathlib import Path

import pytest

import lape
from lape.progress import _Line, each, span


@pytest.mark.parametrize("things", [[], ["a"], {"a": 1, "b": 2}.items(), range(3)])
def test_it_is_told_before_each_thing_how_many_are_done_and_once_more_at_the_end(things):
    told = []
    seen = [(one, len(told)) for one in each(things, "work", lambda *said: told.append(said))]
    assert seen == [(one, k + 1) for k, one in enumerate(things)]
    assert told == [("work", done, len(things)) for done in range(len(things) + 1)]


def test_work_that_breaks_off_is_not_said_to_be_done():
    told = []
    next(each([1, 2], "work", lambda *said: told.append(said)))
    assert told == [("work", 0, 2)]


# --- the default ---


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr("lape.progress.time.monotonic", lambda: self.now)


def told_at(clock, *states):
    """What a line of its own writes of (second, task, done, total)."""
    line = _Line()
    for second, *state in states:
        clock.now = 100.0 + second
        line(*state)


class Stream(io.StringIO):
    def __init__(self, live):
        super().__init__()
        self.live = live

    def isatty(self):
        return self.live


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.mark.parametrize("live", [True, False])
def test_by_default_nothing_is_shown_of_what_takes_under_five_seconds(clock, monkeypatch, live):
    monkeypatch.setattr("sys.stderr", Stream(live))
    told_at(
        clock,
        (0, "reading", 0, None),
        (1, "work", 0, 10),
        (5, "work", 9, 10),
        (5.9, "work", 10, 10),
        (20, "more", 1, 1),
    )
    assert sys.stderr.getvalue() == ""


LONG = [(0, "work", 0, 100), *((second, "work", second, 100) for second in range(1, 100)), (100, "work", 100, 100)]


def test_a_terminal_shows_one_line_that_is_written_over(clock, monkeypatch):
    monkeypatch.setattr("sys.stderr", Stream(True))
    told_at(clock, *LONG)
    first, *states, last = sys.stderr.getvalue().split("\r")
    assert first == "work: 5 of 100, 1 per second, 2 min left"
    assert all(state.startswith("work: ") for state in states)
    assert last.rstrip(" \n") == "work: 100 in 2 min"
    assert last.endswith("\n")
    assert sys.stderr.getvalue().count("\n") == 1


def test_a_log_gets_a_line_when_a_long_task_ends_and_no_other(clock, monkeypatch):
    monkeypatch.setattr("sys.stderr", Stream(False))
    told_at(clock, *LONG, (101, "next", 0, 2), (102, "next", 2, 2))
    assert sys.stderr.getvalue() == "work: 100 in 2 min\n"


def test_a_task_that_begins_anew_is_timed_anew(clock, monkeypatch):
    monkeypatch.setattr("sys.stderr", Stream(False))
    told_at(clock, (0, "work", 0, 2), (4, "work", 1, 2), (10, "work", 0, 2), (14, "work", 2, 2))
    assert sys.stderr.getvalue() == ""


def test_a_name_can_neither_move_the_cursor_nor_fill_more_than_a_line(clock, monkeypatch):
    monkeypatch.setattr("sys.stderr", Stream(True))
    monkeypatch.setenv("COLUMNS", "40")
    told_at(clock, (0, "a\x1b[2J\n\r" + "b" * 100, 0, 2), (6, "a\x1b[2J\n\r" + "b" * 100, 1, 2))
    assert sys.stderr.getvalue() == "a?[2J??" + "b" * 32


def test_threads_do_not_share_a_line(clock, monkeypatch):
    monkeypatch.setattr("sys.stderr", Stream(False))
    line = _Line()
    line("work", 0, 2)
    clock.now += 9
    other = threading.Thread(target=lambda: (line("work", 0, 2), line("work", 2, 2)))
    other.start()
    other.join()
    assert sys.stderr.getvalue() == ""
    line("work", 2, 2)
    assert sys.stderr.getvalue() == "work: 2 in 9 s\n"


def test_a_closed_stream_and_none_stop_nothing(clock, monkeypatch, capsys):
    for stream in (Stream(True), None):
        if stream is not None:
            stream.close()
        monkeypatch.setattr("sys.stderr", stream)
        told_at(clock, *LONG)
    assert capsys.readouterr().out == ""


def test_every_function_that_reports_progress_shows_it_by_default():
    """By definition: a parameter `progress` has the default `shown`, or none."""
    found = []
    for path in Path(lape.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.Lambda)):
                arguments = [*node.args.posonlyargs, *node.args.args]
                pairs = [
                    *zip(arguments[len(arguments) - len(node.args.defaults) :], node.args.defaults, strict=True),
                    *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True),
                ]
                found += [
                    (path.name, ast.unparse(default))
                    for argument, default in pairs
                    if argument.arg == "progress"
                    and default is not None
                    and "Progress" in ast.unparse(argument.annotation)
                ]
    assert len(found) > 30
    assert {default for _, default in found} == {"shown"}


def test_seconds_are_said_as_people_read_them():
    assert [span(n) for n in (3, 89.6, 600, 7200, 10**6)] == ["3 s", "90 s", "10 min", "2.0 h", "11.6 days"]
