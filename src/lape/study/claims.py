"""Judge claims by a table's figures, their intervals and the bootstrap behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from lape.errors import OptionError
from lape.experiments import experiments
from lape.experiments.claim import Claim
from lape.figures.style import ends
from lape.measure.controls import LESS_CONTROL, LIKE
from lape.measure.intervals import QUANTILES, holm_known, p_at

Verdict = Literal["holds", "holds against weaker controls", "does not hold", "undecided here", "not run"]
_DECIDING: tuple[Verdict, ...] = ("does not hold", "undecided here", "holds against weaker controls", "holds")
"""The verdict on a claim is the first of these that one of its members has."""
LEVEL = 0.05


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict."""

    claim: Claim
    verdict: Verdict
    members: pl.DataFrame
    """`member`, `value`, `low`, `high`, `p`, `p_holm`, `verdict`."""
    why: str = ""
    """Why it was not run, or could not be decided."""
    unlike: str = ""
    """Which control neurons do not resemble their set, with the ratios of energies."""


NOT_ASKED = "not asked for"
"""Why something was not run that nobody asked for."""
MEMBERS = {
    "member": pl.String,
    **dict.fromkeys(("value", "low", "high", "p", "p_holm"), pl.Float64),
    "verdict": pl.String,
}


def judge(claim: Claim, tables: Mapping[str, pl.DataFrame], why_not: Mapping[str, str], over: Sequence[str]) -> Judged:
    """Judge one claim by the tables of a study.

    It *holds* where every member's whole 95 % interval lies on the rule's side of the margin. That is an intersection-union test (Berger 1982):
    to say that all members hold, each is tested at the full level, without a correction, since where one of them does not, the whole is wrong no more
    often than that one test. `within` is the test of equivalence by two one-sided tests (Schuirmann 1987), by the same 95 % interval as
    everything else here, so at .025 a side, where 90 % is usual.

    It *does not hold* where some member lies on the other side. That is one of several chances to find one, so it is corrected: `p` is twice the
    bootstrap's one-sided p of the figure being on the rule's side, `p_holm` Holm's over the claim's members, and one below .05 decides.
    Else it is *undecided here*, and `why` says so where something is lacking.

    Where the figure is less that of control neurons (`lape.measure.controls.LESS_CONTROL`), the control has to resemble its set: the ratio of their
    energies, set ÷ control, lies within .8 and 1.25. Weaker controls, of a larger ratio, make it easier to do more than they do: such a claim
    *holds against weaker controls*. Stronger ones make it harder, and it holds as it is. A figure that is to lie below a margin, or within it, is the
    other way round: stronger controls, or either, leave it *undecided here*.

    A claim on a spread, which is no interval, holds where all of it lies on the rule's side and does not hold where all of it lies on the
    other; neither has an error rate.

    `why_not`: table, or value of `where`, -> why it is missing. `over`: what "over" in `where` stands for.
    """
    if claim.table not in tables:
        return _not_run(claim, why_not.get(claim.table, NOT_ASKED))
    rows = _select_rows(claim, tables[claim.table], over)
    if rows.is_empty():
        wanted = [str(value) for value in claim.where.values() if not isinstance(value, list)]
        reasons = [why_not[value] for value in wanted if value in why_not]
        return _not_run(claim, reasons[0] if reasons else f"the table {claim.table} has no such rows")
    members = [_measure_member(claim, row) for row in rows.iter_rows(named=True)]
    if all(member["value"] is None for member in members):
        return _not_run(claim, f"no value for {', '.join(member['member'] for member in members)}")
    for member, p in zip(members, holm_known([member["p"] for member in members]), strict=True):
        member |= {"p_holm": p, "verdict": _judge_member(claim, member, p)}
    verdict = next(verdict for verdict in _DECIDING if verdict in [member["verdict"] for member in members])
    why = _describe_gaps(claim, members) if verdict == "undecided here" else ""
    return Judged(claim, verdict, pl.DataFrame(members, schema=MEMBERS), why, _describe_unlike(members))


def _not_run(claim: Claim, why: str) -> Judged:
    return Judged(claim, "not run", pl.DataFrame(schema=MEMBERS), why)


