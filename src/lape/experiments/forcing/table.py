"""From judged answers to shares, their ratio to the ceiling's, the choice among settings, and intervals over questions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from lape.measure.bootstrap import Floats, Resamples
from lape.measure.intervals import ENDS, named_interval, plain_interval
from lape.measure.methods import Setting

ALL = "all"
"""Stands for a source or target in rows that average."""
SHARES = ("in_language", "good")
_RATIOS = ("in_language_over_ceiling", "good_over_ceiling")
_PLAIN = ("in_language_second", "agreement", "fluent", "on_topic", "lpr", "wpr", "distinct4", "nll", "graded")
RECORDS = {
    **dict.fromkeys(("family", "setting"), pl.String),
    "chosen": pl.Boolean,
    **dict.fromkeys(("split", "source", "target"), pl.String),
    "questions": pl.Int64,
    **{f"{name}{end}": pl.Float64 for name in (*SHARES, *_RATIOS) for end in ENDS},
    **dict.fromkeys(_PLAIN, pl.Float64),
    "empty": pl.Int64,
}
"""A row per setting, split and pair, source `all` for the mean of a target, both `all` for the whole: `family`, `setting`, `chosen` (for the target,
on the development questions), `split` (development, report), `source`, `target`, `questions`; the shares (0 to 1) `in_language` and `good`, and each
`…_over_ceiling`, with 95 % intervals `_low`, `_high` over questions (null under 20); `in_language_second`, `agreement`, `fluent`, `on_topic`,
`lpr`, `wpr` (shares), `distinct4`, `nll` (nats per token), `graded` (0 to 2), see `lape.measure.answer_table.DEFINITIONS`; `empty` (answers).
"""
DIFFERENCES = {"family": pl.String, "measure": pl.String, **dict.fromkeys(("difference", "low", "high"), pl.Float64)}
"""A row per `family` and `measure` (a share over the ceiling's, averaged by target) on the reporting questions: `difference`, neurons minus the
family, with its paired 95 % interval `low`, `high` over questions.
"""


BY_TARGET = "chosen for each target"
"""The setting of a reported average over targets that have different ones."""


@dataclass(frozen=True)
class _Group:
    """One setting on one split (on the reporting questions, one family): for each pair the answers in order of the questions."""

    family: str
    split: str
    pairs: dict[tuple[str, str], pl.DataFrame]

    def setting(self, pairs: Sequence[tuple[str, str]]) -> str:
        """The setting of some pairs."""
        names = {str(self.pairs[pair]["setting"][0]) for pair in pairs}
        return names.pop() if len(names) == 1 else BY_TARGET

    def matrix(self, column: str, pairs: Iterable[tuple[str, str]]) -> Floats:
        """(pairs, questions) 0 or 1."""
        return np.array([self.pairs[pair][column].cast(pl.Float64).fill_null(0.0).to_numpy() for pair in pairs])


def _groups(answers: pl.DataFrame) -> Iterator[_Group]:
    tried = pl.when(pl.col("split") == "report").then(pl.lit("")).otherwise(pl.col("setting")).alias("tried")
    for (split, family, _), frame in answers.with_columns(tried).group_by(
        ["split", "family", "tried"], maintain_order=True
    ):
        parts = frame.sort("question").partition_by(["source", "target"], maintain_order=True, as_dict=True)
        yield _Group(str(family), str(split), {(str(key[0]), str(key[1])): part for key, part in parts.items()})


def _ratio(group: _Group, ceiling: _Group, column: str, pairs: Sequence[tuple[str, str]], weights: Floats) -> Floats:
    """(resamples,) share over the ceiling's, averaged by target: first over the sources of a target, then over targets.

    `weights` (resamples, questions) sum to 1. A target whose ceiling has no such answer in a resample does not count there.
    """
    targets = list(dict.fromkeys(target for _, target in pairs))
    own = weights @ group.matrix(column, pairs).T
    of = np.array([targets.index(target) for _, target in pairs])
    means = np.stack([own[:, of == k].mean(1) for k in range(len(targets))], 1)
    tops = weights @ ceiling.matrix(column, [(target, target) for target in targets]).T
    ratios = np.divide(means, tops, out=np.full_like(means, np.nan), where=tops > 0)
    known = np.isfinite(ratios)
    sums = np.where(known, ratios, 0.0).sum(1)
    means_over_targets: Floats = np.divide(sums, known.sum(1), out=np.full(len(sums), np.nan), where=known.any(1))
    return means_over_targets


def records(answers: pl.DataFrame, chosen: set[tuple[str, str, str]], resamples: int, seed: int) -> pl.DataFrame:
    """One row for each setting, split and pair, and averages: source `all` for a target, both `all` for the whole.

    Shares are of all answers, but `fluent` of those in the language, `on_topic` of those that are fluent too, and `wpr` of those
    whose every line is in the language.
    `…_over_ceiling` is the share over that of the ceiling on the same questions, averaged by target. `_low`, `_high`: 95 %
    percentile bootstrap over questions, resampled jointly over everything; none under 20 questions. `empty` counts answers.
    `chosen`: (family, setting, target) of what was chosen for each target; an average over targets is, where one of them is.
    """
    groups = list(_groups(answers))
    ceilings = {group.split: group for group in groups if group.family == "ceiling"}
    rows = []
    for group in groups:
        count = next(iter(group.pairs.values())).height
        weights = _weights(count, resamples, seed)
        for source, target, pairs in _averages(list(group.pairs)):
            row: dict[str, Any] = {
                "family": group.family,
                "setting": group.setting(pairs),
                "chosen": any((group.family, group.setting([pair]), pair[1]) in chosen for pair in pairs),
                "split": group.split,
                "source": source,
                "target": target,
                "questions": count,
            }
            for column in SHARES:
                row |= named_interval(column, _shares(group, column, pairs, weights))
                ratio = _ratio(group, ceilings[group.split], column, pairs, weights)
                row |= named_interval(f"{column}_over_ceiling", ratio)
            rows.append({**row, **_plain(pl.concat([group.pairs[pair] for pair in pairs]))})
    return pl.DataFrame(rows, schema=RECORDS)


def _averages(pairs: list[tuple[str, str]]) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    for source, target in pairs:
        yield source, target, [(source, target)]
    for target in dict.fromkeys(target for _, target in pairs):
        yield ALL, target, [pair for pair in pairs if pair[1] == target]
    yield ALL, ALL, pairs


def _weights(count: int, resamples: int, seed: int) -> Floats:
    """(1 + resamples, questions) that sum to 1: first every question once, then each resample."""
    return Resamples(count, resamples, seed).weights / count


def _shares(group: _Group, column: str, pairs: Sequence[tuple[str, str]], weights: Floats) -> Floats:
    """(resamples,) share of the answers."""
    shares: Floats = np.minimum(weights @ group.matrix(column, pairs).mean(0), 1.0)
    return shares


def _plain(answers: pl.DataFrame) -> dict[str, Any]:
    inside = answers.filter("in_language")
    return {
        **{name: answers[name].mean() for name in ("in_language_second", "lpr", "wpr", "distinct4", "nll", "graded")},
        "agreement": answers["language"].eq_missing(answers["language_second"]).mean(),
        "fluent": inside["fluent"].mean(),
        "on_topic": inside.filter("fluent")["on_topic"].mean(),
        "empty": int(answers["empty"].sum()),
    }


def best(answers: pl.DataFrame, settings: Sequence[Setting], target: str) -> Setting:
    """The setting with the most good answers in a target language over the ceiling; then the most in the language; then the first.

    Of a target that was not tried: the best on average over those that were.
    """
    groups = {(group.family, group.setting(list(group.pairs))): group for group in _groups(answers)}
    ceiling = next(group for group in groups.values() if group.family == "ceiling")

    def score(setting: Setting) -> tuple[float, float]:
        group = groups[setting.family, setting.name]
        pairs = [pair for pair in group.pairs if pair[1] == target] or list(group.pairs)
        count = group.pairs[pairs[0]].height
        whole = np.full((1, count), 1 / count)
        # Rounded, since equal counts of different questions add up to sums that differ in the last bits.
        good, inside = (round(float(_ratio(group, ceiling, c, pairs, whole)[0]), 12) for c in ("good", "in_language"))
        return (good if np.isfinite(good) else 0.0, inside if np.isfinite(inside) else 0.0)

    return max(settings, key=score)


def differences(answers: pl.DataFrame, resamples: int, seed: int) -> pl.DataFrame:
    """Neurons minus each other family on the reporting questions: `family`, `measure`, `difference`, `low`, `high`.

    Of the shares over the ceiling, averaged by target; 95 % paired bootstrap over questions.
    """
    groups = [group for group in _groups(answers) if group.split == "report"]
    by_family = {group.family: group for group in groups}
    rows = []
    if "neurons" in by_family and "ceiling" in by_family:
        own, ceiling = by_family["neurons"], by_family["ceiling"]
        weights = _weights(next(iter(own.pairs.values())).height, resamples, seed)
        for family, group in by_family.items():
            if family in ("neurons", "ceiling"):
                continue
            for column in SHARES:
                ours, theirs = (_ratio(g, ceiling, column, list(g.pairs), weights) for g in (own, group))
                row = {"family": family, "measure": f"{column}_over_ceiling"}
                rows.append(row | plain_interval("difference", ours - theirs))
    return pl.DataFrame(rows, schema=DIFFERENCES)
