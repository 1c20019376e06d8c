"""What is printed: text as it is, harmless to a terminal, and whole where there is none."""

from __future__ import annotations

import io
import subprocess
import sys
import time

import pytest
from rich.cells import cell_len
from rich.text import Text

from lape.cli import common
from lape.cli.common import Flowing, Terminal, progress
from lape.cli.tables import titled
from lape.signs import visible

FOREIGN = "run[/x] [red]y[/] \x1b]0;title\x07\x1b[2J\x9b5m\x08 a\u202eb \u2066c \ud800 [link=file:///]z[/link] :smile:"
HARMLESS = "run[/x] [red]y[/] ⟨U+001B⟩]0;title"


def printed(thing: object, **how: object) -> str:
    file = io.StringIO()
    Terminal(file=file, **how).print(thing)
    return file.getvalue()


@pytest.mark.parametrize("how", [{}, {"force_terminal": True, "width": 300, "color_system": "truecolor"}])
def test_no_text_is_markup_or_steers_the_terminal_whatever_it_is_printed_in(how):
    for thing in (FOREIGN, Text(FOREIGN, style="bold"), titled(FOREIGN, [FOREIGN], [[FOREIGN]], FOREIGN)):
        said = printed(thing, **how)
        assert HARMLESS in said.replace("\x1b[1m", "")
        assert "[link=file:///]z[/link] :smile:" in said
        assert "a⟨U+202E⟩b ⟨U+2066⟩c ⟨U+D800⟩" in said
        own = ("\x1b[0m", "\x1b[1m", "\x1b[3m") if how else ()
        for code in own:
            said = said.replace(code, "")
        assert not set(said) & {"\x1b", "\x07", "\x9b", "\x08", "\u202e"}


def test_what_is_readable_stays_as_it_is():
    for text in ("a\tb\nc", "नमस्ते क्‍ष", "שלום\u200f", "👩‍👩‍👧", "naïve"):
        assert visible(text) == text


def test_a_line_is_as_long_as_it_is_where_there_is_no_terminal():
    assert printed("word " * 100).count("\n") == 1
    assert printed("word " * 100, width=80).count("\n") > 5


def test_piped_progress_tells_the_last_step_of_what_takes_long(monkeypatch):
    now = iter([0.0, 4.0, 11.0, 15.0, 20.0, 20.0, 21.0])
    file = io.StringIO()
    monkeypatch.setattr(common, "err", Terminal(file=file))
    monkeypatch.setattr(common.time, "monotonic", lambda: next(now))
    with progress() as report:
        for done in (0, 40, 60, 80, 100):
            report("recording en", done, 100)
        report("short", 0, 1)
        report("short", 1, 1)
    lines = file.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == ["recording en: 60 of 100", "recording en: 100 of 100"]


def test_what_is_done_again_under_the_same_name_is_told_again(monkeypatch):
    now = iter([0.0, 20.0, 21.0, 41.0])
    file = io.StringIO()
    monkeypatch.setattr(common, "err", Terminal(file=file))
    monkeypatch.setattr(common.time, "monotonic", lambda: next(now))
    with progress() as report:
        for done, total in ((0, 9), (9, 9), (1, 5), (3, 5)):
            report("switching neurons off", done, total)
    assert [line.split(",")[0][-6:] for line in file.getvalue().splitlines()] == ["9 of 9", "3 of 5"]


def test_a_terminal_shows_the_bar_of_what_is_done_again(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(common, "err", Terminal(file=file, width=80, force_terminal=True))
    with progress() as report:
        report("switching neurons off", 9, 9)
        report("measuring the unedited model", 0, 2)
        report("switching neurons off", 1, 5)
        common._shown[-1].refresh()
        shown = file.getvalue()
    assert "1/5" in shown


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_an_answer_breaks_between_words_on_a_terminal_and_nowhere_else(size, monkeypatch):
    text = "Un deux trois quatre cinq six\nsept, huit neuf dix onze 天空为什么是蓝色的呢请回答我 fin"
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    monkeypatch.setattr(common, "out", Terminal(file=io.StringIO(), width=20, force_terminal=True))
    flow = Flowing(9)
    said = "".join([*map(flow, pieces), flow.rest()])
    assert "".join(said.split()) == "".join(text.split())
    lines = ["." * 9 + said.split("\n")[0], *said.split("\n")[1:]]
    assert max(cell_len(line.rstrip()) for line in lines) <= 20
    assert [line.strip(" .") for line in lines[:4]] == ["Un deux", "trois quatre cinq", "six", "sept, huit neuf dix"]
    monkeypatch.setattr(common, "out", Terminal(file=io.StringIO()))
    flow = Flowing(9)
    assert "".join([*map(flow, pieces), flow.rest()]) == text


def test_a_step_that_cannot_say_how_far_it_is_is_told_of_all_the_same(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(common, "err", Terminal(file=file))
    monkeypatch.setattr(common, "EVERY", 0.05)
    with progress() as report:
        report("reading the weights of m.gguf", 0, None)
        time.sleep(0.3)
        report("recording en", 0, 9)
        said = file.getvalue()
        time.sleep(0.3)
    assert 2 <= said.count("reading the weights of m.gguf: 1 s so far\n") <= 4  # each time after twice as long
    assert file.getvalue() == said


def test_a_terminal_shows_from_the_start_what_is_being_done(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(common, "err", Terminal(file=file, width=100, force_terminal=True, color_system=None))
    with progress() as report:
        report("reading [the] weights of m.gguf", 0, None)
        time.sleep(0.2)
        assert "reading [the] weights of m.gguf" in file.getvalue()


def test_a_reader_that_has_read_enough_is_no_mistake():
    code = "from lape.cli.common import out\nfor number in range(10**5): out.print(number)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"0\n"
        child.stdout.close()
        assert (child.wait(60), child.stderr.read()) == (0, b"")
