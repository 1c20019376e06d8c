"""A set beside its controls, paired: again by loops, with draws resampled; and null where there is no control."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from lape.errors import OptionError
from lape.measure.bootstrap import Resamples
from lape.measure.controlled import CONTROLLED, DISSOCIATED, LINES, controlled, dissociated

LAW = settings(max_examples=20, deadline=None)
NUMBER = {"rel": 1e-9, "abs": 1e-12}


def lines_of(
    seed=0,
    units=22,
    languages=("fr", "zh"),
    kinds=("random", "matched"),
    draws=3,
    elsewhere=2,
    own=0.0,
    other=0.0,
    drawn=0.0,
    spread=0.1,
):
    """Two lines in each unit. `own`, `other`: what a set adds to a token's loss in its language and elsewhere; `drawn`: what its controls add in its own
    (elsewhere nothing), differing by draws by `spread`.
    """
    random = np.random.default_rng(seed)
    rows = []
    for language in languages:
        tokens = random.integers(2, 20, 2 * units)
        base = tokens * random.uniform(2, 4, 2 * units)
        conditions = [("", "base", 0, 0.0, None)]
        conditions += [(off, "own", 0, own if off == language else other, None) for off in languages]
        for off in languages:
            for kind in kinds:
                for draw in range(draws):
                    here = off == language or (kind != "random" and draw < elsewhere)
                    more = random.normal(drawn if off == language else 0.0, spread)
                    conditions += [(off, kind, draw, more, 1.0 + 0.1 * draw)] * here
        conditions += [("de", "own", 0, 9.0, None)]  # a language without text
        for off, kind, draw, more, ratio in conditions:
            noise = 0.0 if kind == "base" else random.normal(0, 0.3, 2 * units)
            nll = base + tokens * (noise + more)
            for line in range(2 * units):
                rows.append((off, kind, draw, language, line // 2, line, line // 2, tokens[line], 5, nll[line], ratio))
    order = random.permutation(len(rows))
    return pl.DataFrame([rows[k] for k in order], schema=LINES, orient="row")


def change(lines, off, kind, draw, on, weight, size):
    """Σ w (after − before) / Σ w size over lines of a language."""
    rows = {row["line"]: row for row in lines.filter(kind="base", language=on).iter_rows(named=True)}
    after = dict(lines.filter(off=off, kind=kind, draw=draw, language=on).select("line", "nll").iter_rows())
    nats = sum(weight[row["unit"]] * (after[line] - row["nll"]) for line, row in rows.items())
    return nats / sum(weight[row["unit"]] * (row["tokens"] if size == "tokens" else 1) for row in rows.values())


def by_hand(lines, language, kind, resamples, seed):
    """The intervals of own − control in nats per token, and of how much more the set does here than elsewhere than its control does."""
    drawn = Resamples(1 + max(lines["unit"]), resamples, seed)
    rest = [on for on in lines["language"].unique().sort() if on != language]

    def of_controls(row, on, size):
        draws = sorted(lines.filter(off=language, kind=kind, language=on)["draw"].unique())
        return [change(lines, language, kind, draw, on, drawn.weights[row], size) for draw in draws]

    def of_set(row, on, size):
        return change(lines, language, "own", 0, on, drawn.weights[row], size)

    rows = range(len(drawn.weights))
    gaps = [of_set(row, language, "tokens") - np.mean(of_controls(row, language, "tokens")) for row in rows]
    gap = drawn.interval(np.array(gaps), draws=[np.array(of_controls(0, language, "tokens"))])
    if kind == "random":
        return gap, None
    more = [
        (of_set(row, language, "lines") - np.mean([of_set(row, on, "lines") for on in rest]))
        - (np.mean(of_controls(row, language, "lines")) - np.mean([of_controls(row, on, "lines") for on in rest]))
        for row in rows
    ]
    here = np.array(of_controls(0, language, "lines"))
    there = np.mean([of_controls(0, on, "lines") for on in rest], axis=0)
    draws = [here - there] if len(here) == len(there) else [here, there]  # the same neurons, or two samples
    return gap, drawn.interval(np.array(more), draws=draws)


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 10**6))
def test_own_and_more_are_less_the_mean_of_the_draws_which_are_a_sample_like_the_units(seed):
    lines = lines_of(seed, elsewhere=2 + seed % 2)
    table = controlled(lines, ["zh", "fr"], resamples=12, seed=seed)
    assert dict(table.schema) == CONTROLLED
    assert table.select("language", "control").rows() == [(k, c) for k in ("zh", "fr") for c in ("random", "matched")]
    for row in table.iter_rows(named=True):
        gap, more = by_hand(lines, row["language"], row["control"], 12, seed)
        assert (row["difference"], row["difference_low"], row["difference_high"]) == pytest.approx(gap, **NUMBER)
        assert row["difference"] == pytest.approx(row["own"] - row["of_control"])
        assert row["draws"] == 3
        assert row["energy_ratio"] == pytest.approx(3 / (1 / 1.0 + 1 / 1.1 + 1 / 1.2))
        if more is None:
            assert row["more"] is row["control_more"] is None
        else:
            assert (row["more"], row["more_low"], row["more_high"]) == pytest.approx(more, **NUMBER)
            assert row["more"] == pytest.approx(row["own_more"] - row["control_more"])


def way(lines, drawn, row, kind, own, rest):
    """How much more neurons cost their own language than another, for each of their draws that both were measured on."""
    draws = [d for d in range(9) if len(lines.filter(off=own, kind=kind, draw=d, language=rest))]
    costs = [[change(lines, own, kind, d, on, drawn.weights[row], "lines") for on in (own, rest)] for d in draws]
    return np.array([own - rest for own, rest in costs])


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 10**6))
def test_two_languages_come_apart_by_as_much_as_loops_say(seed):
    lines = lines_of(seed, languages=("fr", "zh", "vi"), own=0.5, other=0.1)
    table = dissociated(lines, ["fr", "zh", "vi"], resamples=12, seed=seed)
    assert dict(table.schema) == DISSOCIATED
    pairs = [("fr", "zh"), ("fr", "vi"), ("zh", "vi")]
    assert table.select("language", "other").rows() == [*pairs, ("mean", "mean")]
    drawn = Resamples(1 + max(lines["unit"]), 12, seed)
    rows, gaps = range(len(drawn.weights)), {}
    for pair, row in zip(pairs, table.iter_rows(named=True), strict=False):
        ways = (pair, pair[::-1])
        sets = [np.array([way(lines, drawn, k, "own", *one)[0] for k in rows]) for one in ways]
        controls = [np.array([way(lines, drawn, k, "matched", *one) for k in rows]) for one in ways]
        assert row["draws"] == 2
        expected = np.mean([one[0] for one in sets]), np.mean([one[0].mean() for one in controls])
        assert (row["interaction"], row["of_control"]) == pytest.approx(expected, **NUMBER)
        less = [own - of.mean(1) for own, of in zip(sets, controls, strict=True)]
        ends = (row["difference"], row["low"], row["high"])
        halves = [of[0] / 2 for of in controls]
        assert ends == pytest.approx(drawn.interval(sum(less) / 2, draws=halves), **NUMBER)
        # of two draws: what the smaller is with either left out, by the jackknife
        smaller = min(less[0][0], less[1][0])
        pseudo = []
        for k in (0, 1):
            without = [sets[k][0] - controls[k][0][1 - draw] for draw in (0, 1)]
            pseudo.append(np.array([2 * smaller - min(one, less[1 - k][0]) for one in without]))
        ends = (row["weaker"], row["weaker_low"], row["weaker_high"])
        assert ends == pytest.approx(drawn.interval(np.minimum(*less), draws=pseudo), **NUMBER)
        assert row["pair"] == " – ".join(pair)
        assert row["energy_ratio"] == pytest.approx(3 / (1 / 1.0 + 1 / 1.1 + 1 / 1.2))
        gaps[pair] = row["difference"]
    # of three languages each is left out with its two pairs: one is left
    mean = np.mean([*gaps.values()])
    without = [next(gap for pair, gap in gaps.items() if one not in pair) for one in ("fr", "zh", "vi")]
    half = student.ppf(0.975, 2) * np.sqrt(2 / 3 * sum((one - mean) ** 2 for one in without))
    last = table.row(-1, named=True)
    assert (last["difference"], last["low"], last["high"]) == pytest.approx((mean, mean - half, mean + half), **NUMBER)


def test_of_two_languages_the_mean_is_their_pair():
    table = dissociated(lines_of(own=0.5), ["fr", "zh"], resamples=50)
    columns = ["difference", "low", "high", "quantiles", "interaction", "of_control", "energy_ratio"]
    assert table.select(columns).row(0) == table.select(columns).row(1)


def test_the_energy_ratio_of_a_pair_is_that_of_the_weaker_control():
    lines = lines_of().with_columns(energy_ratio=pl.col("energy_ratio") * pl.when(off="zh").then(2).otherwise(1))
    table = dissociated(lines, ["fr", "zh"], resamples=20)
    assert table["energy_ratio"].to_list() == pytest.approx([2 * 3 / (1 / 1.0 + 1 / 1.1 + 1 / 1.2)] * 2)
    assert all("less energy" in one for one in table["unlike"])


def test_with_a_single_draw_there_is_no_interval():
    table = controlled(lines_of(draws=1, elsewhere=1, units=40), ["fr"], resamples=50)
    assert table["difference"].null_count() == 0
    assert table["difference_low"].null_count() == table["difference_quantiles"].null_count() == len(table)
    table = controlled(lines_of(draws=3, elsewhere=1, units=40), ["fr"], resamples=50).filter(control="matched")
    assert table["difference_low"].null_count() == 0
    assert table.select("more", "more_low").row(0)[1] is None


def test_a_control_of_one_strong_neuron_is_no_evidence_with_three_draws():
    """Draws that differ by more than the set does: three of them cover what is nothing 19 times in 20."""
    above = 0
    for seed in range(150):
        row = controlled(lines_of(seed, units=22, spread=1.0, languages=("fr",)), ["fr"], resamples=60)
        above += row.filter(control="matched")["difference_low"].item() > 0
    assert above <= 0.025 * 150 + 4


def test_sets_that_hurt_all_languages_alike_and_languages_that_always_lose_more_do_not_come_apart():
    row = dissociated(lines_of(own=1.0, other=1.0, units=60, draws=8), ["fr", "zh"], resamples=300).row(0, named=True)
    assert row["low"] < 0 < row["high"]
    lines = lines_of(own=0.0, units=60, draws=8, elsewhere=8)
    worse = pl.when(pl.col("language") == "zh", pl.col("kind") != "base").then(pl.col("nll") + 50.0)
    same = dissociated(lines, ["fr", "zh"], resamples=20).row(0, named=True)
    moved = dissociated(lines.with_columns(worse.otherwise("nll")), ["fr", "zh"], resamples=20).row(0, named=True)
    assert moved["interaction"] == pytest.approx(same["interaction"])
    assert moved["difference"] == pytest.approx(same["difference"])


def test_a_set_that_hurts_the_other_language_more_than_its_own_does_not_come_apart_from_it_both_ways():
    lines = lines_of(own=1.0, other=0.1, units=60, draws=8, elsewhere=8)
    elsewhere = pl.when(pl.col("language") == "zh", pl.col("off") == "fr", pl.col("kind") == "own")
    row = dissociated(
        lines.with_columns(elsewhere.then(pl.col("nll") + 40.0).otherwise("nll")), ["fr", "zh"], resamples=300
    )
    assert row["weaker_high"][0] < 0 < dissociated(lines, ["fr", "zh"], resamples=300)["weaker_low"][0]


def test_a_pair_without_a_control_measured_elsewhere_has_no_difference():
    row = dissociated(lines_of(elsewhere=0), ["fr", "zh"], resamples=20)
    assert row["other"].to_list() == ["zh"]
    assert row["difference"].item() is row["of_control"].item() is None


def test_a_set_that_hurts_all_languages_alike_is_no_more_its_languages_than_its_control():
    """Its own loss rises far above the control's, and yet nothing is shown: the planted case in which the claim fails."""
    row = (
        controlled(lines_of(own=1.0, other=1.0, units=60, draws=8), ["fr"], resamples=300)
        .filter(control="matched")
        .row(0, named=True)
    )
    assert row["difference_low"] > 0.5
    assert row["more_low"] < 0 < row["more_high"]


