"""Experiments: one file or folder for each question, with all that is said of it. They never import one another."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from itertools import chain
from typing import TYPE_CHECKING, Any

from lape.plugins import added, by_name

if TYPE_CHECKING:
    from lape.experiments.experiment import Experiment

NAMES = (
    "layers",
    "perplexity",
    "frontier",
    "sweep",
    "similarity",
    "amount",
    "domain",
    "languages",
    "resource",
    "overlap",
    "sufficiency",
    "necessity",
    "generation",
    "forcing",
    "confusion",
    "examples",
    "harness",
)
"""The modules of this package that hold one, in the order in which a study runs them and a report shows them."""


@cache
def experiments() -> dict[str, Experiment[Any]]:
    """Every experiment by its name: those here, and those of other packages' entry points in the group `lape.experiments`.

    Gives name -> `lape.experiments.experiment.Experiment`, in the order in which a study runs them.

    Example:
        >>> from lape.experiments import experiments
        >>> experiments()["layers"].about
        'where the neurons lie'
    """
    from lape.experiments.experiment import Experiment

    ours = (import_module(f"{__name__}.{name}").EXPERIMENT for name in NAMES)
    return by_name(chain(ours, added(__name__, Experiment)), "experiments")
