"""A language's own change beside its controls', paired: again by loops, and null where there is no control."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.errors import OptionError
from lape.experiments.perplexity.controlled import CONTROLLED, controlled
from lape.experiments.perplexity.run import LINES
from lape.measure.bootstrap import Resamples

LAW = settings(max_examples=30, deadline=None)
NUMBER = {"rel": 1e-9, "abs": 1e-12}


def lines_of(seed=0, units=22, languages=("fr", "zh"), kinds=("random", "matched"), draws=2, shift=0.0):
    """Two lines in each unit; `shift`: what the own set adds to a token's loss."""
    random = np.random.default_rng(seed)
    rows = []
    for language in languages:
        tokens = random.integers(2, 20, 2 * units)
        base = tokens * random.uniform(2, 4, 2 * units)
        conditions = [("", "base", 0, 0.0), (language, "own", 0, shift)]
        conditions += [(language, kind, draw, 0.0) for kind in kinds for draw in range(draws)]
        conditions += [("de", "own", 0, 9.0)]  # another language's set off
        for off, kind, draw, more in conditions:
            noise = 0.0 if kind == "base" else random.normal(0, 0.3, 2 * units)
            nll = base + tokens * (noise + more)
            for line in range(2 * units):
                rows.append((off, kind, draw, language, line // 2, line, line // 2, tokens[line], 5, nll[line]))
    order = random.permutation(len(rows))
    return pl.DataFrame([rows[k] for k in order], schema=LINES, orient="row")


def by_hand(lines, language, kind, resamples, seed):
    rows = [row for row in lines.iter_rows(named=True) if row["language"] == language]
    base = {row["line"]: row for row in rows if row["kind"] == "base"}
    own = {row["line"]: row["nll"] for row in rows if row["kind"] == "own" and row["off"] == language}
    control = {
        line: np.mean([row["nll"] for row in rows if row["kind"] == kind and row["line"] == line]) for line in base
    }
    units = 1 + max(lines["unit"])
    weights = Resamples(units, resamples, seed).weights

    def ratio(after, before, weight):
        nats = sum(weight[row["unit"]] * (after[line] - before[line]) for line, row in base.items())
        return nats / sum(weight[row["unit"]] * row["tokens"] for row in base.values())

    plain = {line: row["nll"] for line, row in base.items()}
    gaps = [ratio(own, control, weight) for weight in weights]
    return ratio(own, plain, weights[0]), ratio(control, plain, weights[0]), gaps


@LAW
@given(st.integers(0, 10**6))
def test_the_difference_is_own_minus_the_mean_of_the_draws_paired_over_units(seed):
    lines = lines_of(seed)
    table = controlled(lines, ["zh", "fr"], resamples=20, seed=seed)
    assert dict(table.schema) == CONTROLLED
    assert table.select("language", "control").rows() == [(k, c) for k in ("zh", "fr") for c in ("random", "matched")]
    for row in table.iter_rows(named=True):
        own, of_control, gaps = by_hand(lines, row["language"], row["control"], 20, seed)
        expected = (own, of_control, gaps[0], *np.quantile(gaps[1:], [0.025, 0.975]))
        found = tuple(row[name] for name in ("own", "of_control", "difference", "low", "high"))
        assert found == pytest.approx(expected, **NUMBER)
        assert row["difference"] == pytest.approx(row["own"] - row["of_control"])


def test_a_set_that_does_what_its_control_does_makes_no_difference():
    lines = lines_of(draws=1, kinds=("random",))
    own = lines.filter((pl.col("kind") == "own") & (pl.col("off") == pl.col("language")))
    same = own.with_columns(pl.lit("random").alias("kind"))
    table = controlled(pl.concat([lines.filter(pl.col("kind") != "random"), same]), ["fr"], resamples=20, seed=0)
    row = table.filter(control="random").row(0, named=True)
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((0, 0, 0), abs=1e-12)


@pytest.mark.parametrize(("units", "known"), [(19, False), (20, True)])
def test_under_20_units_there_is_no_interval(units, known):
    table = controlled(lines_of(units=units), ["fr"], resamples=20, seed=0)
    assert (table["low"].null_count() == table["high"].null_count() == 0) == known
    assert table["difference"].null_count() == 0


def test_a_language_without_control_has_nulls_and_is_not_left_out():
    """Left out, a claim over all languages would hold although one of them has nothing to be compared with."""
    table = controlled(lines_of(kinds=("random",)), ["fr"], resamples=20, seed=0)
    random, matched = table.iter_rows(named=True)
    assert matched["control"] == "matched"
    assert all(matched[name] is None for name in ("of_control", "difference", "low", "high"))
    assert matched["own"] == pytest.approx(random["own"])


@pytest.mark.parametrize("language", ["de", "en"])
def test_a_language_that_was_not_measured_is_refused_naming_it(language):
    with pytest.raises(OptionError, match=language):
        controlled(lines_of(), [language], resamples=20, seed=0)


def test_no_losses_are_refused():
    with pytest.raises(OptionError, match="line_losses"):
        controlled(lines_of().clear(), ["fr"], resamples=20, seed=0)
