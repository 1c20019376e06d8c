"""Claims: read from a file, judged by a table's figures and intervals."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lape.cli.common import Terminal
from lape.cli.study import claims_table
from lape.errors import FileError, OptionError
from lape.experiments.claim import Claim, parsed, read
from lape.measure.bootstrap import Resamples
from lape.measure.intervals import LEVELS, QUANTILES, holm, p_at, resampled
from lape.study.claims import NOT_ASKED, judge, standing
from lape.study.run import Studied


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
    """Figures with their ends, and quantiles that lie on straight lines through both and the figure."""
    schema = {
        "language": pl.String,
        "x": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        QUANTILES: pl.List(pl.Float64),
    }
    whole = [(*row, spread(*row[1:])) for row in rows]
    return {"t": pl.DataFrame(whole, schema=schema, orient="row").with_columns(**more)}


def spread(value: float, low: float | None, high: float | None) -> list[float] | None:
    if low is None or high is None:
        return None
    at = [0.0, 0.025, 0.5, 0.975, 1.0]
    wide = [low - (value - low) / 20, low, value, high, high + (high - value) / 20]
    return [float(one) for one in np.interp(LEVELS, at, wide)]


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


def test_the_members_of_a_claim_that_holds_are_not_corrected_and_one_on_the_other_side_is():
    """Berger 1982: all must hold, so each is tested at the full level. That any does not is one chance of five."""
    just = [(f"l{k}", 2.0, 1.01, 3.0) for k in range(5)]
    assert verdict(table(*just)) == "holds"
    under = ("l0", 0.0, -1.0, 0.99)
    assert verdict(table(under)) == "does not hold"
    found = judge(claim(), table(under, *just[1:]), {}, [])
    assert found.verdict == "undecided here"
    assert found.members["verdict"].to_list() == ["undecided here", *["holds"] * 4]
    p = found.members["p"].to_list()
    assert p[0] == pytest.approx(2 * p_at(spread(*under[1:]), 1.0, side=-1))
    assert 0.025 < p[0] < 0.05
    assert p[1:] == [1.0] * 4
    assert found.members["p_holm"].to_list() == pytest.approx(holm(p))
    far = ("l0", 0.0, -0.1, 0.1)
    assert verdict(table(far, *just[1:])) == "does not hold"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.1, 0.4, "holds"),
        (-0.6, 0.1, "undecided here"),
        (0.6, 0.9, "does not hold"),
        (-0.9, -0.6, "does not hold"),
        (-0.9, 0.9, "undecided here"),
        (-0.5, 0.2, "undecided here"),
    ],
)
def test_that_something_is_nothing_holds_where_the_whole_interval_lies_within_the_margin(low, high, expected):
    assert verdict(table(("fr", (low + high) / 2, low, high)), rule="within", margin=0.5) == expected


def test_a_table_without_quantiles_holds_by_its_interval_but_needs_them_not_to_hold():
    good, bad = ({"t": table((k, x, x - 0.1, x + 0.1))["t"].drop(QUANTILES)} for k, x in (("fr", 2.0), ("zh", 0.5)))
    assert verdict(good) == "holds"
    found = judge(claim(), bad, {}, [])
    assert (found.verdict, found.members["p"].to_list()) == ("undecided here", [None])
    assert found.why == "the table keeps no resamples of zh"


def test_what_an_undecided_claim_lacks_is_said():
    few = judge(claim(), table(("fr", 2.0, None, None), ("zh", None, None, None), ("ja", 2.0, 1.5, 2.5)), {}, [])
    assert few.why == "no value for zh; no interval for fr"
    assert judge(claim(), table(("fr", 1.0, 0.5, 1.5)), {}, []).why == "", "more text decides it: nothing is lacking"


def test_a_claim_with_no_value_at_all_was_not_run():
    found = judge(claim(), table(("fr", None, None, None), ("zh", None, None, None)), {}, [])
    assert (found.verdict, found.why) == ("not run", "no value for fr, zh")
    assert found.members.is_empty()


def controlled(*rows, ratios):
    """Figures less those of control neurons, with the energy of each set over its control's."""
    return {
        "t": table(*rows)["t"]
        .rename({"x": "difference"})
        .with_columns(energy_ratio=pl.Series(ratios, dtype=pl.Float64))
    }


@pytest.mark.parametrize(
    ("rule", "ratio", "expected"),
    [
        ("above", 1.0, "holds"),
        ("above", 1.25, "holds"),
        ("above", 1.26, "holds against weaker controls"),
        ("above", float("inf"), "holds against weaker controls"),
        ("above", 0.79, "holds"),  # a stronger control makes it harder to do more
        ("above", None, "holds"),
        ("below", 1.26, "holds"),
        ("below", 0.8, "holds"),
        ("below", 0.79, "undecided here"),  # it is easy to do less than a stronger control
        ("within", 1.0, "holds"),
        ("within", 1.26, "undecided here"),
        ("within", 0.79, "undecided here"),
    ],
)
def test_a_figure_less_a_control_needs_a_control_that_resembles_the_set(rule, ratio, expected):
    figure = {"above": (2.0, 1.5, 2.5), "below": (0.5, 0.2, 0.8), "within": (0.0, -0.2, 0.2)}[rule]
    rows = controlled(("fr", *figure), ratios=[ratio])
    assert verdict(rows, rule=rule, value="difference") == expected
    plain = table(("fr", *figure), energy_ratio=pl.Series([ratio], dtype=pl.Float64))
    assert verdict(plain, rule=rule) == "holds", "no control is in this figure"


