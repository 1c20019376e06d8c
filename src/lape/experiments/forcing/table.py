"""From judged answers to shares, their ratio to the ceiling's, the choice among settings, and intervals over questions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from lape.measure.bootstrap import Floats, Resamples
from lape.measure.intervals import ENDS, Estimate, jackknife, resampled
from lape.measure.methods import Setting
from lape.measure.questions import Pair

ALL = "all"
"""Stands for a source or target in rows that average."""
SHARES = ("in_language", "good")
COMPARED = ("", "_minus_ceiling", "_over_ceiling")
"""What is put after a share's name: the share itself, it less the ceiling's, and it over the ceiling's."""
_PLAIN = (
    *("in_language_second", "agreement", "fluent", "on_topic", "mixed", "foreign"),
    *("lpr_after_lcb", "wpr_after_lcb", "distinct4", "nll", "graded"),
)
_COMPARED = {f"{name}{of}{end}": pl.Float64 for of in COMPARED for name in SHARES for end in ENDS}
RECORDS = {
    **dict.fromkeys(("family", "setting"), pl.String),
    "chosen": pl.Boolean,
    **dict.fromkeys(("split", "source", "target"), pl.String),
    "tuned": pl.Boolean,
    "questions": pl.Int64,
    **_COMPARED,
    **dict.fromkeys(_PLAIN, pl.Float64),
    **dict.fromkeys(("calibrated_on", "empty"), pl.Int64),
}
"""A row per setting, split and pair, source `all` for the mean of a target, both `all` for the whole: `family`, `setting`, `chosen` (for the target,
on the development questions), `split` (development, report), `source`, `target`, `tuned` (whether settings were chosen on the pair; null for a
mean), `questions`; the shares (0 to 1) `in_language` and `good`, and each `…_minus_ceiling` and `…_over_ceiling`, with 95 % intervals `_low`, `_high` over
targets, or of fewer than three over questions (null under 20 questions);
`in_language_second`, `agreement`, `fluent`, `on_topic`, `mixed`, `foreign`, `lpr_after_lcb`,
`wpr_after_lcb` (shares), `distinct4`, `nll` (nats per token), `graded` (0 to 2), see `lape.measure.answers.DEFINITIONS`; `calibrated_on` (the fewest
native answers behind a bound of fluency); `empty` (answers).
"""
ADDED = (
    *("tuned", "mixed", "foreign", "calibrated_on"),
    *(f"{name}_minus_ceiling{end}" for name in SHARES for end in ENDS),
)
"""Columns of `RECORDS` that results of earlier versions lack."""
RENAMED = {"lpr": "lpr_after_lcb", "wpr": "wpr_after_lcb"}
DIFFERENCES = {"family": pl.String, "measure": pl.String, **resampled("difference", plain=True)}
"""A row per `family` and `measure` on the reporting questions, averaged by target: `difference`, neurons minus the family, with its paired 95 %
interval `low`, `high`, as in `RECORDS`, and its `quantiles`. Measures: the share of answers `good` or `in_language`, and each over the
ceiling's.
"""
TRANSFER = {
    "family": pl.String,
    "tuned": pl.Boolean,
    **dict.fromkeys(("pairs", "questions"), pl.Int64),
    **_COMPARED,
}
"""A row per `family` and whether settings were chosen on the `pairs` (`tuned`), on the reporting questions: as in `RECORDS`."""


BY_TARGET = "chosen for each target"
"""The setting of a reported average over targets that have different ones."""


@dataclass(frozen=True)
class _Group:
    """One setting on one split (on the reporting questions, one family): for each pair the answers in order of the questions."""

    family: str
    split: str
    pairs: dict[tuple[str, str], pl.DataFrame]

    @property
    def questions(self) -> int:
        """How many each pair was asked."""
        return next(iter(self.pairs.values())).height

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


_FEWEST_TARGETS = 3
"""Fewer targets are no sample of languages: an interval is then over questions alone, of these very pairs."""


