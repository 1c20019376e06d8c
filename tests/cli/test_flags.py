"""The rules by which plain dataclasses become flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cyclopts import CycloptsError

from lape.cli import _with_config, app
from lape.cli.flags import descriptions
from lape.detect.alignment import AlignmentOptions
from lape.errors import FileError, OptionError

RECORD = "record m --text fr=a --out o"
PERPLEXITY = "perplexity m run --text fr=a"
STUDY = "study m --parallel fr=a --out o"


def parsed(line: str) -> dict[str, Any]:
    """What a verb is called with."""
    verbs = app()
    words = _with_config(verbs, line.split())
    _, bound, *_ = verbs.parse_args(words, exit_on_error=False, print_error=False)
    return bound.arguments


@pytest.mark.parametrize(
    ("said", "tokens"), [("500", 500), ("20k", 20_000), ("1M", 10**6), ("1_000", 1000), ("1,000", 1000), ("2.5k", 2500)]
)
@pytest.mark.parametrize("verb", [RECORD, PERPLEXITY, STUDY])
def test_numbers_of_tokens_are_read_as_people_write_them(verb, said, tokens, tmp_path):
    assert parsed(f"{verb} --tokens {said}")["options"].tokens == tokens
    (tmp_path / "a.toml").write_text(f'tokens = "{said}"\n')
    assert parsed(f"{verb} --config {tmp_path / 'a.toml'}")["options"].tokens == tokens


def test_other_whole_numbers_are_not():
    with pytest.raises(CycloptsError, match="--batch-tokens"):
        parsed(f"{RECORD} --batch-tokens 2k")
    with pytest.raises(OptionError, match="'many' is not a number of tokens"):
        parsed(f"{RECORD} --tokens many")


def test_a_tuple_takes_all_words_up_to_the_next_flag_but_where_one_each_is_the_rule():
    assert parsed(f"{RECORD} --sites a b --dtype float32")["loading"].sites == ("a", "b")
    assert parsed(f"{RECORD} --sites a --sites b")["loading"].sites == ("a", "b")
    assert parsed("eval --tasks t --languages fr --languages zh m")["options"].languages == ("fr", "zh")
    assert parsed("eval --tasks t --languages fr m")["model"] == "m"


@pytest.mark.parametrize(
    "line",
    [f"{RECORD} --empty-sites", f"{STUDY} --empty-sizes", f"{RECORD} --no-tensor-parallel", f"{STUDY} --no-quick"],
)
def test_what_cannot_be_taken_back_has_no_flag_for_it(line):
    with pytest.raises(CycloptsError, match="Unknown option"):
        parsed(line)


def test_what_a_file_switches_on_can_be_taken_back(tmp_path: Path):
    (tmp_path / "a.toml").write_text("residual = true\nhistogram = true\n")
    options = parsed(f"{RECORD} --no-residual --config {tmp_path / 'a.toml'}")["options"]
    assert (options.residual, options.histogram) == (False, True)


def test_descriptions_are_those_below_the_fields_and_those_of_the_bases():
    said = descriptions(AlignmentOptions)
    assert list(said) == ["rate", "filter", "bar", "per_language", "denominator", "weight"]
    assert said["weight"].startswith("λ, the weight of the largest probability; auto: ")


SHARED = """
model = "m"
text = ["fr=a"]
run = "r"
tokens = 500
checkpoint_seconds = 9
row-tokens = 24
[perplexity]
draws = 7
neurons = "n"
tokens = 900
[record]
out = "o"
"""


def test_one_file_serves_several_verbs_each_with_what_it_knows_and_a_table_of_its_own(tmp_path: Path):
    (tmp_path / "a.toml").write_text(SHARED)
    recorded = parsed(f"record --config {tmp_path / 'a.toml'}")
    assert (recorded["model"], recorded["text"], recorded["to"]) == ("m", ["fr=a"], Path("o"))
    assert (recorded["options"].tokens, recorded["options"].checkpoint_seconds) == (500, 9)
    measured = parsed(f"perplexity --config {tmp_path / 'a.toml'} --row-tokens 32")
    assert (measured["neurons"], measured["options"].draws, measured["options"].tokens) == (Path("n"), 7, 900)
    assert measured["options"].row_tokens == 32
    assert parsed(f"force --config {tmp_path / 'a.toml'}")["run"] == Path("r")


@pytest.mark.parametrize(
    ("toml", "error", "words"),
    [
        ("tokesn = 5", CycloptsError, "tokesn.*Did you mean --tokens"),
        ("[record]\nneurons = 'n'", CycloptsError, "neurons"),
        ("[perplexity]\ndraws = 3\n[recrod]\ntokens = 5", FileError, "no verb recrod.*perplexity"),
    ],
)
def test_what_no_verb_has_is_refused_in_a_file(tmp_path: Path, toml, error, words):
    (tmp_path / "a.toml").write_text(toml)
    with pytest.raises(error, match=words):
        parsed(f"{RECORD} --config {tmp_path / 'a.toml'}")
