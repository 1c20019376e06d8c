"""Write the page of a study's claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lape.experiments.claim import Claim
from lape.study.claims import Judged


def claims_page(judged: Sequence[Judged], not_run: Mapping[str, str], notes: Mapping[str, Sequence[str]]) -> str:
    """Every claim with its statistic, margin, rule, figure, verdict and day, and what was not run. `not_run` and `notes`: of experiments."""
    lines = [
        "# Claims",
        "",
        "Each claim stands in claims.toml with its rule and the day on which that was written. Where results on this model were known by then, the claim is",
        "no test of it, whatever its verdict.",
        "",
        "A claim *holds* where the whole 95 % interval of every figure lies on the rule's side of the margin (every member is tested at the full level:",
        "an intersection-union test). It *does not hold* where a figure lies on the other side with a bootstrap p below .05, corrected by Holm over the",
        "claim's members. Else it is *undecided here*. An interval is over what its table says: text, questions or neurons. A spread is none.",
        "It *holds against weaker controls* where control neurons write less than .8 of what the set does (set ÷ control above 1.25): then the set may",
        "do more than they do because it is stronger.",
        "",
        "| claim | verdict | figures (95 % interval, or what is said) |",
        "|---|---|---|",
    ]
    for one in judged:
        lines.append(f"| {one.claim.says} | **{one.verdict}** | {_figures(one)} |")
    lines += ["", "## How each was judged", ""]
    for one in judged:
        claim = one.claim
        where = ", ".join(f"{column} = {value}" for column, value in claim.where.items())
        rule = f"{claim.rule} {claim.margin:g}" if claim.rule != "within" else f"within ±{claim.margin:g}"
        lines.append(
            f"- **{claim.name}** ({claim.source}): `{claim.value}` of the table `{claim.table}`"
            + (f" where {where}" if where else "")
            + f", {rule}{_spread(claim)}. {_written(claim)}"
        )
    if not_run:
        lines += ["", "## Not run", "", *(f"- {part}: {why}" for part, why in not_run.items())]
    said = {part: said for part, said in notes.items() if said}
    if said:
        lines += ["", "## Notes", "", *(f"- {part}: {note}" for part, some in said.items() for note in some)]
    return "\n".join([*lines, ""])


def _spread(claim: Claim) -> str:
    return ", by its spread (5th–95th percentile over halvings; no interval)" if claim.range == "spread" else ""


def _written(claim: Claim) -> str:
    """Say when a claim was written, and on which models results were known then."""
    models = "no model" if claim.seen == () else ", ".join(claim.seen or ["models that it does not name"])
    return f"Written {claim.written or 'on a day that it does not give'}, when results were known on {models}."


def _figures(one: Judged) -> str:
    if one.verdict == "not run":
        return one.why
    said = "; ".join(
        f"{row['member']} {_number(row['value'])} ({_ends(one.claim, row)})"
        + ("" if row["verdict"] == one.verdict else f" {row['verdict']}")
        for row in one.members.iter_rows(named=True)
    )
    return ". ".join([said, *(f"{more[0].upper()}{more[1:]}" for more in (one.why, one.unlike) if more)])


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _ends(claim: Claim, row: Mapping[str, Any]) -> str:
    if row["low"] is None:
        return f"no {claim.range}"
    return f"{'spread ' if claim.range == 'spread' else ''}{row['low']:.3f} to {row['high']:.3f}"
