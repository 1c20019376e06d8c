"""Writing a study: LaTeX tables, the claims with their verdicts, and a paragraph of methods ready to paste."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from lape.experiments.table import is_list
from lape.study.claims import Judged

_ESCAPES = str.maketrans(
    {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}"}
    | {"^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "\n": " ", "\r": " "}
)


def latex(name: str, table: pl.DataFrame) -> str:
    """A table as LaTeX (package booktabs), numbers to three digits after the point; lists are left out."""
    table = table.select(column for column in table.columns if not is_list(table.schema[column]))
    columns = "".join("r" if dtype.is_numeric() else "l" for dtype in table.dtypes)
    head = " & ".join(_escaped(column) for column in table.columns)
    body = [" & ".join(_cell(value) for value in row) + r" \\" for row in table.iter_rows()]
    lines = [f"% {name}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head + r" \\", r"\midrule"]
    return "\n".join([*lines, *body, r"\bottomrule", r"\end{tabular}", ""])


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)


def _cell(value: Any) -> str:
    if value is None:
        return "--"
    if isinstance(value, float):
        return f"{value:.3f}"
    return _escaped(str(value))


def claims_page(judged: Sequence[Judged], not_run: Mapping[str, str], notes: Mapping[str, Sequence[str]]) -> str:
    """Every claim with its statistic, margin, rule, figure and verdict, and what was not run."""
    lines = [
        "# Claims",
        "",
        "Each claim, its statistic, margin and rule stand in claims.toml, fixed before this command was run; a claim that was thought of with results",
        "of the same model and text in hand is exploratory, whatever its verdict. A claim *holds* where the whole 95 % interval of every figure lies on",
        "the rule's side of the margin, Holm-corrected within the claim; it is *undecided here* where an interval contains the margin or there is none.",
        "An interval is what its table says: a bootstrap over text, questions or neurons; for sets from other text, the spread over ways of halving it.",
        "",
        "| claim | verdict | figures (95 % interval) |",
        "|---|---|---|",
    ]
    lines += [f"| {one.claim.says} | **{one.verdict}** | {_figures(one)} |" for one in judged]
    lines += ["", "## How each was judged", ""]
    for one in judged:
        claim = one.claim
        where = ", ".join(f"{column} = {value}" for column, value in claim.where.items())
        lines.append(
            f"- **{claim.name}** ({claim.source}): `{claim.value}` of the table `{claim.table}`"
            + (f" where {where}" if where else "")
            + f", {claim.rule} {claim.margin:g}."
        )
    if not_run:
        lines += ["", "## Not run", "", *(f"- {part}: {why}" for part, why in not_run.items())]
    said = {part: said for part, said in notes.items() if said}
    if said:
        lines += ["", "## Notes", "", *(f"- {part}: {note}" for part, some in said.items() for note in some)]
    return "\n".join([*lines, ""])


def _figures(one: Judged) -> str:
    if one.verdict == "not run":
        return one.why
    return "; ".join(
        f"{row['member']} {_number(row['value'])} ({_interval(row)})"
        + ("" if row["verdict"] == one.verdict else f" {row['verdict']}")
        for row in one.members.iter_rows(named=True)
    )


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _interval(row: Mapping[str, Any]) -> str:
    return "no interval" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"


def methods(record: Mapping[str, Any]) -> str:
    """A paragraph for a paper: what was recorded, chosen and evaluated, with thresholds and hashes."""
    options, model = record["options"], record["model"]
    tokens = ", ".join(f"{language} {count:,}" for language, count in record["recorded_tokens"].items())
    evaluated = record["evaluated"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return "\n".join(
        [
            "# Methods",
            "",
            f"We recorded the MLP activations of {model['id']} ({record['space']}; SHA-256 over all parameters {model['checksum'][:16]}) "
            f"on monolingual text ({tokens} tokens; special tokens and padding never counted). Language neurons were found by LAPE "
            f"(Tang et al., 2024) with its published thresholds: the {record['rate']:.0%} of all neurons of lowest entropy among those whose "
            f"activation probability exceeds the 95th percentile of all probabilities ({record['threshold']:.4f}) in some language, assigned to "
            f"every language in which they exceed it. Effects were measured on {evaluated['lines']} parallel sentences, evenly spread over the "
            f"text and each read by itself ({evaluated['tokens']} tokens per language on average; SHA-256 {evaluated['hash'][:16]}), "
            "as the change of the negative log-likelihood in nats per token when a language's neurons are set to 0, "
            f"beside {options['draws']} draws of control neurons (a) as many at random in each layer, (b) as many in each layer and decile of "
            "energy E[a²]·‖down column‖². Intervals of these effects are 95 % percentile bootstraps "
            f"({options['resamples']:,} resamples) over sentences, resampled jointly over languages and conditions; selection methods are compared by "
            "the paired difference of selectivity, own / (own + others), at the largest own effect that both reach. "
            "Claims, margins and rules were fixed before this command was run; a claim that was thought of with results of the same model and text in hand "
            f"is exploratory. Software: {versions}.",
            "",
        ]
    )
