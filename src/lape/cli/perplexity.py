"""`lape perplexity`: what switching each language off does to each language's loss."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from lape.cli.common import (
    CELLS,
    Overwrite,
    TextFlags,
    beside,
    kept,
    neurons_of,
    out,
    plain,
    progress,
    provenance,
    say_passes,
    texts_of,
    write_table,
)
from lape.cli.flags import FLAGS, SWITCHES
from lape.experiments.perplexity.run import PerplexityOptions
from lape.model.load import ModelOptions

_MODEL, _PERPLEXITY = ModelOptions(), PerplexityOptions()


def perplexity(
    model: str,
    neurons: Path,
    *,
    text: TextFlags,
    to: Annotated[Path | None, Parameter(name="--out")] = None,
    languages: str | None = None,
    width: int | None = None,
    overwrite: Overwrite = False,
    options: Annotated[PerplexityOptions, FLAGS] = _PERPLEXITY,
    loading: Annotated[ModelOptions, SWITCHES] = _MODEL,
) -> None:
    """Measure the change of loss: neurons off × language evaluated, with control neurons and intervals.

    Parameters
    ----------
    model
        A Hugging Face id, a local folder or GGUF file, or sample.
    neurons
        A run's folder, a file of neurons, or a published .pth.
    text
        TAG=PATH, once or more: text that was not recorded.
    to
        The folder to write. Default: perplexity beside the neurons.
    languages
        For a .pth: its languages in order.
    width
        For a .pth: neurons in a layer.
    overwrite
        Replace an existing folder.
    """
    from lape.cli.tables import loss_matrix, own_tables, verdict
    from lape.experiments.perplexity.run import line_losses, summary
    from lape.model.load import check_made_with, describe, load
    from lape.recording.run import checked_texts
    from lape.store import files

    target = to or beside(neurons, "perplexity")
    files.refuse_existing(target, overwrite)
    texts = checked_texts(texts_of(text))
    found = neurons_of(neurons, languages, width)
    with progress() as report, kept(target) as cells:
        loaded, tokenizer = load(model, loading, progress=report)
        check_made_with(loaded, neurons=found)
        described = describe(loaded, tokenizer)
        lines = line_losses(
            loaded,
            tokenizer,
            texts,
            found,
            options,
            folder=cells,
            described=described,
            planned=say_passes("neurons"),
            progress=report,
        )
        table = summary(lines, found, options)
        record = provenance("perplexity", options=dataclasses.asdict(options), texts=plain(texts), **described)
        save(target, table, lines, record)
    out.print(loss_matrix(table))
    out.print(own_tables(table))
    out.print(verdict(table), highlight=False)
    out.print(f"Written: {target}", highlight=False, soft_wrap=True)


def save(target: Path, table: Any, lines: Any, record: dict[str, Any]) -> None:
    """Write the tables beside the cells, and make of both a folder of tables alone."""
    from lape.store import files

    working = files.partial(target)
    write_table(table, working / "perplexity.parquet")
    write_table(lines, working / "lines.parquet")
    files.write_json(working / "run.json", record)
    shutil.rmtree(working / CELLS)
    files.finish(working, target)
