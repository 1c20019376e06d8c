"""What a recording asks of whoever runs its batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from lape.data.corpus import Corpus, TextOptions
from lape.data.windows import Row
from lape.errors import OptionError
from lape.model.body import check_fits
from lape.options import Positive, Tokens, UpToOne
from lape.store.shards import Shard
from lape.values.space import NeuronSpace

RECORDED = "a recorded language"
"""What the file of a language that is done says it is."""
GROUPS = "groups"
"""The folder, in a run's, of what an engine counted group by group."""


@dataclass(frozen=True)
class RecordOptions(TextOptions):
    """How activations are recorded."""

    residual: bool = False
    """Record also the sums of the residual stream after every layer."""
    attribution: Tokens | None = None
    """Record also first-order attributions, activation × gradient of the loss, by a backward pass over this many tokens of each language."""
    per_text: bool = False
    """Record also the mean activations of single texts, which the method ap reads: documents, or chunks where there are under 64."""
    most_texts: Positive = 200
    """At most so many texts of each language, evenly spread, have their means kept."""
    histogram: bool = False
    """Record also a histogram of every neuron's activations, which the method probability90 reads."""
    also: str | None = None
    """Record also these, by name, with commas between: quantities that have no option of their own."""
    until: UpToOne | None = None
    """Stop recording, all languages together, once the sets found in two halves of the text have this median Jaccard in each, such as 0.85."""
    shard: str | None = None
    """Record only a part of the batches of every language, such as 3/16, the third of sixteen; lape merge adds them up."""
    checkpoint_seconds: float = 60.0
    """Save the state of a run this often, so that a killed one can go on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shard is not None and self.until is not None:
            raise OptionError(
                "until looks at all languages and all their text at once, a shard at a part. Give one of them."
            )
        if self.shard is not None:
            Shard.parse(self.shard)


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


def part_of(options: RecordOptions) -> Shard:
    """Which batches are recorded: those of the shard, or without one all."""
    return Shard.parse(options.shard or "1/1")


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
    """Which model and tokenizer (`lape.model.identity.describe`)."""
    about: dict[str, Any]
    """What else a stopped run must share with the one that goes on."""

    def begin(self, every: Mapping[str, Work]) -> None:
        """Told once what all languages need, before the first is counted. Raises where the text does not fit the model."""

    def count(self, work: Work) -> dict[str, Tensor]:
        """What `LanguageStats` keeps of some batches. Raises ModelError for activations that are not finite."""

    def rest(self, _corpus: Corpus, /) -> dict[str, Tensor]:
        """What `LanguageStats` keeps that is not counted batch by batch. Default: nothing, where what would be kept is refused."""
        return {}