class _Drawn:
    """Shares of answers with their intervals: over target languages, or of fewer than three over questions, the same resamples in every family."""

    def __init__(self, questions: int, resamples: int, seed: int) -> None:
        self._questions = Resamples(questions, resamples, seed)

    def shares(self, group: _Group, column: str, pairs: Sequence[Pair]) -> Floats:
        """(rows, pairs) share of each pair's answers."""
        found: Floats = self._questions.sums(group.matrix(column, pairs).T) / self._questions.count
        return np.minimum(found, 1.0)

    def compared(self, group: _Group, ceiling: _Group, column: str, pairs: Sequence[Pair]) -> dict[str, Floats]:
        """`COMPARED` -> (rows, pairs): a share; less, and over, its target's ceiling.

        Not a number where the ceiling has no such answer in a resample: the target does not count there.
        """
        own = self.shares(group, column, pairs)
        top = self.shares(ceiling, column, [(target, target) for _, target in pairs])
        ratio = np.divide(own, top, out=np.full_like(own, np.nan), where=top > 0)
        return {"": own, "_minus_ceiling": own - top, "_over_ceiling": ratio}

    def over(self, of: str, values: Floats, pairs: Sequence[Pair]) -> Estimate:
        """The mean of (rows, pairs) over pairs, and of what is compared with the ceiling by target."""
        rows = _mean(values, pairs, by_target=bool(of))
        known = [pair for pair, value in zip(pairs, values[0], strict=True) if np.isfinite(value)]
        targets = list(dict.fromkeys(target for _, target in known))
        estimate = self._questions.estimate(rows)
        if estimate.quantiles is None or len(targets) < _FEWEST_TARGETS:
            return estimate
        others = [[k for k, pair in enumerate(pairs) if pair[1] != target] for target in targets]
        left_out = [_mean(values[:1, some], [pairs[k] for k in some], by_target=bool(of))[0] for some in others]
        return jackknife(float(rows[0]), np.array(left_out))

    def columns(self, group: _Group, ceiling: _Group, pairs: Sequence[Pair]) -> dict[str, Any]:
        """Every share, alone and compared with the ceiling, with its interval, as columns of a row."""
        row: dict[str, Any] = {}
        for column in SHARES:
            for of, values in self.compared(group, ceiling, column, pairs).items():
                row |= self.over(of, values, pairs).named(f"{column}{of}")
        return row


def _mean(values: Floats, pairs: Sequence[Pair], *, by_target: bool) -> Floats:
    """(rows,) mean of (rows, pairs) over the pairs, first within each target or not; nan counts as not there."""
    targets = [target for _, target in pairs]
    weights = np.array([1 / targets.count(target) if by_target else 1.0 for target in targets]) * np.isfinite(values)
    known, total = weights.sum(1), (weights * np.nan_to_num(values)).sum(1)
    found: Floats = np.divide(total, known, out=np.full(len(known), np.nan), where=known > 0)
    return found


def records(
    answers: pl.DataFrame,
    chosen: set[tuple[str, str, str]],
    resamples: int,
    seed: int,
    tuned: Collection[Pair] = (),
) -> pl.DataFrame:
    """One row for each setting, split and pair, and averages: source `all` for a target, both `all` for the whole.

    Shares are of all answers, but `fluent`, `mixed` and `foreign` of those in the language, `on_topic` of those that are fluent too, and
    `wpr_after_lcb` of those whose every line is in the language.
    `…_minus_ceiling` and `…_over_ceiling` are the share less, and over, that of the ceiling on the same questions, averaged by target. `_low`, `_high`: 95 %
    intervals, of three or more targets Student's t over the targets (`lape.measure.intervals.jackknife`), of fewer a bootstrap over questions alone;
    none under 20 questions. `empty` counts answers. `chosen`: (family, setting, target) of what was chosen for each target; an average
    over targets is, where one of them is. `tuned`: the pairs on which that was done.
    """
    groups = list(_groups(answers))
    ceilings = {group.split: group for group in groups if group.family == "ceiling"}
    rows = []
    for group in groups:
        drawn = _Drawn(group.questions, resamples, seed)
        for source, target, pairs in _averages(list(group.pairs)):
            row: dict[str, Any] = {
                "family": group.family,
                "setting": group.setting(pairs),
                "chosen": any((group.family, group.setting([pair]), pair[1]) in chosen for pair in pairs),
                "split": group.split,
                "source": source,
                "target": target,
                "tuned": None if ALL in (source, target) else (source, target) in tuned,
                "questions": group.questions,
                **drawn.columns(group, ceilings[group.split], pairs),
            }
            rows.append({**row, **_plain(pl.concat([group.pairs[pair] for pair in pairs]))})
    return pl.DataFrame(rows, schema=RECORDS)


