"""`lape export`: a checkpoint with languages switched off in its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lape.cli.common import Overwrite, neurons_of, out, progress
from lape.options import ModelOptions

_MODEL = ModelOptions()


def export(
    model: str,
    neurons: Path,
    *,
    off: Annotated[list[str], Parameter(negative="")],
    to: Annotated[Path, Parameter(name="--out")],
    languages: str | None = None,
    width: int | None = None,
    overwrite: Overwrite = False,
    loading: Annotated[ModelOptions, Parameter(name="*")] = _MODEL,
) -> None:
    """Write a plain checkpoint in which the neurons of some languages are switched off.

    Parameters
    ----------
    model
        A Hugging Face id, a local folder, or sample.
    neurons
        A run's folder, a file of neurons, or a published .pth.
    off
        A language to switch off; may be given several times.
    to
        The folder to write.
    languages
        For a .pth: its languages in order.
    width
        For a .pth: neurons in a layer.
    overwrite
        Replace an existing folder.
    """
    from lape import files
    from lape.edit import Off
    from lape.exporting import export as bake
    from lape.models import load

    files.refuse_existing(to, overwrite)
    found = neurons_of(neurons, languages, width)
    edits = [Off(found[language]) for language in off]
    with progress() as report:
        loaded, tokenizer = load(model, loading, progress=report)
        bake(loaded, edits, to, tokenizer=tokenizer, overwrite=overwrite)
    out.print(f"Written: {to}, a plain checkpoint without {', '.join(off)}.", highlight=False, soft_wrap=True)
