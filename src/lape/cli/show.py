"""`lape show`: what a file of neurons holds."""

from __future__ import annotations

from pathlib import Path

from lape.cli.common import neurons_of, out


def show(neurons: Path, *, languages: str | None = None, width: int | None = None) -> None:
    """Show how many neurons each language has, in which layers, and how sets overlap.

    Parameters
    ----------
    neurons
        A run's folder, a file of neurons, or a published .pth.
    languages
        For a .pth, which names none: its languages in order, such as en,zh,fr.
    width
        For a .pth: neurons in a layer, such as 11008.
    """
    import polars as pl

    from lape.cli.tables import neurons_table, overlap_table

    found = neurons_of(neurons, languages, width)
    folder = neurons if neurons.is_dir() else neurons.parent
    stem = "neurons" if neurons.is_dir() else neurons.stem
    saved = folder / f"{stem}.reliability.parquet"
    out.print(neurons_table(found, pl.read_parquet(saved) if saved.is_file() else None))
    out.print(overlap_table(found))
    model = found.manifest.get("model")
    if model:
        out.print(f"Found in {model['id']} (parameters {model['checksum'][:12]}).", highlight=False)
    for note in found.notes:
        out.print(note, highlight=False)
