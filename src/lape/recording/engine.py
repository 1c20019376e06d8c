"""What a recording asks of whoever runs its batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from lape.data.corpus import Corpus, Row
from lape.errors import OptionError
from lape.model.body import check_fits
from lape.options import RecordOptions
from lape.values.space import NeuronSpace

RECORDED = "a recorded language"
"""What the file of a language that is done says it is."""
GROUPS = "groups"
"""The folder, in a run's, of what an engine counted group by group."""


@dataclass(frozen=True)
class Work:
    """One language's text, and which batches of it are to be counted."""

    corpus: Corpus
    batches: list[list[Row]]
    every: list[list[Row]]
    """All batches of the language: the same, but where this is a shard of a run."""

    @property
    def tokens(self) -> int:
        """In those batches, special ones included."""
        return tokens_in(self.batches)


def tokens_in(batches: list[list[Row]]) -> int:
    """Special ones included."""
    return sum(segment.length for some in batches for row in some for segment in row)


def refuse(options: RecordOptions, *names: str, why: str) -> None:
    """Refuse options that an engine cannot do: the first of the named ones that is given, with the reason. Raises OptionError."""
    for name in names:
        if getattr(options, name) not in (None, False):
            raise OptionError(f"{name} {why}")


def check_texts(model: Any, options: RecordOptions, every: Mapping[str, Work]) -> None:
    """Refuse rows and ids that a model has no place for. Raises OptionError or ModelError."""
    for work in every.values():
        check_fits(model, options.row_tokens, int(work.corpus.tokens.max()))


class Engine(Protocol):
    """Runs batches. What it has counted it keeps in the run's folder, and goes on from there when it was stopped."""

    space: NeuronSpace
    packs: bool
    """Whether position ids that restart keep documents in one row apart."""
    manifest: dict[str, Any]
    """Which model and tokenizer (`lape.model.load.describe`)."""
    about: dict[str, Any]
    """What else a stopped run must share with the one that goes on."""

    def begin(self, every: Mapping[str, Work]) -> None:
        """Told once what all languages need, before the first is counted. Raises where the text does not fit the model."""

    def count(self, work: Work) -> dict[str, Tensor]:
        """What `LanguageStats` keeps of some batches. Raises ModelError for activations that are not finite."""

    def rest(self, corpus: Corpus, /) -> dict[str, Tensor]:
        """What `LanguageStats` keeps that is not counted batch by batch."""
