"""Claims: read from a file, judged by a table's figures and intervals."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lape.errors import FileError, OptionError
from lape.experiments.claim import Claim, parsed, read
from lape.study.claims import judge, standing


def claim(**changes: Any) -> Claim:
    fields = {
        "name": "c",
        "says": "It is so.",
        "source": "ours",
        "table": "t",
        "value": "x",
        "margin": 1.0,
        "rule": "above",
    }
    return Claim(**{**fields, "where": {}, **changes})


def table(*rows: tuple[str, float, float | None, float | None], **more: Any) -> dict[str, pl.DataFrame]:
    schema = {"language": pl.String, "x": pl.Float64, "low": pl.Float64, "high": pl.Float64}
    return {"t": pl.DataFrame(rows, schema=schema, orient="row").with_columns(**more)}


def verdict(tables: dict[str, pl.DataFrame], **changes: Any) -> str:
    return judge(claim(**changes), tables, {}, ["fr", "zh"]).verdict


@pytest.mark.parametrize(
    ("low", "high", "rule", "expected"),
    [
        (1.5, 2.5, "above", "holds"),
        (0.1, 0.5, "above", "does not hold"),
        (0.5, 1.5, "above", "undecided here"),
        (None, None, "above", "undecided here"),
        (0.1, 0.5, "below", "holds"),
        (1.5, 2.5, "below", "does not hold"),
        (1.0, 2.0, "above", "undecided here"),
    ],
)
def test_one_figure(low, high, rule, expected):
    middle = 2.0 if low is None else (low + high) / 2
    assert verdict(table(("fr", middle, low, high)), rule=rule) == expected


def test_every_member_must_hold_and_one_that_does_not_decides():
    good, bad, open_ = ("fr", 2.0, 1.9, 2.1), ("zh", 0.1, 0.0, 0.2), ("ja", 1.0, 0.9, 1.1)
    assert verdict(table(good)) == "holds"
    assert verdict(table(good, open_)) == "undecided here"
    assert verdict(table(good, open_, bad)) == "does not hold"


def test_holm_makes_a_narrow_escape_undecided_among_many():
    """z = 2.1 is p .036: enough alone, not among five."""
    width = 1 / 2.1 * 1.959964
    just = ("fr", 2.0, 2.0 - width, 2.0 + width)
    assert verdict(table(just)) == "holds"
    five = [(f"l{k}", *just[1:]) for k in range(5)]
    found = judge(claim(), table(*five), {}, [])
    assert found.verdict == "undecided here"
    assert found.members["p_holm"].to_list() == pytest.approx([5 * 0.0357] * 5, rel=0.01)


FIELDS = {
    "name": '"c"',
    "says": '"It is so."',
    "source": '"us"',
    "table": '"t"',
    "value": '"x"',
    "margin": "1",
    "rule": '"above"',
}
DEEP = "[" * 9_999 + "]" * 9_999


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("margin", value) for value in ('"abc"', "nan", "inf", "-inf", "1" + "0" * 400, "true", DEEP)),
        *(("where", value) for value in ("5", "[1]", "{ a = { b = 1 } }", "{ a = 1979-05-27 }")),
        *((key, "[1]") for key in ("name", "says", "source", "table", "value", "rule", "member")),
    ],
)
def test_a_claim_of_other_types_is_refused(key, value):
    toml = "\n".join(["[[claims]]", *(f"{k} = {v}" for k, v in {**FIELDS, key: value}.items())])
    with pytest.raises((OptionError, FileError), match="claim"):
        parsed(toml, "mine.toml")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"value": "language"}, "holds no numbers"),
        ({"where": {"language": 5}}, "language of t is String"),
        ({"where": {"x": "fr"}}, "x of t is Float64"),
        ({"where": {"x": "over"}}, "x of t is Float64"),
        ({"where": {"nothing": 5}}, "asks for the column nothing"),
    ],
)
def test_a_claim_on_what_a_column_cannot_hold_is_refused(changes, why):
    with pytest.raises(OptionError, match=why):
        judge(claim(**changes), table(("fr", 1.0, 0.5, 1.5)), {}, ["fr"])


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(0.01, 2)), min_size=1, max_size=6), st.floats(-2, 2))
def test_above_and_below_are_mirrors(rows, margin):
    up = table(*((f"l{k}", x, x - w, x + w) for k, (x, w) in enumerate(rows)))
    down = table(*((f"l{k}", -x, -x - w, -x + w) for k, (x, w) in enumerate(rows)))
    assert verdict(up, margin=margin) == verdict(down, margin=-margin, rule="below")


def test_rows_are_picked_by_values_lists_the_languages_and_the_largest():
    found = table(("fr", 2.0, 1.9, 2.1), ("en", 0.0, -0.1, 0.1), ("zh", 3.0, 2.9, 3.1), size=pl.Series([1, 2, 2]))
    assert judge(claim(where={"language": "over"}), found, {}, ["fr", "zh"]).members["member"].to_list() == ["fr", "zh"]
    assert judge(claim(where={"language": ["en"]}), found, {}, []).members["member"].to_list() == ["en"]
    first = claim(where={"size": "largest", "language": "fr"})
    assert judge(first, found, {}, []).members["member"].to_list() == ["fr"], "the largest of the rows that are left"
    assert judge(claim(where={"size": "largest"}), found, {}, []).members["member"].to_list() == ["en", "zh"]


def test_an_interval_of_the_figure_s_own_comes_first():
    found = table(("fr", 2.0, 0.0, 0.1), x_low=pl.lit(1.9), x_high=pl.lit(2.1))
    assert verdict(found) == "holds"


def test_what_was_not_run_says_why():
    assert judge(claim(), {}, {"t": "no file was given"}, []).why == "no file was given"
    nobody = judge(claim(where={"language": "xx"}), table(("fr", 2.0, 1.9, 2.1)), {"xx": "no checkpoints"}, [])
    assert (nobody.verdict, nobody.why) == ("not run", "no checkpoints")


@pytest.mark.parametrize("changes", [{"value": "y"}, {"where": {"nothing": 1}}])
def test_a_column_that_is_not_there_is_named_with_those_that_are(changes):
    with pytest.raises(OptionError, match=r"(y|nothing).*language"):
        verdict(table(("fr", 2.0, 1.9, 2.1)), **changes)


def test_the_committed_claims_are_read_and_their_names_differ():
    claims = parsed(standing(), "the standing claims")
    assert len({one.name for one in claims}) == len(claims) > 20
    assert all(one.says.endswith(".") and one.source for one in claims)


GOOD = '[[claims]]\nname = "a"\nsays = "b."\nsource = "c"\ntable = "t"\nvalue = "x"\nmargin = 1\nrule = "above"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no claims"),
        ("[[claims]\n", "not a TOML file"),
        (GOOD + GOOD, "two claims are named a"),
        (GOOD.replace("margin = 1\n", ""), "lacks margin"),
        (GOOD + "more = 1\n", "unknown more"),
        (GOOD.replace('"above"', '"over"'), "rule 'over'"),
    ],
)
def test_a_file_that_is_wrong_is_refused(tmp_path, text, said):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises((FileError, OptionError), match=said):
        read(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileError, match="no file"):
        read(tmp_path / "c.toml")
