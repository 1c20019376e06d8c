"""Is it the language that moves a neuron's weights, or chance? Two seeds of one language beside two languages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lape.data.languages import paths_by_tag
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import MODEL, Experiment, Need, named
from lape.experiments.seeds.run import CONTROL, control
from lape.experiments.table import Table
from lape.recording.weight_change import weight_changes

__all__ = ["EXPERIMENT", "control"]


@dataclass(frozen=True)
class SeedsStudy:
    """What of it a study sets."""

    second_seed: tuple[str, ...] = ()
    """TAG=PATH, once per language: a checkpoint tuned on the language again, with another seed than the one that was recorded."""

    @property
    def checkpoints(self) -> dict[str, Any]:
        """Language -> its checkpoint. Raises TextError for what names none."""
        return dict(paths_by_tag("second_seed", self.second_seed, "fr=french-seed-2"))


GIVEN = named(
    "second_seed", "no checkpoint of a second seed was named (--second-seed TAG=PATH)", "--second-seed TAG=PATH"
)


def _untuned(context: Context, _options: SeedsStudy) -> str | None:
    recorded = any("variation" in context.stats[language].tensors for language in context.languages)
    return None if recorded else "no tuned checkpoints were recorded (lape record --tuned TAG=PATH)"


def _run(context: Context, options: SeedsStudy) -> Tables:
    return {"seeds": control(context.stats, weight_changes(context.model, options.checkpoints))}


EXPERIMENT = Experiment(
    name="seeds",
    title="Seeds of tuned checkpoints",
    about="two seeds of one language beside two languages",
    options=SeedsStudy,
    run=_run,
    tables={"seeds": Table("How alike two seeds of one language are, beside two languages.", CONTROL)},
    needs=(MODEL, GIVEN, Need(_untuned)),
    study="asked",
)
