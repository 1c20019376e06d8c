"""`lape show`: what a file of neurons holds, how much it shares with another, and which experts a language's tokens go to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Group

from lape.cli.common import beside, err, out
from lape.cli.flags import Switch, With
from lape.cli.inputs import neurons_of, refuse_missing
from lape.cli.tables import between, histogram, number, titled
from lape.detect.stability import RELIABILITY, UNION
from lape.errors import MismatchError
from lape.store.run import check_table, read_table, write_table
from lape.values.experts import measure_expert_use
from lape.values.neurons import LanguageNeurons, jaccard
from lape.values.published import is_published
from lape.values.same import check_same_model
from lape.values.stats import ActivationStats

SHARED = {"language": pl.String, **dict.fromkeys(("shared", "only_a", "only_b"), pl.Int64), "jaccard": pl.Float64}
"""Columns of `compare_neurons`."""


def show(
    neurons: Path,
    *,
    languages: str | None = None,
    width: int | None = None,
    other: With | None = None,
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
    other
        Another run, file of neurons or published .pth of the same model: per language, how many neurons both have. What a .pth does not say is taken
        from the first one, and the other way round.
    experts
        Of a recorded mixture of experts: which experts each language's tokens go to. Written as experts.parquet into the run.
    """
    if experts:
        _experts(neurons)
        return
    if other is not None:
        _show_shared(neurons, other, languages, width)
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


def _show_shared(a: Path, b: Path, languages: str | None, width: int | None) -> None:
    """Print how many neurons two files share."""
    refuse_missing(a)
    refuse_missing(b)
    named = [path for path in (a, b) if not is_published(path)]
    if len(named) == 1 and (languages is None or width is None):
        known = neurons_of(named[0], None, None)
        languages, width = languages or ",".join(known.languages), width or known.space.stretches[0].width
        err.print(f"From {named[0]}: --languages {languages} --width {width}", soft_wrap=True)
    first, second = neurons_of(a, languages, width), neurons_of(b, languages, width)
    try:
        table = compare_neurons(first, second)
    except MismatchError as error:
        raise MismatchError(f"{a} and {b}: {error}") from error
    rows = [
        [*("–" if cell is None else str(cell) for cell in counts), number(share, 3)]
        for *counts, share in table.iter_rows()
    ]
    caption = "Jaccard: shared neurons as a share of those in A or B; –: a language that the other file does not have."
    out.print(titled("Neurons in both files", ["", "shared", "only A", "only B", "Jaccard"], rows, caption))
    for name, path, neurons in (("A", a, first), ("B", b, second)):
        out.print(f"{name}: {path} ({neurons.method})", soft_wrap=True)


def compare_neurons(a: LanguageNeurons, b: LanguageNeurons) -> pl.DataFrame:
    """Count the neurons that two results share: two methods, two texts, or a published file and one's own.

    One row per language of `a`, then of `b` alone, then `all` (the neurons of any language): `language`, `shared`, `only_a`, `only_b` and `jaccard`
    (0 to 1; 0 where neither has a neuron). Of a language that only one of them has, `shared`, `jaccard` and the other's count are null. Raises
    MismatchError where they are of different spaces. Whether they are of one model, shapes cannot tell.
    """
    check_same_model(neurons=a.space, others=b.space)
    pairs = {language: (a.sets.get(language), b.sets.get(language)) for language in [*a.sets, *b.sets]}
    rows: list[tuple[Any, ...]] = []
    for language, (in_a, in_b) in {**pairs, UNION: (a.union, b.union)}.items():
        if in_a is None or in_b is None:
            rows.append((language, None, *(None if found is None else len(found) for found in (in_a, in_b)), None))
        else:
            rows.append((language, len(in_a & in_b), len(in_a - in_b), len(in_b - in_a), jaccard(in_a, in_b)))
    return pl.DataFrame(rows, schema=SHARED, orient="row")


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
