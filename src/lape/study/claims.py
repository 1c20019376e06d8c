"""Judging claims: by a table's figure and its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from lape.errors import OptionError
from lape.experiments import experiments
from lape.experiments.claim import Claim, Rule
from lape.figures.style import ends
from lape.measure.intervals import holm_known

Verdict = Literal["holds", "does not hold", "undecided here", "not run"]
LEVEL = 0.05


@dataclass(frozen=True)
class Judged:
    """A claim with what was found."""

    claim: Claim
    verdict: Verdict
    members: pl.DataFrame
    """`member`, `value`, `low`, `high`, `p_holm`, `verdict`."""
    why: str = ""


MEMBERS = {
    "member": pl.String,
    **dict.fromkeys(("value", "low", "high", "p_holm"), pl.Float64),
    "verdict": pl.String,
}


def judge(claim: Claim, tables: Mapping[str, pl.DataFrame], why_not: Mapping[str, str], over: Sequence[str]) -> Judged:
    """Judge one claim by the tables of a study.

    A member holds where its whole 95 % interval lies on the rule's side of the margin and its p, corrected by Holm over the
    claim's members, is below .05 (p from the interval's width, as of a normal distribution); it does not hold where the interval
    lies on the other side; else it is undecided. The claim holds where all members do, does not hold where any does not.
    `why_not`: table, or value of `where`, -> why it is missing. `over`: what "over" in `where` stands for.
    """
    nothing = pl.DataFrame(schema=MEMBERS)
    if claim.table not in tables:
        return Judged(claim, "not run", nothing, why_not.get(claim.table, "its part was not asked for"))
    rows = _deciding(claim, tables[claim.table], over)
    if not len(rows):
        asked = [str(wanted) for wanted in claim.where.values() if not isinstance(wanted, list)]
        why = next((why_not[one] for one in asked if one in why_not), f"the table {claim.table} has no such rows")
        return Judged(claim, "not run", nothing, why)
    names = [str(name) for name in rows[claim.member].to_list()] if claim.member in rows.columns else [claim.name]
    values = [(row[claim.value], *ends(row, claim.value)) for row in rows.iter_rows(named=True)]
    found = [(name, *value) for name, value in zip(names, values, strict=True)]
    corrected = holm_known([_p(value, below, above, claim) for _, value, below, above in found])
    members = []
    for (name, value, below, above), p in zip(found, corrected, strict=True):
        row = {"member": name, "value": value, "low": below, "high": above, "p_holm": p}
        members.append({**row, "verdict": _verdict(below, above, p, claim)})
    verdicts = [one["verdict"] for one in members]
    whole: Verdict = "undecided here"
    if "does not hold" in verdicts:
        whole = "does not hold"
    elif all(one == "holds" for one in verdicts):
        whole = "holds"
    return Judged(claim, whole, pl.DataFrame(members, schema=MEMBERS))


def _deciding(claim: Claim, table: pl.DataFrame, over: Sequence[str]) -> pl.DataFrame:
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
        if wanted != "largest" and not all(_fits(of, one) for one in _listed(wanted)):
            raise OptionError(
                f"The claim {claim.name} asks for {column} = {wanted!r}, but {column} of {claim.table} is {of}."
            )
        if wanted == "largest":
            table = table.filter(pl.col(column) == pl.col(column).max())
        elif wanted == "over":
            table = table.filter(pl.col(column).is_in(list(over)))
        else:
            table = table.filter(pl.col(column).is_in(_listed(wanted)))
    return table


def _listed(wanted: Any) -> list[Any]:
    return wanted if isinstance(wanted, list) else [wanted]


def _fits(dtype: pl.DataType, wanted: Any) -> bool:
    """Whether a column can hold a value."""
    if isinstance(wanted, bool):
        return dtype == pl.Boolean
    return dtype == pl.String if isinstance(wanted, str) else dtype.is_numeric()


def _p(value: float | None, low: float | None, high: float | None, claim: Claim) -> float | None:
    """Two-sided p of the figure being the margin, from the width of its interval."""
    if value is None or low is None or high is None:
        return None
    width = (high - low) / (2 * 1.959964)
    if width <= 0:
        return 1.0 if value == claim.margin else 0.0
    return math.erfc(abs(value - claim.margin) / width / math.sqrt(2))


def _verdict(low: float | None, high: float | None, p: float | None, claim: Claim) -> Verdict:
    if low is None or high is None or p is None:
        return "undecided here"
    if low > claim.margin:
        side: Rule = "above"
    elif high < claim.margin:
        side = "below"
    else:
        return "undecided here"
    if side != claim.rule:
        return "does not hold"
    return "holds" if p < LEVEL else "undecided here"


_HEAD = """\
# What a study judges, fixed before it is run; give your own with --claims FILE.
# A claim holds where the whole 95 % interval of `value` lies on the `rule` side of `margin`, for every row (`member`) that `where` picks.
# "over" stands for the study's languages but for the main one; "largest" for the largest value of the column.
"""


def standing() -> str:
    """The claims of all experiments, as one TOML file."""
    files = [one.claims for one in experiments().values() if one.claims is not None]
    return "\n".join([_HEAD, *(file.read_text(encoding="utf-8") for file in files)])
