"""`lape doctor`: what was found in a model, and what running it proved."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from lape.cli.common import out, progress
from lape.options import ModelOptions

_MODEL = ModelOptions()


def doctor(
    model: str,
    *,
    loading: Annotated[ModelOptions, Parameter(name="*")] = _MODEL,
) -> None:
    """Find a model's neurons, prove them by running it, and say what was found.

    Parameters
    ----------
    model
        A Hugging Face id, a local folder, or sample.
    """
    from lape.corpus import bos_id
    from lape.errors import ModelError
    from lape.evaluate.nll import find_head
    from lape.models import checksum, load
    from lape.sites import find

    with progress() as report:
        loaded, tokenizer = load(model, loading, progress=report)
    found = find(loaded)
    first = found.sites[0]
    out.print(f"[bold]{type(loaded).__name__}[/] on {loaded.device}, {loaded.dtype}: {found.space}", highlight=False)
    out.print(
        f"site of layer {first.layer}: {first.activation} ({first.rule}) → {first.down}",
        highlight=False,
        soft_wrap=True,
    )
    for line in found.checked:
        out.print(f"[green]✓[/] {line}", highlight=False, soft_wrap=True)
    how = "are kept apart in one row" if found.packs else "need a row each: this architecture lets them see each other"
    out.print(f"documents {how}", highlight=False)
    bos = bos_id(tokenizer, "auto")
    out.print(
        f"rows begin with {tokenizer.decode([bos])!r} (never counted)" if bos is not None else "rows begin without BOS",
        highlight=False,
    )
    try:
        out.print(f"LM head: {find_head(loaded).what}, run in slices of the vocabulary", highlight=False)
    except ModelError as error:
        out.print(f"[yellow]![/] {error}", highlight=False, soft_wrap=True)
    out.print(f"checksum of the parameters: {checksum(loaded)}", highlight=False, soft_wrap=True)
