"""`lape compare`: how two files of neurons agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Group

from lape.cli.common import err, out, provenance, written
from lape.cli.flags import Out, Switch
from lape.cli.inputs import neurons_of
from lape.cli.tables import histogram, number, titled
from lape.errors import MismatchError
from lape.experiments.compare.run import compare as compared
from lape.store import files
from lape.store.draft import Draft
from lape.store.run import write_table
from lape.values.neurons import LanguageNeurons
from lape.values.published import is_published


def compare(
    a: Path,
    b: Path,
    *,
    languages: str | None = None,
    width: int | None = None,
    to: Out | None = None,
    overwrite: Switch = False,
) -> None:
    """Compare two files of neurons of one model: sizes, and how much each language's sets overlap, layer by layer.

    Parameters
    ----------
    a
        A run's folder, a file of neurons, or a published .pth.
    b
        The other one, in any of the same forms.
    languages
        For a .pth, which names none: its languages in order. The paper's files: en,zh,fr,es,vi,id and, where there are seven, ja. Default: those of the
        other one.
    width
        For a .pth: neurons in a layer, such as 11008. Default: that of the other one.
    to
        The folder to write; a name that ends in .parquet gets the table alone. Nothing is written without it.
    overwrite
        Replace what is there.
    """
    if to is not None:
        files.refuse_existing(to, overwrite)
    draft = Draft(to, overwrite) if to is not None and to.suffix != ".parquet" else None
    first, second = _read(a, b, languages, width)
    try:
        table = compared(first, second)
    except MismatchError as error:
        raise MismatchError(f"{a} and {b}: {error}") from error
    out.print(compare_table(table))
    for name, path, found in (("A", a, first), ("B", b, second)):
        out.print(f"{name}: {path} ({_origin(found)})", soft_wrap=True)
    if draft is not None:
        with draft.anew():
            draft.write({"compared": table}, run=provenance("compare", first, other=str(b)))
    elif to is not None:
        write_table(to, table)
    if to is not None:
        written(to)


def _read(a: Path, b: Path, languages: str | None, width: int | None) -> list[LanguageNeurons]:
    """Both files. What a .pth does not say is taken from the other one."""
    named = [path for path in (a, b) if not is_published(path)]
    if len(named) == 1 and (languages is None or width is None):
        other = neurons_of(named[0], None, None)
        languages, width = languages or ",".join(other.languages), width or other.space.stretches[0].width
        err.print(f"From {named[0]}: --languages {languages} --width {width}", soft_wrap=True)
    return [neurons_of(path, languages, width) for path in (a, b)]


def _origin(neurons: Any) -> str:
    """How a set was found, and in which model, where that is known."""
    model = neurons.manifest.get("model")
    return f"{neurons.method}, {model['id']}, parameters {model['checksum'][:12]}" if model else str(neurons.method)


def compare_table(table: pl.DataFrame) -> Group:
    """Per language: the sizes of two sets, and how much they overlap, in all and layer by layer."""
    whole = table.filter(pl.col("layer").is_null())
    layers = table["layer"].drop_nulls().unique().sort()
    rows = []
    for row in whole.iter_rows(named=True):
        parts = table.filter(language=row["language"]).drop_nulls("layer")
        line = ""
        if row["shared"] is not None:
            line = histogram(parts["shared"].to_list(), (parts["a"] + parts["b"] - parts["shared"]).to_list())
        sizes = ["–" if row[k] is None else str(row[k]) for k in ("a", "b")]
        rows.append([row["language"], *sizes, *(number(row[k], 3) for k in ("jaccard", "chance")), line])
    columns = ["", "A", "B", "Jaccard", "chance", f"layers {layers[0]}–{layers[-1]}"]
    caption = (
        "Jaccard: shared neurons as a share of those in either; chance: that of random sets with as many neurons in each "
        "layer. Layers: a bar for the Jaccard of each, full height at 1; ·: no neuron is shared; blank: neither has a neuron there."
    )
    return titled("Two files of neurons", columns, rows, caption)
