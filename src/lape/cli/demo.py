"""`lape demo`: the main job on the embedded model and the bundled texts, in one command."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lape.cli.common import out, progress, provenance
from lape.cli.flags import Out, Switch
from lape.cli.identify import with_reliability
from lape.cli.inputs import DEMO, LOADING, load_proven
from lape.cli.perplexity import show_losses, summaries
from lape.cli.show import neurons_table
from lape.data import samples
from lape.detect.identify import identify
from lape.experiments.perplexity.run import PerplexityOptions, line_losses
from lape.recording.engine import RecordOptions
from lape.recording.record import record
from lape.store.draft import Draft

ROW_TOKENS = 256
THREADS = 2
"""Sums in half precision are rounded otherwise by another number of threads. With this one always, the table is the same to its last digit on any number
of cores.
"""
_ELSEWHERE = 1
"""Draws of the matched control that are measured on the other languages too."""


def demo(
    *,
    to: Out = DEMO,
    sentences: int = 2,
    draws: int = 4,
    overwrite: Switch = False,
) -> None:
    """Find the language neurons of Gemma 3 270M in seven languages, and what they do.

    It runs on two threads, so that its table does not depend on how many cores there are.

    Parameters
    ----------
    to
        The run's folder.
    sentences
        How many sentences of each of the 20 documents are evaluated. All of them are 8.
    draws
        Draws of each kind of control.
    overwrite
        Replace an existing folder.
    """
    began = time.monotonic()
    draft = Draft(to, overwrite)
    recording = RecordOptions(row_tokens=ROW_TOKENS, residual=True)
    measuring = PerplexityOptions(row_tokens=ROW_TOKENS, draws=draws, elsewhere=_ELSEWHERE)
    with draft.anew(), _threads(THREADS):
        with progress() as report:
            model, tokenizer = load_proven("sample", LOADING, report)
            stats = record(model, tokenizer, samples.texts("record"), **vars(recording), progress=report)
        stats.save(draft.folder / "stats.safetensors")
        neurons, reliability = with_reliability(stats, identify(stats, reliability=False), "lape", {})
        neurons.save(draft.folder / "neurons.safetensors")
        out.print(neurons_table(neurons, reliability))
        with progress() as report:
            lines = line_losses(
                model, tokenizer, neurons, samples.texts("evaluate", sentences=sentences), measuring, progress=report
            )
        table, beside = summaries(lines, neurons, measuring)
        options = {
            "record": dataclasses.asdict(recording),
            "perplexity": dataclasses.asdict(measuring),
            "sentences": sentences,
        }
        tables = {"neurons.reliability": reliability, "perplexity": table, "controlled": beside, "lines": lines}
        draft.write(tables, run=provenance("demo", neurons, stats, options=options, manifest=stats.manifest))
        show_losses(table, beside)
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    out.print(
        f"Everything is in {to} ({minutes} min {seconds} s). Next: lape show {shlex.quote(str(to))}", soft_wrap=True
    )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many threads, until the block ends."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
