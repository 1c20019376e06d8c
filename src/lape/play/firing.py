"""Which share of each language's neurons fires on each token, watched while a model generates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lape.model.body import unwrapped
from lape.model.hooks import Rows, hooked, watching
from lape.model.scope import Put
from lape.model.site import Sites
from lape.values.neurons import LanguageNeurons


@dataclass(frozen=True)
class Read:
    """A token that the model has read."""

    id: int
    shares: tuple[float, ...]
    """For each language, the share of its neurons whose activation is above 0 on this token; 0 to 1."""


class Firing:
    """Watches a model that generates one row.

    What is watched are the forwards that write the answer, so nothing runs twice, and a token's shares are those of the very
    state that the next token came from. Hooks run in the order they were put: entered before an edit, it sees an activation as
    the model computed it, not as the edit left it (which would count a neuron that is set as firing). Layers below may have
    been edited, and earlier tokens too: that is the state of a steered model.
    """

    def __init__(self, model: nn.Module, found: Sites, neurons: LanguageNeurons, languages: Sequence[str]) -> None:
        """`languages`: those whose neurons are counted; each must have some."""
        self._model = unwrapped(model)
        self._sizes = [len(neurons[language]) for language in languages]
        inside = [found.space.split(neurons[language].flat) for language in languages]
        positions = sorted({position for one in inside for position in one})
        self._sites = [found.sites[position] for position in positions]
        none = torch.empty(0, dtype=torch.int64)
        self._groups = [_Group([one.get(position, none) for one in inside]) for position in positions]
        self._ids: list[int] = []
        self._fires = torch.empty(0)
        self.read: list[Read] = []
        """The tokens read so far, those of the prompt first."""

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While inside, every token that the model reads for the caller is noted."""
        begin = Put(self._model.register_forward_pre_hook, self._begin, with_kwargs=True)
        with (
            hooked(self._model, [begin, Put(self._model.register_forward_hook, self._end)], isolated=True),
            watching(self._model, self._sites, self._see, isolated=True),
        ):
            yield

    def _begin(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids: Tensor = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        self._ids = ids[0].tolist()
        self._fires = torch.zeros(len(self._ids), len(self._sizes), device=ids.device)
        if len(self._ids) > 1:  # a prompt, or a model without a cache that reads everything again
            self.read = []

    def _see(self, k: int, activation: Tensor, rows: Rows) -> None:
        fires = self._groups[k].fires(activation.detach().flatten(0, -2)).to(self._fires.device)
        if rows is None:
            self._fires += fires
        else:
            self._fires.index_add_(0, rows.to(self._fires.device), fires)

    def _end(self, *_: Any) -> None:
        shares = (self._fires.double().cpu() / torch.tensor(self._sizes)).tolist()
        self.read = [*self.read, *(Read(one, tuple(of)) for one, of in zip(self._ids, shares, strict=True))]


class _Group:
    """The neurons of one site that belong to any language."""

    def __init__(self, inside: Sequence[Tensor]) -> None:
        """`inside`: for each language its neurons of this site."""
        self._columns = torch.unique(torch.cat(list(inside)))
        self._member = torch.stack([torch.isin(self._columns, one) for one in inside], 1).float()

    def fires(self, activation: Tensor) -> Tensor:
        """(tokens, width) -> (tokens, languages) how many of each language's neurons fire."""
        if self._columns.device != activation.device:
            self._columns, self._member = self._columns.to(activation.device), self._member.to(activation.device)
        return (activation[:, self._columns] > 0).float() @ self._member