def test_one_weaker_control_decides_what_a_claim_that_holds_is_worth_and_no_other_verdict():
    good, open_, bad = ("fr", 2.0, 1.9, 2.1), ("ja", 1.0, 0.9, 1.1), ("zh", 0.1, 0.0, 0.2)
    for rows, ratios, expected in (
        ((good, good), [1.0, 1.2], "holds"),
        ((good, good), [1.0, 2.0], "holds against weaker controls"),
        ((good, open_), [2.0, 2.0], "undecided here"),
        ((good, bad), [2.0, 2.0], "does not hold"),
    ):
        found = judge(claim(value="difference"), controlled(*rows, ratios=ratios), {}, [])
        assert found.verdict == expected
    assert found.members["verdict"].to_list() == ["holds against weaker controls", "does not hold"]


def test_a_control_that_does_not_resemble_its_set_is_named_with_the_ratio_of_energies():
    rows = controlled(("fr", 2.0, 1.5, 2.5), ("zh", 3.0, 2.5, 3.5), ratios=[2.0, 1.0])
    found = judge(claim(value="difference"), rows, {}, [])
    assert found.unlike == "controls do not resemble the set, whose energy over theirs is fr 2.00"


def test_a_single_draw_of_controls_has_no_interval_and_decides_nothing():
    drawn, values = Resamples(40, 100, seed=0), np.random.default_rng(0).normal(5.0, 1.0, 40)
    rows = drawn.sums(values) / 40
    for draws, expected in ((1, "undecided here"), (3, "holds")):
        row = {"language": "fr", **drawn.plain("difference", rows, quantiles=True, draws=[np.linspace(0, 0.1, draws)])}
        schema = {"language": pl.String, **resampled("difference", plain=True)}
        found = judge(claim(value="difference"), {"t": pl.DataFrame([row], schema=schema)}, {}, [])
        assert found.verdict == expected
    assert judge(claim(value="difference"), {"t": pl.DataFrame([row], schema=schema)}, {}, []).why == ""


def test_a_spread_is_judged_by_where_it_lies_and_has_no_p():
    for low, high, expected in ((1.1, 1.3, "holds"), (0.1, 0.3, "does not hold"), (0.9, 1.1, "undecided here")):
        found = judge(claim(range="spread"), table(("fr", 1.0, low, high)), {}, [])
        assert (found.verdict, found.members["p"].to_list()) == (expected, [None])


UNITS, SIMULATIONS, MOST = 60, 400, 6


@pytest.fixture(scope="module")
def simulated() -> dict[str, pl.DataFrame]:
    """Means of skewed units with their real resamples, six members in each simulation: at the margin, 1, and 8 standard errors beyond it."""
    drawn = Resamples(UNITS, 400, seed=0)
    units = np.random.default_rng(0).exponential(size=(UNITS, SIMULATIONS * MOST))
    at = [drawn.plain("x", column, quantiles=True) for column in (drawn.sums(units) / UNITS).T]
    names = [f"l{k}" for k in range(MOST)] * SIMULATIONS
    schema = {"x": pl.Float64, "low": pl.Float64, "high": pl.Float64, QUANTILES: pl.List(pl.Float64)}
    margin = pl.DataFrame(at, schema=schema).with_columns(language=pl.Series(names))
    beyond = margin.with_columns(pl.exclude("language") + 8 / np.sqrt(UNITS))  # a mean and its resamples move together
    return {"margin": margin, "beyond": beyond}


def share(verdict: str, tables: list[pl.DataFrame]) -> float:
    return float(np.mean([judge(claim(), {"t": one}, {}, []).verdict == verdict for one in tables]))


@pytest.mark.parametrize("members", [1, 3, 6])
def test_both_errors_are_at_most_5_per_cent(simulated, members):
    """Refusing is easiest where all true values lie at the margin; holding, where one does and all others lie far on the rule's side."""
    error = 2 * np.sqrt(0.05 * 0.95 / SIMULATIONS)  # of the simulation itself
    margin, beyond = simulated["margin"], simulated["beyond"]
    starts = range(0, SIMULATIONS * MOST, MOST)
    assert share("does not hold", [margin[k : k + members] for k in starts]) <= 0.05 + error
    one = [pl.concat([margin[k : k + 1], beyond[k + 1 : k + members]]) for k in starts]
    assert 0 < share("holds", one) <= 0.05 + error


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
    under = table(("fr", 0.5, 1.9, 2.1), x_low=pl.lit(0.4), x_high=pl.lit(0.6), x_quantiles=pl.lit([0.5] * 101))
    assert verdict(under) == "does not hold"


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
        (GOOD + 'range = "wide"\n', "range 'wide'"),
        (GOOD.replace('"above"', '"within"').replace("margin = 1", "margin = 0"), "margin above 0"),
        (GOOD + 'written = "2026-11-24"\n', "a day, without quotes"),
        (GOOD + "written = 2026-11-24T10:00:00\n", "a day, without quotes"),
        (GOOD + "seen = [1]\n", "seen"),
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


def test_the_terminal_shows_what_was_asked_for_and_counts_the_rest():
    asked, others = table(("fr", 2.0, 1.5, 2.5)), [claim(name=f"other {k}", table="elsewhere") for k in range(3)]
    judged = [judge(one, asked, {"elsewhere": NOT_ASKED}, ["fr"]) for one in (claim(name="c"), *others)]
    file = io.StringIO()
    Terminal(file=file, width=80).print(claims_table(Studied(asked, judged, {})))
    said = file.getvalue()
    assert re.search(r"\bc +holds", said)
    assert "other" not in said
    assert "Not run, as their parts were not asked for: 3 more." in said
