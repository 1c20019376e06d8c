"""Judging claims: by a table's figures, their intervals and the bootstrap behind them."""

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
HOLDS: tuple[Verdict, ...] = ("holds", "holds against weaker controls")
LEVEL = 0.05


@dataclass(frozen=True)
class Judged:
    """A claim with what was found."""

    claim: Claim
    verdict: Verdict
    members: pl.DataFrame
    """`member`, `value`, `low`, `high`, `p`, `p_holm`, `verdict`."""
    why: str = ""
    """Why it was not run, or could not be decided."""
    draws: int | None = None
    """Of a claim on a spread: over how many halvings or draws it is, the fewest of its members."""
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
    nothing = pl.DataFrame(schema=MEMBERS)
    if claim.table not in tables:
        return Judged(claim, "not run", nothing, why_not.get(claim.table, NOT_ASKED))
    rows = _deciding(claim, tables[claim.table], over)
    if not len(rows):
        asked = [str(wanted) for wanted in claim.where.values() if not isinstance(wanted, list)]
        why = next((why_not[one] for one in asked if one in why_not), f"the table {claim.table} has no such rows")
        return Judged(claim, "not run", nothing, why)
    found = [_member(claim, row) for row in rows.iter_rows(named=True)]
    if all(one["value"] is None for one in found):
        return Judged(claim, "not run", nothing, f"no value for {', '.join(one['member'] for one in found)}")
    corrected = holm_known([one["p"] for one in found])
    members = [one | {"p_holm": p, "verdict": _verdict(claim, one, p)} for one, p in zip(found, corrected, strict=True)]
    verdicts = [one["verdict"] for one in members]
    whole: Verdict = "undecided here"
    if "does not hold" in verdicts:
        whole = "does not hold"
    elif all(one in HOLDS for one in verdicts):
        whole = "holds" if set(verdicts) == {"holds"} else "holds against weaker controls"
    why = _lacking(claim, members) if whole == "undecided here" else ""
    counts = [rows[column].min() for column in ("halvings", "draws") if column in rows.columns]
    draws = counts[0] if claim.range == "spread" and counts else None
    return Judged(claim, whole, pl.DataFrame(members, schema=MEMBERS), why, draws, _unlike(members))  # type: ignore[arg-type]


def _member(claim: Claim, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row's figure, its ends, and the bootstrap's p of its being on the rule's side, doubled."""
    low, high = ends(row, claim.value)
    quantiles = row.get(f"{claim.value}_{QUANTILES}" if f"{claim.value}_low" in row else QUANTILES)
    p = None
    if claim.range == "interval" and quantiles and low is not None:
        p = min(1.0, 2 * _one_sided(claim, quantiles))
    name = str(row[claim.member]) if claim.member in row else claim.name
    ratio = row.get("energy_ratio") if claim.value in LESS_CONTROL else None
    return {"member": name, "value": row[claim.value], "low": low, "high": high, "p": p, "ratio": ratio}


def _one_sided(claim: Claim, quantiles: Sequence[float | None]) -> float:
    if claim.rule == "within":
        return min(p_at(quantiles, claim.margin, side=1), p_at(quantiles, -claim.margin, side=-1))
    return p_at(quantiles, claim.margin, side=-1 if claim.rule == "above" else 1)


def _verdict(claim: Claim, found: Mapping[str, Any], p: float | None) -> Verdict:
    low, high = found["low"], found["high"]
    if low is None or high is None:
        return "undecided here"
    inside, outside = _sides(claim, low, high)
    if inside:
        return _against(claim, found["ratio"])
    if claim.range == "spread":
        return "does not hold" if outside else "undecided here"
    return "does not hold" if p is not None and p < LEVEL else "undecided here"


def _against(claim: Claim, ratio: float | None) -> Verdict:
    """What a figure on the rule's side is worth, by the energy of the set over its control's: None where no control is in the figure."""
    weaker, stronger = ratio is not None and ratio > LIKE[1], ratio is not None and ratio < LIKE[0]
    if claim.rule == "above":
        return "holds against weaker controls" if weaker else "holds"
    return "undecided here" if stronger or (weaker and claim.rule == "within") else "holds"


def _sides(claim: Claim, low: float, high: float) -> tuple[bool, bool]:
    """Whether all between two ends lies on the rule's side, and whether all of it lies on the other."""
    margin = claim.margin
    if claim.rule == "within":
        return -margin < low and high < margin, low > margin or high < -margin
    return (low > margin, high < margin) if claim.rule == "above" else (high < margin, low > margin)


def _lacking(claim: Claim, members: Sequence[Mapping[str, Any]]) -> str:
    """What the undecided lack, as far as that is known."""
    bare = [one["member"] for one in members if one["value"] is None]
    few = [one["member"] for one in members if one["value"] is not None and one["low"] is None]
    old = [
        one["member"]
        for one in members
        if claim.range == "interval" and one["low"] is not None and one["p"] is None and one["verdict"] not in HOLDS
    ]
    said = [f"no value for {', '.join(bare)}"] if bare else []
    said += [f"no {claim.range} for {', '.join(few)}"] if few else []
    said += [f"the table keeps no resamples of {', '.join(old)}: made by an earlier version"] if old else []
    return "; ".join(said)


def _unlike(members: Sequence[Mapping[str, Any]]) -> str:
    """Controls that do not resemble their set."""
    ratios = [(member["member"], member["ratio"]) for member in members if member["ratio"] is not None]
    unlike = [f"{name} {ratio:.2f}" for name, ratio in ratios if not LIKE[0] <= ratio <= LIKE[1]]
    return f"controls do not resemble the set, whose energy over theirs is {', '.join(unlike)}" if unlike else ""


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
# What a study judges, registered before it reads any data; give your own with --claims FILE.
# A claim holds where the whole 95 % interval of `value` lies on the `rule` side of `margin` (`within`: between -margin and margin), for every
# row (`member`) that `where` picks; it does not hold where one lies on the other side, corrected by Holm over the members. Where control neurons
# write less than .8 of what the set does, it holds against weaker controls.
# "over" stands for the study's languages but for the main one; "largest" for the largest value of the column. `range = "spread"`: the ends are
# no interval. `written`: the day; `seen`: models on which results that bear on it were known then.
"""


def standing() -> str:
    """The claims of all experiments, as one TOML file."""
    files = [one.claims for one in experiments().values() if one.claims is not None]
    return "\n".join([_HEAD, *(file.read_text(encoding="utf-8") for file in files)])
