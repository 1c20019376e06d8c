"""Writing a study: LaTeX tables, the claims with their verdicts, and a paragraph of methods ready to paste."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from lape.experiments.claim import Claim
from lape.experiments.table import is_list
from lape.study.claims import Judged
from lape.study.register import Registered, Standing
from lape.study.studied import Studied

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
            f"We recorded the MLP activations of {model['id']} ({record['space']}; {_weights(model)}; SHA-256 over all parameters "
            f"{model['checksum'][:16]}) "
            f"on monolingual text ({tokens} tokens; special tokens and padding never counted). Language neurons were found by LAPE "
            f"(Tang et al., 2024) with its published thresholds: the {record['rate']:.0%} of all neurons of lowest entropy among those whose "
            f"activation probability exceeds the 95th percentile of all probabilities ({record['threshold']:.4f}) in some language, assigned to "
            f"every language in which they exceed it. Effects were measured on {evaluated['lines']} parallel sentences, evenly spread over the "
            f"text and each read by itself ({evaluated['tokens']} tokens per language on average; SHA-256 {evaluated['hash'][:16]}), "
            "as the change of the negative log-likelihood in nats per token when a language's neurons are set to 0. "
            + "".join(f"{said} " for parts, said in _measured(options).items() if {*parts} - {*record["not_run"]})
            + "Intervals of these effects are 95 % bootstraps (BCa, Efron 1987, with Student's t, under 400 units; else percentile; "
            f"{options['resamples']:,} resamples) over {_resampled(evaluated)}, resampled jointly over languages and conditions. "
            f"{_of_claims(record)} Software: {versions}.",
            "",
        ]
    )


def _weights(model: Mapping[str, Any]) -> str:
    """The number format that the model computed in, and of weights unpacked from a GGUF file the formats that they were stored in."""
    computed, gguf = f"computed in {model['dtype']}", model.get("gguf")
    if gguf is None:
        return computed
    tensors = ", ".join(f"{count} {name}" for name, count in gguf["tensors"].items())
    return f"weights unpacked from {gguf['file']} (SHA-256 {gguf['sha256'][:16]}; tensors: {tensors}), {computed}"


def _resampled(evaluated: Mapping[str, Any]) -> str:
    return f"the {evaluated['documents']} documents that these are of" if "documents" in evaluated else "sentences"


def _measured(options: Mapping[str, Any]) -> dict[tuple[str, ...], str]:
    """Parts -> what a paper says of how they measure, if one of them ran."""
    controls = (
        f"Beside each set are {options['draws']} draws of control neurons (a) as many at random in each layer, (b) for each neuron one of the "
        "ten of its layer that are nearest in written energy E[(a·u)²]·‖down column‖², without replacement "
        f"({min(options['elsewhere'], options['draws'])} draws of these on the other languages too). "
        "A set is judged by how much more it changes its own language's loss than the mean of the others', less the same of (b), in nats per sentence, "
        "with intervals over the text and, by Student's t, over the draws; without one where there is a single draw."
    )
    at_mean = (
        "Where neurons are set to a mean instead, or left alone in a layer that is, controls are for each neuron one of the ten "
        "nearest in E[(a − mean)²]·‖down column‖²."
    )
    compared = (
        "Selection methods are compared by what their sets cost the other languages, mean and worst, in nats per sentence, at equal own effect: "
        "at .25, .5, .75 and 1 of that of LAPE's published sets, within the sizes measured, and averaged over these levels, in each language "
        "by itself; in means over languages these are a sample too, by Student's t."
    )
    return {("perplexity",): controls, ("sufficiency",): at_mean, ("frontier",): compared}


def _of_claims(record: Mapping[str, Any]) -> str:
    found = record.get("registered")
    several = [one["standing"]["kind"] for one in record["claims"] if one["verdict"] != "not run"]
    count = f"{several.count('confirmatory')} of the {len(several)} that were judged are confirmatory, the others exploratory: see claims.md."
    if found is None:
        return f"Claims, margins and rules were not registered before the data were read; {count}"
    return f"Claims, margins and rules (SHA-256 {found['sha256'][:16]}) were registered on {found['at'][:10]}, before this study read any data; {count}"
