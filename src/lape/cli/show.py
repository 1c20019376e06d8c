"""`lape show`: what a file of neurons holds, and which experts a language's tokens go to."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from rich.console import Group

from lape.cli.common import beside, out
from lape.cli.flags import Switch
from lape.cli.inputs import neurons_of
from lape.cli.tables import between, histogram, number, titled
from lape.detect.stability import RELIABILITY, UNION
from lape.store.run import check_table, read_table, write_table
from lape.values.experts import measure_expert_use
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats


def show(
    neurons: Path,
    *,
    languages: str | None = None,
    width: int | None = None,
    experts: Switch = False,
) -> None:
    """Show how many neurons each language has, in which layers, and how sets overlap.

    Parameters
    ----------
    neurons
        A run's folder, a file of neurons, or a published .pth.
    languages
        For a .pth, which names none: its languages in order. The paper's files: en,zh,fr,es,vi,id and, where there are seven, ja.
    width
        For a .pth: neurons in a layer, such as 11008.
    experts
        Of a recorded mixture of experts: which experts each language's tokens go to. Written as experts.parquet into the run.
    """
    if experts:
        _experts(neurons)
        return

    found = neurons_of(neurons, languages, width)
    saved = beside(neurons, f"{'neurons' if neurons.is_dir() else neurons.stem}.reliability.parquet")
    table = (
        check_table("reliability", read_table(saved), RELIABILITY, str(saved), shares=("median", "p5", "chance"))
        if saved.is_file()
        else None
    )
    out.print(neurons_table(found, table))
    out.print(overlap_table(found))
    model = found.manifest.get("model")
    if model:
        out.print(f"Found in {model['id']} (parameters {model['checksum'][:12]}).")
    for note in found.notes:
        out.print(note)


def _experts(run: Path) -> None:
    table = measure_expert_use(ActivationStats.load(run))
    target = beside(run, "experts.parquet")
    write_table(target, table)
    out.print(experts_table(table))
    out.print(f"All {len(table):,} rows: {target}", soft_wrap=True)


def neurons_table(neurons: LanguageNeurons, reliability: pl.DataFrame | None) -> Group:
    """Per language: how many neurons, in which layers, how reliable."""
    layers = neurons.space.layers
    measured = {row["language"]: row for row in reliability.iter_rows(named=True)} if reliability is not None else {}
    halved = bool(measured) and any(row.get("halvings") != 0 for row in measured.values())
    rows = []
    for language in [*neurons, UNION]:
        found = neurons.union if language == UNION else neurons[language]
        by_layer = found.by_layer()
        counts = [len(by_layer.get(layer, ())) for layer in layers]
        fullest = str(layers[counts.index(max(counts))]) if any(counts) else ""
        alone = "" if language == UNION else str(len(neurons.only(language)))
        stable = [number(measured.get(language, {}).get(k), 2) for k in ("median", "p5", "chance")]
        rows.append([language, str(len(found)), alone, histogram(counts), fullest, *(stable if halved else [])])
    columns = ["", "neurons", "unshared", f"layers {layers[0]}–{layers[-1]}", "peak"]
    caption = "unshared: neurons that no other language has. peak: the layer with most of them."
    if measured and not halved:
        caption += (
            " How stable the sets are is not known: too little text was recorded to find them in halves of it. Record more of each "
            "language: --tokens, and longer texts."
        )
    if halved:
        columns += ["stable", "5 %", "chance"]
        caption += (
            " stable: split-half stability, the median Jaccard of the sets found in two halves of the text; 5 %: its 5th percentile over all halvings; "
            "chance: that of random sets; none under 20 neurons. This is stability, not validity: it says that a set comes out again, not what it does."
        )
    title = f"Language neurons ({neurons.method}): {len(neurons.union):,} of {neurons.space}"
    return titled(title, columns, rows, caption)


def overlap_table(neurons: LanguageNeurons) -> Group:
    """How many neurons each pair of languages shares."""
    rows = [[a, *(str(len(neurons[a] & neurons[b])) for b in neurons)] for a in neurons]
    return titled("Shared neurons", ["", *neurons], rows)


def experts_table(table: pl.DataFrame) -> Group:
    """Per language, the experts that it uses most in comparison with the others."""
    rows = []
    for language in table["language"].unique(maintain_order=True):
        mine = table.filter(language=language).drop_nulls("ratio")
        rows += [
            [
                language,
                f"{row['layer']}.{row['expert']}",
                f"{row['share']:.1%}",
                between(row["lowest"], row["highest"], ".1%", "–"),
                f"{row['others']:.1%}",
                f"{row['ratio']:.2f}",
                {True: "yes", False: "no", None: ""}[row["apart"]],
            ]
            for row in mine.sort("ratio", descending=True).head(5).iter_rows(named=True)
        ]
    columns = ["", "layer.expert", "tokens sent", "folds", "others", "ratio", "apart"]
    caption = (
        "tokens sent: share of the language's tokens that the router sends to the expert; folds: the lowest and highest of that share "
        "over parts of the text; others: its mean over the other languages; apart: whether no other language's folds reach into that range."
    )
    return titled("Experts that a language uses most, beside the others", columns, rows, caption)