def _measure_member(claim: Claim, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row's figure, its ends, and twice the bootstrap's one-sided p of the figure being on the rule's side."""
    low, high = ends(row, claim.value)
    quantiles = row.get(f"{claim.value}_{QUANTILES}" if f"{claim.value}_low" in row else QUANTILES)
    p = None
    if claim.range == "interval" and quantiles and low is not None:
        sides = {"above": [(1, -1)], "below": [(1, 1)], "within": [(1, 1), (-1, -1)]}[claim.rule]
        p = min(1.0, 2 * min(p_at(quantiles, sign * claim.margin, side=side) for sign, side in sides))
    name = str(row[claim.member]) if claim.member in row else claim.name
    ratio = row.get("energy_ratio") if claim.value in LESS_CONTROL else None
    return {"member": name, "value": row[claim.value], "low": low, "high": high, "p": p, "ratio": ratio}


def _judge_member(claim: Claim, member: Mapping[str, Any], p: float | None) -> Verdict:
    low, high, margin, ratio = member["low"], member["high"], claim.margin, member["ratio"]
    if low is None or high is None:
        return "undecided here"
    least, most = {"above": (margin, None), "below": (None, margin), "within": (-margin, margin)}[claim.rule]
    if (least is None or low > least) and (most is None or high < most):
        weaker, stronger = ratio is not None and ratio > LIKE[1], ratio is not None and ratio < LIKE[0]
        if claim.rule == "above":
            return "holds against weaker controls" if weaker else "holds"
        return "undecided here" if stronger or (weaker and claim.rule == "within") else "holds"
    outside = (least is not None and high < least) or (most is not None and low > most)
    decided = outside if claim.range == "spread" else p is not None and p < LEVEL
    return "does not hold" if decided else "undecided here"


def _describe_gaps(claim: Claim, members: Sequence[Mapping[str, Any]]) -> str:
    """Say what undecided members lack, as far as that is known."""
    value, ends, resamples = "no value for", f"no {claim.range} for", "the table keeps no resamples of"
    lacking: dict[str, list[str]] = {value: [], ends: [], resamples: []}
    for member in members:
        if member["value"] is None:
            lacking[value].append(member["member"])
        elif member["low"] is None:
            lacking[ends].append(member["member"])
        elif claim.range == "interval" and member["p"] is None and member["verdict"] == "undecided here":
            lacking[resamples].append(member["member"])
    return "; ".join(f"{what} {', '.join(names)}" for what, names in lacking.items() if names)


def _describe_unlike(members: Sequence[Mapping[str, Any]]) -> str:
    """Name controls that do not resemble their set."""
    ratios = [(member["member"], member["ratio"]) for member in members if member["ratio"] is not None]
    unlike = [f"{name} {ratio:.2f}" for name, ratio in ratios if not LIKE[0] <= ratio <= LIKE[1]]
    return f"controls do not resemble the set, whose energy over theirs is {', '.join(unlike)}" if unlike else ""


def _select_rows(claim: Claim, table: pl.DataFrame, over: Sequence[str]) -> pl.DataFrame:
    where = sorted(claim.where.items(), key=lambda one: one[1] == "largest")  # the largest of what is left
    for column in (*(column for column, _ in where), claim.value):
        if column not in table.columns:
            raise OptionError(
                f"The claim {claim.name} asks for the column {column}, but {claim.table} has {', '.join(table.columns)}."
            )
    if not table[claim.value].dtype.is_numeric():
        raise OptionError(f"The claim {claim.name} judges {claim.value} of {claim.table}, which holds no numbers.")
    for column, wanted in where:
        of = table[column].dtype
        if wanted != "largest" and not all(_fits(of, one) for one in _listed(wanted, ["over"])):
            raise OptionError(
                f"The claim {claim.name} asks for {column} = {wanted!r}, but {column} of {claim.table} is {of}."
            )
        largest = pl.col(column) == pl.col(column).max()
        table = table.filter(largest if wanted == "largest" else pl.col(column).is_in(_listed(wanted, over)))
    return table


def _listed(wanted: Any, over: Sequence[str]) -> list[Any]:
    """The values that a row may have; "over", by itself or among others, stands for the languages `over`."""
    several = wanted if isinstance(wanted, list) else [wanted]
    return [value for one in several for value in (over if one == "over" else [one])]


def _fits(dtype: pl.DataType, wanted: Any) -> bool:
    """Whether a column can hold a value."""
    if isinstance(wanted, bool):
        return dtype == pl.Boolean
    return dtype == pl.String if isinstance(wanted, str) else dtype.is_numeric()


_HEAD = """\
# What a study judges; give your own with --claims FILE.
# A claim holds where the whole 95 % interval of `value` lies on the `rule` side of `margin` (`within`: between -margin and margin), for every
# row (`member`) that `where` picks; it does not hold where one lies on the other side, corrected by Holm over the members. Where control neurons
# write less than .8 of what the set does, it holds against weaker controls.
# "over" stands for the study's languages but for the main one; "largest" for the largest value of the column. `range = "spread"`: the ends are
# no interval. `written`: the day on which the rule was written; `seen`: models on which results that bear on it were known then.
"""


def standing() -> str:
    """The claims of all experiments, as one TOML file."""
    files = [one.claims for one in experiments().values() if one.claims is not None]
    return "\n".join([_HEAD, *(file.read_text(encoding="utf-8") for file in files)])
