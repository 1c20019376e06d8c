"""By a method's name, by a function, or by what the sets are for."""

from __future__ import annotations

import pytest

import lape
from lape.cli import run as cli
from lape.detect import DETECTORS
from lape.detect.identify import PURPOSES, chosen_for
from lape.errors import OptionError
from lape.options import by_name
from support.planted import neurons_of, planted_folder, planted_stats


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_purpose_is_a_method_with_options_that_finds_planted_neurons(purpose):
    method, options, _ = PURPOSES[purpose]
    by_name(DETECTORS[method].options, options)  # refuses what the method has not
    found = lape.identify(planted_stats(), purpose=purpose, per_language=6, reliability=False)
    assert found == lape.identify(planted_stats(), method, per_language=6, reliability=False, **options)
    assert found.method == method
    assert neurons_of("own", "fr") <= set(found["fr"])


def test_what_is_given_wins_and_the_published_rule_stays_the_default():
    given = lape.identify(planted_stats(), purpose="off", per_language=3, reliability=False)
    assert {len(found) for found in given.values()} == {3}
    assert lape.identify(planted_stats(), reliability=False).method == "lape"


def test_a_method_and_a_purpose_are_too_many():
    with pytest.raises(OptionError, match="Give one of them"):
        chosen_for("off", "lap")
    with pytest.raises(OptionError, match="Expected off or steer"):
        lape.identify(planted_stats(), purpose="on")


def test_the_command_line_names_what_it_takes(tmp_path, capsys):
    run = planted_folder(tmp_path) / "run"
    out = tmp_path / "off.safetensors"
    assert (
        cli(["identify", str(run), "--for", "off", "--per-language", "4", "--no-reliability", "--out", str(out)]) == 0
    )
    method, options, won = PURPOSES["off"]
    said = f"For off: lape identify --method {method} --against {options['against']} ({won}: docs/choosing.md)"
    assert said in capsys.readouterr().out
    found = lape.LanguageNeurons.load(out)
    assert (found.method, {len(one) for one in found.values()}) == (method, {4})
    assert cli(["identify", str(run), "--for", "off", "--method", "lap", "--out", str(out)]) == 2
    assert "Give one of them" in capsys.readouterr().err
