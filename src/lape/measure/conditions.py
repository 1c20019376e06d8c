"""The conditions in which a task is run for a language's neurons: off, steered, and matched control neurons off."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from lape.data.languages import tag
from lape.edit.edit import Edit, Off
from lape.edit.steer import PUBLISHED, SteerOptions, steered, steering
from lape.measure.controls import control, energy_ratio, seeded
from lape.model.find import find
from lape.model.weights import all_down_norms
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, eq=False)
class Condition:
    """One way the model is run."""

    name: str
    """none, off, steered or control."""
    draw: int = 0
    """Which draw of control neurons; 0 for all else."""
    edits: tuple[Edit, ...] = ()
    where: SteerOptions = PUBLISHED
    """Its `tokens`, `first` and `fade` say where the edits act."""
    energy_ratio: float | None = None
    """Of a control: the written energy of the language's own set over that of these neurons."""

    def on(self, model: nn.Module) -> AbstractContextManager[nn.Module]:
        """While inside, the model is in this condition."""
        return steered(model, self.edits, self.where)


NONE = Condition("none")
"""The unedited model."""


def conditions(
    model: nn.Module,
    neurons: LanguageNeurons,
    stats: ActivationStats,
    language: str,
    *,
    steer: SteerOptions | None,
    draws: int,
    seed: int,
) -> tuple[list[Condition], list[str]]:
    """The conditions of a language's own neurons, all but `NONE`, and why any were left out.

    off: its neurons at 0. steered: its neurons set or added to, as `lape.edit.steer.steering` does without a source; only where
    `steer` is given. control: as many other neurons at 0, in the same layers the nearest in written energy in the language.
    Raises TextError for a language that has no sets or was not recorded, OptionError for statistics without sums.
    """
    own = neurons[language]
    if not len(own):
        return [], [f"{language} has no neurons here: nothing was switched off for it."]
    found = [Condition("off", edits=(Off(own),))]
    if steer is not None:
        edits = steering(neurons, stats, steer, to=language)
        found.append(Condition("steered", edits=tuple(edits), where=steer))
    by = energy(model, stats, language)
    number = list(neurons).index(tag(language))
    for draw in range(draws):
        others, why = control(own, neurons.union, by, seeded(seed, number, draw))
        if others is None:
            return found, [f"{language} has no control: {why}"]
        ratio = energy_ratio(own, others, by)
        found.append(Condition("control", draw, (Off(others),), energy_ratio=ratio))
    return found, []


def energy(model: PreTrainedModel | nn.Module, stats: ActivationStats, language: str) -> Tensor:
    """(neurons,) float64: E[(a·u)²]·‖down column‖² in a language, by which control neurons are matched."""
    return stats.written_energy(language) * all_down_norms(model, find(model))