def test_a_control_that_does_as_much_leaves_nothing():
    lines = lines_of(own=1.0, drawn=1.0, units=60, draws=12, elsewhere=12)
    row = controlled(lines, ["fr"], resamples=300).filter(control="matched").row(0, named=True)
    assert row["difference_low"] < 0 < row["difference_high"]
    assert row["more_low"] < 0 < row["more_high"]


def test_a_set_that_does_more_in_its_language_shows_it():
    row = (
        controlled(lines_of(own=1.0, units=60, draws=8), ["fr"], resamples=300)
        .filter(control="matched")
        .row(0, named=True)
    )
    assert min(row["difference_low"], row["more_low"]) > 0


def test_draws_that_differ_widen_the_interval():
    widths = []
    for spread in (0.0, 1.0):
        row = (
            controlled(lines_of(own=1.0, units=60, spread=spread), ["fr"], resamples=300)
            .filter(control="matched")
            .row(0, named=True)
        )
        widths.append(row["difference_high"] - row["difference_low"])
    assert widths[1] > 3 * widths[0]


def test_energies_that_differ_are_said():
    lines = lines_of().with_columns(energy_ratio=pl.col("energy_ratio") * 2)
    table = controlled(lines, ["fr"], resamples=20)
    assert "less energy" in table.filter(control="matched")["unlike"].item()
    assert controlled(lines_of(), ["fr"], resamples=20).filter(control="matched")["unlike"].item() == ""


