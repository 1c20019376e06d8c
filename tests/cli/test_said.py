"""What the command line says of mistakes."""

from __future__ import annotations

import shlex

import pytest

from lape.cli import _warnings_said, run
from lape.cli.said import in_flags
from lape.errors import warn

FLAGS = {
    "languages": "--languages", "width": "--width", "row_tokens": "--row-tokens", "to": "--out", "source": "--from",
    "rate": "--rate", "device": "--device", "device_map": "--device-map", "text": "--text", "tensor_parallel": "--tensor-parallel",
}  # fmt: skip


@pytest.mark.parametrize(
    ("python", "command"),
    [
        ('Give both: languages=["en", "zh", …], width=11008. The', "Give both: --languages en,zh,… --width 11008. The"),
        ("rate is 7. Expected a share.", "--rate is 7. Expected a share."),
        ("Too long. row_tokens is 9; lower row_tokens.", "Too long. --row-tokens is 9; lower --row-tokens."),
        ("Leave out tensor_parallel=True, and source='en'.", "Leave out --tensor-parallel, and --from en."),
        ("device and device_map were both given.", "--device and --device-map were both given."),
        ("The text for fr has a width and a rate.", "The text for fr has a width and a rate."),
        ("Give some: text={'fr': 'a.txt', 'zh': PATH}.", "Give some: --text fr=a.txt --text zh=PATH."),
        ("Give some: texts={'fr': PATH}.", "Give some: --text fr=PATH."),
        ("Name it: device=('a.*', 'b').", "Name it: --device 'a.*' b."),
        ("Type --row-tokens 5, or --text fr=a.txt.", "Type --row-tokens 5, or --text fr=a.txt."),
        ("There is no file runs/row_tokens/width=3.txt.", "There is no file runs/row_tokens/width=3.txt."),
        ("x.row_tokens is not mine, nor is 'row_tokens'.", "x.row_tokens is not mine, nor is 'row_tokens'."),
    ],
)
def test_options_that_a_message_calls_as_python_does_are_flags_on_the_command_line(python, command):
    assert in_flags(python, FLAGS) == command
    assert in_flags(python, {}) == python


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("record", ["MODEL is missing. A Hugging Face id", "Type: lape record MODEL --text TAG=PATH --out OUT"]),
        ("record m --out x", ["--text is missing. TAG=PATH, once or more", "Type: lape record m --out x --text TAG=PATH"]),
        ("record m", ["--text is missing", "Type: lape record m --text TAG=PATH --out OUT"]),
        ("record m --txet fr=a --out x", ["--text is missing. Did you mean --text instead of --txet?"]),
        ("steer m 'who are you?'", ["--to is missing. The language to steer to.", "Type: lape steer m 'who are you?' --to TO"]),
        ("merge a b", ["--out is missing. The run's folder to write", "Type: lape merge a b --out OUT"]),
        ("export m", ["NEURONS is missing", "lape export MODEL NEURONS --out OUT"]),
        ("run layers", ["--run is missing", "lape run layers --run RUN"]),
        ("show x --width", ["--width was given no value. For a .pth: neurons in a layer", "lape show NEURONS"]),
        ("show a b c", ["Too many words: b c. Put quotes", "lape show NEURONS"]),
        ("show x --widht 3", ["Unknown option: --widht. Did you mean --width?", "lape show --help"]),
        ("recrod m", ['Did you mean "record"?']),
        ("identify x --rate 7", ["--rate is 7.0. Expected"]),
    ],
)  # fmt: skip
def test_a_slip_of_the_keyboard_is_told_in_our_words_with_what_to_type(line, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(shlex.split(line)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "requires an argument" not in said
    for word in words:
        assert word in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"document": "--document"}, "Lines are one document. Make each one: --document line."),
        ({}, "Lines are one document."),
    ],
)
def test_a_warning_advises_no_option_that_the_verb_has_not(flags, said, capsys):
    with _warnings_said(flags):
        for _ in range(3):
            warn("Lines are one document. Make each one: document='line'.")
    assert capsys.readouterr().err == f"warning: {said}\n", "and it does so once"
