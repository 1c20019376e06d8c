"""`lape compare`: how two files of neurons agree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from lape.cli.common import Overwrite, neurons_of, out, write_table


def compare(
    a: Path,
    b: Path,
    *,
    languages: str | None = None,
    width: int | None = None,
    to: Annotated[Path | None, Parameter(name="--out")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Compare two sets of neurons of one model: sizes, and how much each language's sets overlap, layer by layer.

    Parameters
    ----------
    a
        A run's folder, a file of neurons, or a published .pth.
    b
        Another.
    languages
        For a .pth, which names none: its languages in order, such as en,zh,fr.
    width
        For a .pth: neurons in a layer, such as 11008.
    to
        Where to write the table, .parquet; nothing is written without it.
    overwrite
        Replace an existing file.
    """
    from lape.cli.tables import compare_table
    from lape.errors import MismatchError
    from lape.experiments.compare.run import compare as compared
    from lape.store import files

    if to is not None:
        files.refuse_existing(to, overwrite)
    first, second = (neurons_of(path, languages, width) for path in (a, b))
    try:
        table = compared(first, second)
    except MismatchError as error:
        raise MismatchError(f"{a} and {b}: {error}") from error
    out.print(compare_table(table))
    for name, path, found in (("A", a, first), ("B", b, second)):
        out.print(f"{name}: {path} ({_origin(found)})", highlight=False, soft_wrap=True)
    if to is not None:
        write_table(table, to)
        out.print(f"Written: {to}", highlight=False, soft_wrap=True)


def _origin(neurons: Any) -> str:
    """How a set was found, and in which model, where that is known."""
    model = neurons.manifest.get("model")
    return f"{neurons.method}, {model['id']}, parameters {model['checksum'][:12]}" if model else str(neurons.method)
