"""Presets: options under a name. What the command says comes before, and every option is one that a study has."""

from __future__ import annotations

import pytest

from lape.cli import run as cli
from lape.experiments.frontier import FrontierStudy
from lape.study.options import study_options
from lape.study.presets import PRESETS, preset
from lape.study.run import chosen_parts
from support.planted import LANGUAGES, planted_folder


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_holds_options_of_a_study(name):
    values = preset(name)
    parts = chosen_parts(values.pop("parts").split(","), False)
    assert len(parts) > 3
    taken = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    options = study_options()(**taken)
    assert {key: getattr(options, key) for key in taken} == taken


def test_the_published_code_s_settings():
    values = preset("tang2024")
    assert values["record_tokens"] == 24_414 * 4096 == 48_828 * 2048
    assert values["tokens"] == 2**20
    named = FrontierStudy(methods=tuple(values["methods"])).wanted(False)
    assert named == ["lape", "lap", "lave", "variation", "random"]


def test_a_preset_gives_what_the_command_does_not(tmp_path, capsys):
    folder = planted_folder(tmp_path)
    command = ["study", str(folder / "model"), "--out", str(tmp_path / "out"), "--device", "cpu", "--plan-only"]
    for language in LANGUAGES:
        command += [
            "--text",
            f"{language}={folder}/{language}.txt",
            "--parallel",
            f"{language}={folder}/{language}2.txt",
        ]
    assert cli([*command, "--preset", "tang2024"]) == 0
    whole = capsys.readouterr()
    assert "resource" in whole.out
    assert "necessity" not in whole.out, "of its parts alone"
    assert cli([*command, "--preset", "tang2024", "--parts", "layers,sweep", "--rates", "0.02"]) == 0
    asked = capsys.readouterr().out
    assert "sweep" in asked
    assert "resource" not in asked, "what is typed wins"
    assert cli([*command, "--preset", "tang2025"]) == 2
    assert "tang2024" in capsys.readouterr().err
