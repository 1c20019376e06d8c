"""Tasks of lm-eval under neuron edits."""

from __future__ import annotations

from dataclasses import dataclass

from lape.experiments.context import Context, Tables
from lape.experiments.experiment import MODEL, SUMS, Experiment, named
from lape.experiments.harness.run import DOCUMENTS, TABLE, HarnessOptions, find_tasks, harness
from lape.experiments.table import Table

__all__ = ["EXPERIMENT", "harness"]


@dataclass(frozen=True)
class HarnessStudy:
    """What of it a study sets."""

    tasks: tuple[str, ...] = ()
    """Tasks of lm-eval, by names or patterns, such as belebele_* xnli_fr (needs the extra eval)."""
    limit: int | None = None
    """At most this many documents of each task. Default: all."""


def _run(context: Context, options: HarnessStudy) -> Tables:
    found = harness(
        context.model,
        context.tokenizer,
        context.neurons,
        context.stats,
        find_tasks(options.tasks),
        options=HarnessOptions(limit=options.limit, resamples=context.options.resamples, seed=context.options.seed),
        folder=context.cells("eval"),
        progress=context.progress,
    )
    context.note("eval", *found.notes)
    return found


EXPERIMENT = Experiment(
    name="eval",
    title="Tasks of lm-eval",
    about="tasks of lm-eval with neurons off",
    options=HarnessStudy,
    run=_run,
    tables={
        "tasks": Table(
            "Each task under each condition, its change to the unedited model, and what it is more than with control neurons off.",
            TABLE,
            file="eval/tasks.parquet",
            added=("less_control", "less_control_low", "less_control_high"),
        ),
        "documents": Table("The same, document by document.", DOCUMENTS, file="eval/documents.parquet"),
    },
    needs=(MODEL, SUMS, named("tasks", "no tasks of lm-eval were named (--tasks belebele_*)", "--tasks NAMES")),
    study="asked",
    command="lape eval {run} --tasks NAMES",
)
