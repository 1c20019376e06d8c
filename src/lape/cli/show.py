"""`lape show`: what a file of neurons holds, and which experts a language's tokens go to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lape.cli.common import neurons_of, out, write_table


def show(
    neurons: Path,
    *,
    languages: str | None = None,
    width: int | None = None,
    experts: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show how many neurons each language has, in which layers, and how sets overlap.

    Parameters
    ----------
    neurons
        A run's folder, a file of neurons, or a published .pth.
    languages
        For a .pth, which names none: its languages in order, such as en,zh,fr.
    width
        For a .pth: neurons in a layer, such as 11008.
    experts
        Of a recorded mixture of experts: which experts each language's tokens go to. Written as experts.parquet into the run.
    """
    if experts:
        _experts(neurons)
        return
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


def _experts(run: Path) -> None:
    from lape.cli.tables import experts_table
    from lape.experiments.routing.run import affinity
    from lape.values.stats import ActivationStats

    table = affinity(ActivationStats.load(run))
    folder = run if run.is_dir() else run.parent
    write_table(table, folder / "experts.parquet")
    out.print(experts_table(table))
    out.print(f"All {len(table):,} rows: {folder / 'experts.parquet'}", highlight=False, soft_wrap=True)
