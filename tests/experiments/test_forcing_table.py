"""From judged answers to shares and their intervals: what the tables say, computed again answer by answer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from lape.experiments.forcing.table import (
    ALL,
    BY_TARGET,
    DIFFERENCES,
    RECORDS,
    TRANSFER,
    best,
    differences,
    records,
    transfer,
)
from lape.measure.answers import ANSWERS
from lape.measure.bootstrap import Resamples
from lape.measure.intervals import LEVELS

PAIRS = (("en", "fr"), ("zh", "fr"), ("fr", "zh"), ("en", "es"))
MEASURES = ("in_language", "good")


@dataclass(frozen=True)
class Named:
    family: str
    name: str


def made_answer(random, split, family, setting, source, target, question, level):
    inside = bool(random.random() < level)
    fluent = bool(random.random() < 0.7)
    topic = bool(random.random() < 0.8) if inside and fluent else None
    clean = bool(random.random() < 0.6)
    return {
        "split": split,
        "family": family,
        "setting": setting,
        "source": source,
        "target": target,
        "question": question,
        "answer": "…",
        "language": target if inside else random.choice(["en", "de", None]),
        "language_second": target if random.random() < 0.8 else None,
        "in_language": inside,
        "in_language_second": bool(random.random() < level),
        "fluent": fluent,
        "on_topic": topic,
        "mixed": bool(random.random() < 0.1),
        "good": bool(topic),
        "lpr_after_lcb": clean,
        "wpr_after_lcb": bool(random.random() < 0.7) if clean and target == "zh" else None,
        "empty": bool(random.random() < 0.1),
        "foreign": float(random.random()),
        "distinct4": float(random.random()),
        "nll": float(random.random()) if random.random() < 0.9 else None,
        "calibrated_on": int(random.choice([0, 30, 50])),
    }


def made_answers(seed=0, count=24, split="report", pairs=PAIRS, levels=None, ceiling=0.9):
    """A random table: for each setting (family, name) and pair one answer to each question, in a random order."""
    random = np.random.default_rng(seed)
    cells = [("ceiling", "c", target, target, ceiling) for target in dict.fromkeys(t for _, t in pairs)]
    for (family, name), level in (levels or {("none", "n"): 0.2, ("neurons", "m"): 0.6, ("mask", "k"): 0.5}).items():
        cells += [(family, name, *pair, level) for pair in pairs]
    rows = [made_answer(random, split, *cell[:4], number, cell[4]) for cell in cells for number in range(count)]
    return pl.DataFrame(rows, schema=ANSWERS).sample(fraction=1, shuffle=True, seed=seed)


LISTED = {}


def listed(answers):
    """The rows of a table, turned to Python once."""
    if id(answers) not in LISTED:
        LISTED[id(answers)] = answers, answers.to_dicts()
    return LISTED[id(answers)][1]


def rows_of(answers, family, source, target):
    """The answers of a family to a source and target; `all` is any."""
    return [
        row
        for row in listed(answers)
        if row["family"] == family and source in (ALL, row["source"]) and target in (ALL, row["target"])
    ]


def share(rows, column, times, of=None):
    """Share of answers, each counted as often as its question, times as often as its pair, was drawn; pairs count alike where `of` is None."""
    weights = [times[row["question"]] * (1 if of is None else of[row["source"], row["target"]]) for row in rows]
    return sum(w * row[column] for w, row in zip(weights, rows, strict=True)) / sum(weights)


def against_ceiling(answers, family, column, source, target, times, of=None):
    """(share less the ceiling's, share over the ceiling's): of each pair, averaged by target; None over a ceiling without any."""
    rows = rows_of(answers, family, source, target)
    pairs = sorted({(row["source"], row["target"]) for row in rows})
    less, over, counts, known = 0.0, 0.0, 0.0, 0.0
    for pair in pairs:
        weight = (1 if of is None else of[pair]) / sum(other[1] == pair[1] for other in pairs)
        own = share([row for row in rows if (row["source"], row["target"]) == pair], column, times)
        top = share(rows_of(answers, "ceiling", pair[1], pair[1]), column, times)
        less, counts = less + weight * (own - top), counts + weight
        if top > 0:
            over, known = over + weight * own / top, known + weight
    return less / counts, over / known if known else None


def over_ceiling(answers, family, column, source, target, times):
    return against_ceiling(answers, family, column, source, target, times)[1]


def row_of(table, family, source=ALL, target=ALL, **more):
    (row,) = table.filter(family=family, source=source, target=target, **more).to_dicts()
    return row


@cache
def made_table(seed=0, **options):
    answers = made_answers(seed, **options)
    return answers, records(answers, {("neurons", "m", "fr"), ("neurons", "other", "es")}, 30, 5)


# --- records ---


def test_the_table_has_its_stated_columns_and_a_row_for_every_pair_target_and_all():
    _, table = made_table()
    assert dict(table.schema) == RECORDS
    averages = {*PAIRS, (ALL, "fr"), (ALL, "zh"), (ALL, "es"), (ALL, ALL)}
    ceiling = {("fr", "fr"), ("zh", "zh"), ("es", "es"), (ALL, "fr"), (ALL, "zh"), (ALL, "es"), (ALL, ALL)}
    for family in ("none", "neurons", "mask", "ceiling"):
        found = table.filter(family=family).select("source", "target").rows()
        assert len(found) == len(set(found))
        assert set(found) == (ceiling if family == "ceiling" else averages)
    assert table["questions"].unique().to_list() == [24]
    assert set(table.filter("chosen").select("family", "source", "target").rows()) == {
        ("neurons", *where) for where in averages if where[1] in ("fr", ALL)
    }


@pytest.mark.parametrize("seed", range(3))
def test_shares_and_ratios_are_those_counted_answer_by_answer(seed):
    answers, table = made_table(seed)
    once = np.ones(24)
    for row in table.to_dicts():
        where = row["family"], row["source"], row["target"]
        for column in MEASURES:
            assert row[column] == pytest.approx(share(rows_of(answers, *where), column, once))
            less, over = against_ceiling(answers, where[0], column, *where[1:], once)
            assert row[f"{column}_minus_ceiling"] == pytest.approx(less, abs=1e-12)
            assert row[f"{column}_over_ceiling"] == pytest.approx(over)


def mean(values):
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def test_other_columns_are_means_of_what_their_names_say():
    answers, table = made_table()
    for row in table.to_dicts():
        rows = rows_of(answers, row["family"], row["source"], row["target"])
        inside = [one for one in rows if one["in_language"]]
        expected = {
            "fluent": mean(one["fluent"] for one in inside),
            "on_topic": mean(one["on_topic"] for one in inside if one["fluent"]),
            "agreement": mean(one["language"] == one["language_second"] for one in rows),
            "wpr_after_lcb": mean(one["wpr_after_lcb"] for one in rows if one["lpr_after_lcb"]),
            **{name: mean(one[name] for one in inside) for name in ("mixed", "foreign")},
            **{
                name: mean(one[name] for one in rows)
                for name in ("in_language_second", "lpr_after_lcb", "distinct4", "nll")
            },
            "calibrated_on": min(one["calibrated_on"] or 99 for one in rows),
            "empty": sum(one["empty"] for one in rows),
        }
        assert {name: row[name] for name in expected} == pytest.approx(expected)


def test_the_ceiling_is_one_times_itself_without_width():
    _, table = made_table()
    found = table.filter(family="ceiling").select(
        f"{column}_over_ceiling{end}" for column in MEASURES for end in ("", "_low", "_high")
    )
    np.testing.assert_allclose(found.to_numpy(), 1.0)


def test_a_target_without_any_ceiling_answer_leaves_the_average_and_nothing_at_all_is_unknown():
    answers = made_answers().with_columns(
        in_language=pl.col("in_language") & ~((pl.col("family") == "ceiling") & (pl.col("target") == "fr")),
        good=pl.col("good") & (pl.col("family") != "ceiling"),
    )
    table = records(answers, set(), 30, 0)
    assert row_of(table, "mask", ALL, "fr")["in_language_over_ceiling"] is None
    rest = [row_of(table, "mask", ALL, target)["in_language_over_ceiling"] for target in ("zh", "es")]
    assert row_of(table, "mask")["in_language_over_ceiling"] == pytest.approx(np.mean(rest))
    assert [row_of(table, "mask")[f"good_over_ceiling{end}"] for end in ("", "_low", "_high")] == [None] * 3


@pytest.mark.parametrize(("inside", "fluency"), [(0, None), (1, 0)])
def test_where_nothing_is_in_the_language_or_fluent_what_is_a_share_of_it_is_unknown(inside, fluency):
    answers = made_answers(levels={("none", "n"): inside})
    answers = answers.with_columns(fluent=False, on_topic=pl.lit(None, pl.Boolean), good=False)
    row = row_of(records(answers, set(), 10, 0), "none")
    assert row["in_language"] == pytest.approx(inside)
    assert (row["good"], row["fluent"], row["on_topic"]) == (0, fluency, None)


def test_splits_have_rows_of_their_own_and_their_own_ceiling():
    report, chosen = made_answers(1), {("mask", "k", target) for target in ("fr", "zh", "es")}
    both = pl.concat([made_answers(0, 30, "development", ceiling=0.3), report])
    table = records(both, chosen, 10, 0)
    alone = records(report, chosen, 10, 0)
    assert table.filter(split="report").equals(alone)
    assert set(table.filter("chosen").select("family", "split").rows()) == {
        ("mask", s) for s in ("report", "development")
    }


def by_target(answers):
    """The same with another setting of the mask for zh."""
    other = (pl.col("family") == "mask") & (pl.col("target") == "zh")
    return answers.with_columns(setting=pl.when(other).then(pl.lit("z")).otherwise("setting"))


def test_on_the_reporting_questions_a_family_is_one_whatever_the_setting_of_each_target():
    table, expected = records(by_target(made_answers()), set(), 30, 0), records(made_answers(), set(), 30, 0)
    assert table.drop("setting").equals(expected.drop("setting"))
    found = {(row["source"], row["target"]): row["setting"] for row in table.filter(family="mask").to_dicts()}
    assert found == {
        **dict.fromkeys([*PAIRS, (ALL, "fr"), (ALL, "es")], "k"),
        **dict.fromkeys([("fr", "zh"), (ALL, "zh")], "z"),
        (ALL, ALL): BY_TARGET,
    }
    assert differences(by_target(made_answers()), 30, 0).equals(differences(made_answers(), 30, 0))


def test_what_was_chosen_is_so_for_its_target_and_the_average_with_it():
    tried = made_answers(split="development", levels={("mask", "k"): 0.5, ("mask", "z"): 0.5})
    chosen = {("mask", "k", "fr"), ("mask", "k", "es"), ("mask", "z", "zh")}
    table = records(pl.concat([tried, by_target(made_answers())]), chosen, 10, 0)
    zh, rest = {("fr", "zh"), (ALL, "zh")}, {*PAIRS[:2], PAIRS[3], (ALL, "fr"), (ALL, "es")}
    for split, setting, expected in (
        ("development", "k", {*rest, (ALL, ALL)}),
        ("development", "z", {*zh, (ALL, ALL)}),
        ("report", "k", rest),
        ("report", "z", zh),
        ("report", BY_TARGET, {(ALL, ALL)}),
    ):
        rows = table.filter(pl.col("chosen"), split=split, setting=setting)
        assert set(rows.select("family", "source", "target").rows()) == {("mask", *where) for where in expected}
    assert set(table.filter("chosen")["family"]) == {"mask"}


# --- intervals ---


def by_hand(questions, pairs, value):
    """Value, low and high of `value(times, of)`, which counts questions and pairs: over three targets or more Student's t of the jackknife that leaves out each
    with its pairs; over fewer the bootstrap over questions.
    """
    alike = dict.fromkeys(pairs, 1)
    found = questions.interval(np.array([value(times, alike) for times in questions.weights], float))
    targets = sorted({target for _, target in pairs})
    if len(targets) < 3:
        return found
    without = [value(questions.weights[0], {pair: int(pair[1] != target) for pair in pairs}) for target in targets]
    pseudo = [len(targets) * found[0] - (len(targets) - 1) * one for one in without]
    half = student.ppf(0.975, len(targets) - 1) * np.std(pseudo, ddof=1) / np.sqrt(len(targets))
    return found[0], found[0] - half, found[0] + half


def pairs_in(answers, family, source, target):
    return list(dict.fromkeys((row["source"], row["target"]) for row in rows_of(answers, family, source, target)))


@pytest.mark.parametrize("where", [("en", "fr"), (ALL, "fr"), (ALL, ALL)])
@pytest.mark.parametrize("column", MEASURES)
def test_intervals_are_over_questions_and_of_three_targets_over_these(where, column):
    answers, table = made_table()
    row = row_of(table, "neurons", *where)
    questions, pairs = Resamples(24, 30, 5), pairs_in(answers, "neurons", *where)
    values = {
        "": lambda times, of: share(rows_of(answers, "neurons", *where), column, times, of),
        "_minus_ceiling": lambda times, of: against_ceiling(answers, "neurons", column, *where, times, of)[0],
        "_over_ceiling": lambda times, of: against_ceiling(answers, "neurons", column, *where, times, of)[1],
    }
    for of, value in values.items():
        ends = by_hand(questions, pairs, value)
        assert [row[f"{column}{of}{end}"] for end in ("", "_low", "_high")] == pytest.approx(ends, abs=1e-12)


def test_an_interval_over_targets_that_differ_covers_other_targets():
    """Where targets have levels of their own, what varies is mostly which targets there are; two pairs of a target are no two targets."""
    random, inside = np.random.default_rng(0), []
    pairs = [(source, f"t{k}") for k in range(7) for source in ("a", "b")]
    for seed in range(60):
        levels = {("none", "n"): 0.0, ("neurons", "m"): 0.0}
        answers = made_answers(seed, 20, pairs=pairs, levels=levels, ceiling=1.0)
        level = {f"t{k}": float(random.beta(2, 2)) for k in range(7)}
        good = [row["family"] == "ceiling" or random.random() < level[row["target"]] for row in answers.to_dicts()]
        row = row_of(records(answers.with_columns(good=pl.Series(good)), set(), 20, 0), "neurons")
        inside.append(row["good_low"] <= 0.5 <= row["good_high"])
    assert np.mean(inside) >= 0.88


def test_pairs_that_answer_alike_are_no_more_evidence_than_one():
    one = made_answers(pairs=(("en", "fr"),))
    more = [one.with_columns(source=pl.lit(source)).filter(family="neurons") for source in ("zh", "es", "vi")]
    few, many = (row_of(records(x, set(), 50, 0), "neurons") for x in (one, pl.concat([one, *more])))
    for name in ("good_low", "good_high", "good_over_ceiling_low", "good_over_ceiling_high"):
        assert few[name] == pytest.approx(many[name])


@pytest.mark.parametrize(("count", "known"), [(19, False), (20, True)])
def test_under_20_questions_there_is_no_interval(count, known):
    answers = made_answers(count=count)
    table = records(answers, set(), 30, 0)
    for column in (f"{one}{of}" for one in MEASURES for of in ("", "_minus_ceiling", "_over_ceiling")):
        for end in ("_low", "_high"):
            assert table[column + end].null_count() == (0 if known else len(table))
        assert table[column].null_count() == 0
    assert (differences(answers, 30, 0)["low"].null_count() == 0) == known


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.integers(20, 40), st.floats(0.3, 1))
def test_an_interval_lies_in_range_about_its_estimate(seed, count, ceiling):
    table = records(made_answers(seed, count, ceiling=ceiling, pairs=PAIRS[:2]), set(), 200, 0)
    for row in table.to_dicts():
        for column in MEASURES:
            ordered = np.array([0, row[f"{column}_low"], row[column], row[f"{column}_high"], 1])
            assert (np.diff(ordered) >= -1e-12).all()


# --- the choice ---

SETTINGS = [Named("mask", name) for name in "abcd"]


@pytest.mark.parametrize("target", ["fr", "zh", "es", "vi"])
@pytest.mark.parametrize("seed", range(8))
def test_the_best_setting_for_a_target_has_the_most_good_answers_in_it_over_the_ceiling(seed, target):
    levels = {(one.family, one.name): level for one, level in zip(SETTINGS, (0.5, 0.6, 0.55, 0.6), strict=True)}
    answers = made_answers(seed, 15, "development", levels=levels)
    over = ALL if target == "vi" else target  # of what was not tried, the average is taken

    def score(setting):
        own = answers.filter((pl.col("family") == "ceiling") | (pl.col("setting") == setting.name))
        shares = (over_ceiling(own, "mask", column, ALL, over, np.ones(15)) for column in ("good", "in_language"))
        return tuple(round(value, 12) for value in shares)  # ties are ties

    assert best(answers, SETTINGS, target) == max(SETTINGS, key=score)


def test_each_target_has_a_setting_of_its_own():
    answers = made_answers(0, 10, "development", levels={("mask", name): 0.5 for name in "ab"}, ceiling=1.0)
    good = {"a": pl.col("target") == "fr", "b": pl.col("target") != "fr"}
    answers = answers.with_columns(
        good=(pl.col("family") == "ceiling") | pl.any_horizontal((pl.col("setting") == k) & v for k, v in good.items())
    )
    assert [best(answers, SETTINGS[:2], target).name for target in ("fr", "zh", "es", "vi")] == ["a", "b", "b", "b"]


def test_a_target_counts_as_much_as_another_however_many_sources_it_has():
    pairs = (("en", "fr"), ("zh", "fr"), ("es", "fr"), ("en", "zh"))
    answers = made_answers(0, 10, "development", pairs, {("mask", "a"): 0.5, ("mask", "b"): 0.5}, 1.0)
    wins = {"a": pl.col("target") == "zh", "b": pl.col("source") == "zh"}  # 1 of 1 targets' sources; 1 of 3
    answers = answers.with_columns(
        good=(pl.col("family") == "ceiling") | pl.any_horizontal((pl.col("setting") == k) & v for k, v in wins.items())
    )
    assert best(answers, SETTINGS[:2], "vi").name == "a"
    assert best(answers, SETTINGS[1::-1], "vi").name == "a"


@pytest.mark.parametrize("target", ["fr", "vi"])
def test_ties_go_to_the_most_in_the_language_and_then_to_the_first(target):
    levels = {(one.family, one.name): level for one, level in zip(SETTINGS, (0, 1, 1, 0), strict=True)}
    for ceiling in (1.0, 0.0):
        answers = made_answers(0, 10, "development", levels=levels, ceiling=ceiling)
        answers = answers.with_columns(good=pl.lit(value=False))
        assert best(answers, SETTINGS, target).name == ("b" if ceiling else "a")


# --- differences ---


def test_differences_are_paired_over_pairs_and_of_the_reporting_ones_alone():
    answers = made_answers(3)
    both = pl.concat([answers, made_answers(4, 30, "development")])
    table, questions = differences(both, 30, 5), Resamples(24, 30, 5)
    assert dict(table.schema) == DIFFERENCES
    assert set(table.select("family", "measure").rows()) == {
        (family, f"{column}{of}") for family in ("none", "mask") for column in MEASURES for of in ("", "_over_ceiling")
    }
    for row in table.to_dicts():
        column, over = row["measure"].removesuffix("_over_ceiling"), row["measure"].endswith("_over_ceiling")

        def value(times, of, column=column, over=over, family=row["family"]):
            ours, theirs = (
                against_ceiling(answers, one, column, ALL, ALL, times, of)[over] for one in ("neurons", family)
            )
            return ours - theirs

        ends = by_hand(questions, sorted(PAIRS), value)
        assert [row["difference"], row["low"], row["high"]] == pytest.approx(ends, abs=1e-12)
        assert [row["quantiles"][LEVELS.index(end)] for end in (0.025, 0.975)] == [row["low"], row["high"]]


def test_the_difference_of_good_answers_is_that_of_the_shares_where_targets_have_as_many_pairs():
    answers = made_answers(2, pairs=PAIRS[1:])
    table, whole = differences(answers, 30, 0), records(answers, set(), 30, 0)
    for family in ("none", "mask"):
        found = row_of(whole, "neurons")["good"] - row_of(whole, family)["good"]
        (said,) = table.filter(family=family, measure="good")["difference"]
        assert said == pytest.approx(found)


# --- pairs on which settings were chosen, and others ---


def test_pairs_tuned_on_and_the_others_are_reported_apart_as_if_there_were_no_more():
    answers = made_answers(6)
    tuned = {("en", "fr"), ("en", "es")}
    table = transfer(pl.concat([answers, made_answers(1, 30, "development")]), tuned, 30, 5)
    assert dict(table.schema) == TRANSFER
    assert set(table.select("family", "tuned", "pairs").rows()) == {
        (family, used, 2) for family in ("none", "neurons", "mask") for used in (True, False)
    }
    for row in table.to_dicts():
        some = [pair for pair in PAIRS if (pair in tuned) == row["tuned"]]
        inside = pl.struct("source", "target").map_elements(lambda one: tuple(one.values()) in some, pl.Boolean)  # noqa: B023
        alone = records(answers.filter(inside | (pl.col("family") == "ceiling")), set(), 30, 5)
        expected = row_of(alone, row["family"])
        assert {name: row[name] for name in row if "good" in name} == pytest.approx(
            {name: expected[name] for name in row if "good" in name}
        )
    whole = records(answers, set(), 30, 5, tuned)
    for row in whole.to_dicts():
        pair = row["source"], row["target"]
        assert row["tuned"] is (None if ALL in pair else pair in tuned)


def test_without_pairs_of_a_kind_there_is_no_row_of_it():
    assert transfer(made_answers(), PAIRS, 10, 0)["tuned"].unique().to_list() == [True]
    assert len(transfer(made_answers().filter(pl.col("family") != "ceiling"), PAIRS, 10, 0)) == 0


def test_a_family_that_answers_as_neurons_do_differs_by_exactly_nothing():
    answers = made_answers().filter(pl.col("family") != "mask")
    twin = answers.filter(family="neurons").with_columns(family=pl.lit("diffmean"))
    table = differences(pl.concat([answers, twin]), 30, 0).filter(family="diffmean")
    np.testing.assert_allclose(table.select("difference", "low", "high").to_numpy(), 0, atol=1e-15)


@pytest.mark.parametrize("family", ["neurons", "ceiling"])
def test_without_neurons_or_ceiling_there_are_no_differences_but_their_columns(family):
    table = differences(made_answers().filter(pl.col("family") != family), 30, 0)
    assert len(table) == 0
    assert dict(table.schema) == dict(differences(made_answers(), 30, 0).schema)
