"""Which experts of a mixture a language's tokens go to."""

from __future__ import annotations

from lape.experiments.context import Context, Tables
from lape.experiments.experiment import Experiment, Need, NoOptions
from lape.experiments.routing.run import EXPERTS, affinity
from lape.experiments.table import Table

__all__ = ["EXPERIMENT", "affinity"]


def _missing(context: Context, _options: NoOptions) -> str | None:
    routed = any(stretch.expert is not None for stretch in context.stats.space)
    return None if routed else "this model has no routed experts"


def _run(context: Context, _options: NoOptions) -> Tables:
    return {"experts": affinity(context.stats)}


EXPERIMENT = Experiment(
    name="routing",
    title="Experts",
    about="which experts a language's tokens go to",
    options=NoOptions,
    run=_run,
    tables={
        "experts": Table(
            "Share of a language's tokens that the router sends to each expert.", EXPERTS, file="experts.parquet"
        )
    },
    needs=(Need(_missing),),
    study="asked",
    command="lape show {run} --experts",
)
