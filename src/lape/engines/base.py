"""What a recording asks of whoever runs its batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from lape.corpus import Corpus, Row
from lape.space import NeuronSpace

RECORDED = "a recorded language"
"""What the file of a language that is done says it is."""


@dataclass(frozen=True)
class Work:
    """One language's text, and which batches of it are to be counted."""

    corpus: Corpus
    batches: list[list[Row]]


class Engine(Protocol):
    """Runs batches. What it has counted it keeps in the run's folder, and goes on from there when it was stopped."""

    space: NeuronSpace
    packs: bool
    """Whether position ids that restart keep documents in one row apart."""
    manifest: dict[str, Any]
    """Which model and tokenizer (`lape.models.describe`)."""
    about: dict[str, Any]
    """What else a stopped run must share with the one that goes on."""

    def begin(self, every: Mapping[str, Work]) -> None:
        """Told once what all languages need, before the first is counted. Raises where the text does not fit the model."""

    def count(self, work: Work) -> dict[str, Tensor]:
        """What `LanguageStats` keeps of some batches. Raises ModelError for activations that are not finite."""

    def rest(self, corpus: Corpus) -> dict[str, Tensor]:
        """What `LanguageStats` keeps that is not counted batch by batch."""