def transfer(answers: pl.DataFrame, tuned: Collection[Pair], resamples: int, seed: int) -> pl.DataFrame:
    """Every family on the reporting questions, on the pairs on which settings were chosen and on the others apart: `TRANSFER`."""
    groups = [group for group in _groups(answers) if group.split == "report"]
    ceiling = next((group for group in groups if group.family == "ceiling"), None)
    rows = []
    for group in groups:
        if ceiling is None or group is ceiling:
            continue
        drawn = _Drawn(group.questions, resamples, seed)
        for used in (True, False):
            if pairs := [pair for pair in group.pairs if (pair in tuned) == used]:
                row = {"family": group.family, "tuned": used, "pairs": len(pairs), "questions": group.questions}
                rows.append(row | drawn.columns(group, ceiling, pairs))
    return pl.DataFrame(rows, schema=TRANSFER)


def _averages(pairs: list[tuple[str, str]]) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    for source, target in pairs:
        yield source, target, [(source, target)]
    for target in dict.fromkeys(target for _, target in pairs):
        yield ALL, target, [pair for pair in pairs if pair[1] == target]
    yield ALL, ALL, pairs


def _plain(answers: pl.DataFrame) -> dict[str, Any]:
    inside = answers.filter("in_language")
    everywhere = ("in_language_second", "lpr_after_lcb", "wpr_after_lcb", "distinct4", "nll", "graded")
    return {
        **{name: answers[name].mean() for name in everywhere},
        "agreement": answers["language"].eq_missing(answers["language_second"]).mean(),
        **{name: inside[name].mean() for name in ("fluent", "mixed", "foreign")},
        "on_topic": inside.filter("fluent")["on_topic"].mean(),
        "calibrated_on": answers.filter(pl.col("calibrated_on") > 0)["calibrated_on"].min(),
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
        whole = _Drawn(group.questions, 0, 0)
        # Rounded, since equal counts of different questions add up to sums that differ in the last bits.
        good, inside = (
            round(
                float(_mean(whole.compared(group, ceiling, column, pairs)["_over_ceiling"], pairs, by_target=True)[0]),
                12,
            )
            for column in ("good", "in_language")
        )
        return (good if np.isfinite(good) else 0.0, inside if np.isfinite(inside) else 0.0)

    return max(settings, key=score)


def differences(answers: pl.DataFrame, resamples: int, seed: int) -> pl.DataFrame:
    """Neurons minus each other family on the reporting questions: `DIFFERENCES`.

    Of the shares and of the shares over the ceiling, averaged by target, pair by pair; 95 % intervals as in `records`.
    """
    by_family = {group.family: group for group in _groups(answers) if group.split == "report"}
    rows = []
    if "neurons" in by_family and "ceiling" in by_family:
        own, ceiling = by_family["neurons"], by_family["ceiling"]
        drawn = _Drawn(own.questions, resamples, seed)
        for family, group in by_family.items():
            if family in ("neurons", "ceiling"):
                continue
            pairs = sorted(group.pairs)
            for column in SHARES:
                # the ceiling of a pair is the same for both, so that it falls out of the difference of what is less it
                ours, theirs = (drawn.compared(one, ceiling, column, pairs) for one in (own, group))
                for of, name in (("_minus_ceiling", column), ("_over_ceiling", f"{column}_over_ceiling")):
                    row = {"family": family, "measure": name}
                    rows.append(row | drawn.over(of, ours[of] - theirs[of], pairs).plain("difference", quantiles=True))
    return pl.DataFrame(rows, schema=DIFFERENCES)
