"""Two files of neurons side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lape.errors import certain
from lape.experiments.compare.run import COMPARED, compare
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import Experiment, named
from lape.experiments.table import Table
from lape.values.neurons import LanguageNeurons

__all__ = ["EXPERIMENT", "compare"]


@dataclass(frozen=True)
class CompareStudy:
    """What of it a study sets."""

    other: Path | None = None
    """A run's folder or a file of neurons of the same model, with which the sets are compared."""


def _run(context: Context, options: CompareStudy) -> Tables:
    return {"compared": compare(context.neurons, LanguageNeurons.load(certain(options.other)))}


def _reads(options: CompareStudy) -> Mapping[str, Path]:
    if options.other is None:
        return {}
    return {"other": options.other / "neurons.safetensors" if options.other.is_dir() else options.other}


EXPERIMENT = Experiment(
    name="compare",
    title="Beside other neurons",
    about="two files of neurons side by side",
    options=CompareStudy,
    run=_run,
    tables={
        "compared": Table(
            "Sizes and overlap of the sets of two files of neurons, over all layers and in each.", COMPARED
        )
    },
    needs=(named("other", "no other neurons were named (--other RUN, or a file of neurons)", "--other RUN"),),
    study="asked",
    reads=_reads,
)
