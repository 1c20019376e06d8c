"""What an observer is: one quantity that is recorded beside counts and sums of activations, with all that recording it takes.

A new one is a file beside this one, with one `OBSERVER`, and its name in the list of `lape.recording.observers`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from torch import Tensor, nn

from lape.data.corpus import Corpus
from lape.data.windows import Batch
from lape.model.site import Sites
from lape.options import separated
from lape.progress import Progress, shown
from lape.recording.engine import RecordOptions
from lape.values.quantity import Quantity

Way: TypeAlias = Literal["shards", "ray", "parallel"]
"""How a recording can be run: in shards; by Ray's workers; shared out by tensor parallelism."""
ALSO = "also"
"""The option that names observers without an option of their own."""


@dataclass(frozen=True)
class Setting:
    """What an observer is told of a recording.

    It goes by `found.space` alone, whose stretches are the units that pass one site together, whatever these units are: nothing here asks what
    a site is a part of.

    Example:
        >>> from lape.model.find import find
        >>> from lape.recording.engine import RecordOptions
        >>> from lape.recording.observers.observer import Setting
        >>> setting = Setting(model, find(model), RecordOptions(residual=True))
        >>> len(setting.found.space), setting.options.row_tokens
        (2800, 512)
        >>> setting.progress("looking at gradients", 1, 10)
    """

    model: nn.Module
    found: Sites
    options: RecordOptions
    corpus: Corpus | None = None
    """The language's text; None where whoever runs the batches has only these."""
    progress: Progress = shown
    tuned: Mapping[str, Any] = field(default_factory=dict)
    """Language -> how far tuning moved the neurons' weights (`lape.recording.weight_change`)."""


class Watcher(Protocol):
    """Something that watches a model while it reads one language.

    Example:
        >>> import torch
        >>> from lape.data.windows import Batch
        >>> from lape.model.find import find
        >>> from lape.recording.engine import RecordOptions
        >>> from lape.recording.observers import residual
        >>> from lape.recording.observers.observer import Setting
        >>> watcher = residual.OBSERVER.watch(Setting(model, find(model), RecordOptions(residual=True)))
        >>> ids = tokenizer("en02 en03", return_tensors="pt").input_ids
        >>> batch = Batch(ids, None, source=torch.tensor([[-1, 0, 1]]), fold=torch.tensor([[-1, 0, 0]]))
        >>> with watcher.attached(), torch.no_grad():
        ...     watcher.count(batch)
        ...     hidden = model.model(ids)
        >>> watcher.result()["residual"].shape
        torch.Size([2, 64])
        >>> watcher.restore(watcher.state())
    """

    def attached(self) -> AbstractContextManager[None]:
        """While inside, every forward that follows `count` is recorded."""

    def count(self, one: Batch) -> None:
        """Say what the next forward reads."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps. Default: the same as `result`."""
        return self.result()

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` gave."""

    def result(self) -> dict[str, Tensor]:
        """What `LanguageStats` keeps."""


@dataclass(frozen=True)
class Observer:
    """A recorded quantity: what asks for it, which tensors it adds to a language's statistics, and how it comes by them.

    Example:
        >>> from lape.model.hooks import at_product
        >>> from lape.recording.engine import RecordOptions
        >>> from lape.recording.observers.observer import Observer
        >>> from lape.recording.observers.sums import Sums
        >>> from lape.values.quantity import Quantity
        >>> def watch(setting):
        ...     return Sums(setting, ("fourth",), lambda x: x.pow(4).sum(0, keepdim=True), at_product)
        >>> about = "The sum of the written activation's fourth power."
        >>> observer = Observer("fourth", about, (Quantity("fourth", ("neurons",)),), watch=watch)
        >>> observer.asking, observer.asked(RecordOptions(also="fourth")), observer.asked(RecordOptions())
        ('also fourth', True, False)
    """

    name: str
    about: str
    """What it is, in one sentence."""
    tensors: tuple[Quantity, ...]
    option: str | None = ALSO
    """The field of `RecordOptions` (or `tuned`) that asks for it; `also`: its name stands in that one; None: nothing need ask for it."""
    watch: Callable[[Setting], Watcher] | None = None
    """Counts batch by batch; made anew for every language."""
    after: Callable[[Setting], dict[str, Tensor]] | None = None
    """Gives its tensors once a language's batches are counted; in one process that holds the model."""
    check: Callable[[nn.Module], None] | None = None
    """Refuses a model before anything is counted."""
    refused: Mapping[Way, str] = field(default_factory=dict)
    """What it can't be recorded in, and what is said then, after the option's name."""

    @property
    def asking(self) -> str:
        """The option that asks for it, as messages name it."""
        return f"{ALSO} {self.name}" if self.option == ALSO else self.option or self.name

    def asked(self, options: RecordOptions, *, tuned: bool = False) -> bool:
        """Whether it is to be recorded."""
        if self.option == ALSO:
            return self.name in named(options)
        return self.option is None or {**vars(options), "tuned": tuned}[self.option] not in (None, False)


def named(options: RecordOptions) -> list[str]:
    """The names in `also`."""
    return separated(options.also)


SAID: dict[Way, str] = {
    "shards": "cannot be recorded in shards. Leave it out, or leave out shard.",
    "ray": "is for one process. Leave it out, or leave out engine ray.",
    "parallel": "needs a model that one process holds. Leave it out.",
}
"""What is said of an option that does not go with a way of recording."""


def unless(*ways: Way) -> dict[Way, str]:
    """What is said in ways in which an observer can't be recorded."""
    return {way: SAID[way] for way in ways}
