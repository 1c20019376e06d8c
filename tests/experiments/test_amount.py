"""How much sets move: the curve over folds, within against across domains, and with a language left out."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from lape.detect.lape import lape
from lape.detect.stability import UNION, chance_jaccard
from lape.errors import MismatchError, OptionError
from lape.experiments.amount.run import AMOUNT, amount
from lape.experiments.domain import DOMAIN, domain
from lape.experiments.languages import DROPPED, dropped
from lape.values.neurons import jaccard
from lape.values.space import NeuronSpace
from lape.values.stats import ActivationStats
from support.made import made_stats

WIDE = NeuronSpace.dense(2, 100)
OPTIONS = {"rate": 0.4, "filter": 0.6, "bar": 0.6}
LANGUAGES = ["en", "fr", "zh"]


def stats_of(seed=0, languages=LANGUAGES, **more):
    return made_stats(seed, languages, WIDE, **more)


def emptied(stats, language, fold):
    """The same without that language's text in one fold."""
    tensors = {n: t.clone() for n, t in stats[language].tensors.items()}
    for name in ("tokens", "routed", "fires"):
        tensors[name][fold] = 0
    changed = {**stats.by_language, language: dataclasses.replace(stats[language], tensors=tensors)}
    return dataclasses.replace(stats, by_language=changed)


def watched(groups):
    """LAPE, noting which folds it is asked for."""

    def find(stats, *, folds=None, **options):
        groups.append((stats, folds))
        return lape(stats, folds=folds, **options)

    return find


def test_the_curve_has_a_row_for_every_number_of_folds_and_language():
    stats = stats_of()
    table = amount(stats, partial(lape, **OPTIONS))
    assert dict(table.schema) == AMOUNT
    assert table.select("folds", "language").rows() == [(n, k) for n in (1, 2, 3, 4) for k in (*LANGUAGES, UNION)]
    whole = np.mean([int(stats[k].tokens.sum()) for k in LANGUAGES])
    assert table["tokens"].to_list() == [round(whole * n / 8) for n in (1, 2, 3, 4) for _ in range(4)]


def test_the_curve_is_the_jaccard_of_disjoint_groups_of_folds():
    groups = []
    table = amount(stats_of(), partial(watched(groups), **OPTIONS))
    values = {}
    for (stats, a), (_, b) in zip(groups[::2], groups[1::2], strict=True):
        assert not set(a) & set(b)
        assert len(a) == len(b)
        one, other = (lape(stats, folds=folds, **OPTIONS) for folds in (a, b))
        values.setdefault((len(a), UNION), []).append(jaccard(one.union, other.union))
    for (count, language), found in values.items():
        (row,) = table.filter(folds=count, language=language).iter_rows(named=True)
        expected = np.quantile(found, [0.05, 0.5, 0.95])
        assert (row["low"], row["median"], row["high"]) == pytest.approx(tuple(expected))


def test_groups_in_which_a_language_has_no_text_are_passed_over():
    """Without text all its probabilities are 0, and every other language's neurons look specific."""
    groups = []
    table = amount(emptied(stats_of(), "fr", 3), partial(watched(groups), **OPTIONS))
    assert groups
    assert all(folds != (3,) for _, folds in groups)
    assert table["median"].null_count() < len(table)


def test_small_sets_have_no_jaccard():
    table = amount(made_stats(), lape)
    assert table["median"].null_count() == len(table)


def test_two_halves_of_one_domain_are_as_alike_as_those_of_two():
    """The same text as two domains: what differs within differs across."""
    table = domain(stats_of(1), stats_of(1), partial(lape, **OPTIONS))
    assert dict(table.schema) == DOMAIN
    assert table["language"].to_list() == [*LANGUAGES, UNION]
    for row in table.iter_rows(named=True):
        assert row["difference"] == pytest.approx(row["within"] - row["across"])
        assert row["low"] <= row["difference"] <= row["high"]


def test_domains_that_fire_otherwise_are_less_alike_across_than_within():
    table = domain(stats_of(1), stats_of(2), partial(lape, **OPTIONS))
    assert (table["difference"] > 0.2).all()
    assert (table["low"] > 0).all()


def test_languages_of_one_domain_alone_do_not_change_the_sets_of_the_shared():
    """A set depends on the languages compared, so both domains must compare the same."""
    groups = []
    one, other = stats_of(1, ["en", "de", "fr"]), stats_of(2, ["fr", "en", "zh"])
    table = domain(one, other, partial(watched(groups), **OPTIONS))
    assert {tuple(stats.languages) for stats, _ in groups} == {("en", "fr")}
    assert table["language"].to_list() == ["en", "fr", UNION]


def test_domains_that_cannot_be_compared_are_refused():
    with pytest.raises(MismatchError, match=r"2 × 100.*2 × 10\b"):
        domain(stats_of(), made_stats(), lape)
    other = dataclasses.replace(stats_of(), manifest={"model": {"checksum": "m2"}})
    with pytest.raises(MismatchError, match=r"m1.*m2"):
        domain(stats_of(), other, lape)
    with pytest.raises(OptionError, match="share 1 languages"):
        domain(stats_of(), stats_of(0, ["fr", "de"]), lape)
    with pytest.raises(OptionError, match="1 folds"):
        domain(stats_of(), stats_of(folds=1), lape)


def test_a_language_left_out_is_compared_with_the_whole_by_hand():
    stats = stats_of(3)
    table = dropped(stats, partial(lape, **OPTIONS))
    assert dict(table.schema) == DROPPED
    pairs = [(gone, k) for gone in LANGUAGES for k in LANGUAGES if k != gone]
    assert table.select("dropped", "language").rows() == pairs
    whole = lape(stats, **OPTIONS)
    for row in table.iter_rows(named=True):
        rest = ActivationStats(WIDE, {k: stats[k] for k in LANGUAGES if k != row["dropped"]}, {})
        before, after = whole[row["language"]], lape(rest, **OPTIONS)[row["language"]]
        assert (row["before"], row["after"]) == (len(before), len(after))
        assert row["jaccard"] == jaccard(before, after)
        assert row["chance"] == chance_jaccard(before, after)


def test_two_languages_are_too_few_to_leave_one_out():
    with pytest.raises(OptionError, match="three or more"):
        dropped(stats_of(0, ["en", "fr"]), lape)


def test_the_seed_alone_decides():
    one, again, other = (amount(stats_of(), partial(lape, **OPTIONS), seed=seed) for seed in (1, 1, 2))
    assert one.equals(again)
    assert not one.equals(other)
    assert torch.equal(torch.tensor(one["tokens"]), torch.tensor(other["tokens"]))
