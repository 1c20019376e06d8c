"""Write the page of a study's claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lape.experiments.claim import Claim
from lape.study.claims import Judged
from lape.study.register import Registered, Standing
from lape.study.studied import Studied


def claims_page(studied: Studied, found: Registered | None, notes: Mapping[str, Sequence[str]]) -> str:
    """Every claim with its statistic, margin, rule, figure, verdict and standing, and what was not run."""
    judged, not_run = studied.judged, studied.not_run
    lines = [
        "# Claims",
        "",
        _registration(found),
        "A claim is *confirmatory* here if it was registered, to the letter, before the data were read, and its author knew of no results on this model",
        "that bear on it; else *exploratory*, whatever its verdict.",
        "",
        "A claim *holds* where the whole 95 % interval of every figure lies on the rule's side of the margin (every member is tested at the full level:",
        "an intersection-union test). It *does not hold* where a figure lies on the other side with a bootstrap p below .05, corrected by Holm over the",
        "claim's members. Else it is *undecided here*. An interval is over what its table says: text, questions or neurons. A spread is none.",
        "It *holds against weaker controls* where control neurons write less than .8 of what the set does (set ÷ control above 1.25): then the set may",
        "do more than they do because it is stronger.",
        "",
        "| claim | verdict | standing | figures (95 % interval, or what is said) |",
        "|---|---|---|---|",
    ]
    for one in judged:
        standing = studied.standing[one.claim.name]
        lines.append(f"| {one.claim.says} | **{one.verdict}** | {standing.kind} | {_figures(one)} |")
    lines += ["", "## How each was judged", ""]
    for one in judged:
        claim = one.claim
        where = ", ".join(f"{column} = {value}" for column, value in claim.where.items())
        rule = f"{claim.rule} {claim.margin:g}" if claim.rule != "within" else f"within ±{claim.margin:g}"
        lines.append(
            f"- **{claim.name}** ({claim.source}): `{claim.value}` of the table `{claim.table}`"
            + (f" where {where}" if where else "")
            + f", {rule}{_spread(one)}. {_standing(studied.standing[claim.name])}"
        )
    if not_run:
        lines += ["", "## Not run", "", *(f"- {part}: {why}" for part, why in not_run.items())]
    said = {part: said for part, said in notes.items() if said}
    if said:
        lines += ["", "## Notes", "", *(f"- {part}: {note}" for part, some in said.items() for note in some)]
    return "\n".join([*lines, ""])


def _spread(one: Judged) -> str:
    if one.claim.range != "spread":
        return ""
    over = f"over {one.draws} halvings" if one.draws else "over halvings"
    return f", by its spread (5th–95th percentile {over}; no interval)"


def _registration(found: Registered | None) -> str:
    if found is None:
        return "The claims (claims.toml) were not registered before the data were read."
    return f"The claims (claims.toml, SHA-256 {found.sha256[:16]}) were registered at {found.at}, before this study read any data (registered.json)."


def _standing(standing: Standing) -> str:
    """When a claim was written and registered, and why it is exploratory."""
    written = f"Written {standing.written}" if standing.written else "It does not say when it was written"
    registered = f"registered {standing.registered}" if standing.registered else "not registered"
    before = "; measured before" if standing.before else ""
    return f"{written}; {registered}{before}: {standing.kind}{f' ({standing.why})' if standing.why else ''}."


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