@pytest.mark.parametrize(("units", "known"), [(19, False), (20, True)])
def test_under_20_units_there_is_no_interval(units, known):
    table = controlled(lines_of(units=units), ["fr"], resamples=20, seed=0)
    assert (table["difference_low"].null_count() == table["difference_high"].null_count() == 0) == known
    assert table["difference"].null_count() == 0


def test_a_language_without_control_has_nulls_and_is_not_left_out():
    """Left out, a claim over all languages would hold although one of them has nothing to be compared with."""
    table = controlled(lines_of(kinds=("random",)), ["fr"], resamples=20, seed=0)
    random, matched = table.iter_rows(named=True)
    assert matched["control"] == "matched"
    assert matched["draws"] == 0
    assert all(matched[name] is None for name in ("of_control", "difference", "difference_low", "more", "energy_ratio"))
    assert matched["own"] == pytest.approx(random["own"])


def test_a_single_language_has_no_others():
    table = controlled(lines_of(languages=("fr",)), ["fr"], resamples=20, seed=0)
    assert table.select("own_more", "control_more", "more").null_count().row(0) == (2, 2, 2)
    assert table["difference"].null_count() == 0


@pytest.mark.parametrize("language", ["de", "en"])
def test_a_language_that_was_not_measured_is_refused_naming_it(language):
    with pytest.raises(OptionError, match=language):
        controlled(lines_of(), [language], resamples=20, seed=0)


def test_no_losses_are_refused():
    with pytest.raises(OptionError, match="line_losses"):
        controlled(lines_of().clear(), ["fr"], resamples=20, seed=0)
