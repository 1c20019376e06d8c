"""`lape export`: a checkpoint with languages switched off in its weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lape.cli.common import out, progress
from lape.cli.flags import Out, Several, Switch
from lape.cli.inputs import LOADING, Loading, load_matching, neurons_of
from lape.edit.edit import Off, Scale
from lape.errors import OptionError
from lape.ship.checkpoint import export as bake
from lape.store import files


def export(
    model: str,
    neurons: Path,
    *,
    off: Several | None = None,
    scale: Several | None = None,
    to: Out,
    languages: str | None = None,
    width: int | None = None,
    overwrite: Switch = False,
    loading: Loading = LOADING,
) -> None:
    """Write a plain checkpoint in which the neurons of some languages are switched off or made stronger.

    Parameters
    ----------
    model
        A Hugging Face id, a local folder or GGUF file, or sample; or a run's folder alone, which knows its model.
    neurons
        A run's folder, a file of neurons, or a published .pth.
    off
        A language to switch off; may be given several times.
    scale
        TAG=FACTOR, such as fr=1.5: a language whose activations are multiplied; may be given several times.
    to
        The folder to write.
    languages
        For a .pth: its languages in order.
    width
        For a .pth: neurons in a layer.
    overwrite
        Replace an existing folder.
    """
    files.refuse_existing(to, overwrite)
    found = neurons_of(neurons, languages, width)
    edits = _edits(found, off or [], scale or [])
    with progress() as report:
        loaded, tokenizer = load_matching(model, loading, report, neurons=found)
        bake(loaded, edits, to, tokenizer=tokenizer, overwrite=overwrite)
    done = [*(f"without {language}" for language in off or []), *(f"with {one}" for one in scale or [])]
    out.print(f"Written: {to}, a plain checkpoint {', '.join(done)}.", soft_wrap=True)


def _edits(neurons: Any, off: Sequence[str], scale: Sequence[str]) -> list[Any]:
    """The edits that are asked for."""
    if not off and not scale:
        raise OptionError("No edit was given. Expected --off TAG, --scale TAG=FACTOR, or both.")
    edits: list[Any] = [Off(neurons[language]) for language in off]
    for one in scale:
        language, _, factor = one.partition("=")
        try:
            number = float(factor)
        except ValueError as error:
            raise OptionError(
                f"--scale {one} has no factor. Expected TAG=FACTOR, for example --scale fr=1.5."
            ) from error
        edits.append(Scale(neurons[language], number))
    return edits
