"""What is run as one graph that `torch.compile` makes: batches of one shape, and when making a graph pays."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from lape.data.corpus import Corpus, TextOptions
from lape.data.windows import Batch, Row, at_once, longest
from lape.model.body import device_of, hidden_states, is_shared_out, unwrapped
from lape.model.hooks import reset_compile_cache
from lape.model.site import Sites

T = TypeVar("T")
_log = logging.getLogger("lape")
LEAST = {"cpu": 500_000, "cuda": 10_000_000}
"""Tokens from which on a graph wins back the time that making it takes (half a minute on two CPU cores, for a model of 270M)."""
_FULL = 0.9
"""Share of the fixed shape that batches of no fixed shape must have on average, or else those are faster."""


class Fixed:
    """The one shape that all batches get, and how they run in it."""

    def __init__(self, model: nn.Module, found: Sites, options: TextOptions) -> None:
        self._model = model
        self.rows, self.length = _shape(options)
        self._positions = found.packs and not options.one_per_row
        self.device = device_of(model)

    def padded(self, some: Tensor, beyond: int | Tensor) -> Tensor:
        """(rows, tokens) of a batch in the one shape, with `beyond` where there is no text."""
        whole = torch.full((self.rows, self.length), beyond) if isinstance(beyond, int) else beyond.clone()
        whole[: some.shape[0], : some.shape[1]] = some
        return whole

    def arguments(self, one: Batch) -> tuple[Tensor, Tensor | None]:
        """Ids and position ids, on the model's device."""
        ids = self.padded(one.input_ids, 0).to(self.device, non_blocking=True)
        if not self._positions:
            return ids, None
        usual = torch.arange(self.length).repeat(self.rows, 1)
        positions = usual if one.position_ids is None else self.padded(one.position_ids, usual)
        return ids, positions.to(self.device, non_blocking=True)

    def forward(self, ids: Tensor, positions: Tensor | None) -> Tensor:
        """(rows, tokens, width) hidden states."""
        return hidden_states(self._model, ids, **({} if positions is None else {"position_ids": positions}))


def _shape(options: TextOptions) -> tuple[int, int]:
    return at_once(options), -(-options.row_tokens // 16) * 16


def why_not(model: nn.Module, found: Sites) -> str | None:
    """What of a model keeps it from being run as one graph, in words; None where nothing does."""
    if any(site.layout is not None for site in found.sites):
        return "the model has experts"
    if getattr(unwrapped(model), "is_quantized", False):
        return "the model is quantised"
    if is_shared_out(model):
        return "several processes hold the model"
    devices = {parameter.device for parameter in unwrapped(model).parameters()}
    if len(devices) > 1 or hasattr(unwrapped(model), "hf_device_map"):
        return "the model lies on several devices"
    device = devices.pop().type
    return None if device in LEAST else f"torch.compile is not used on {device}"


def pays(model: nn.Module, options: TextOptions, tokens: int, every: Iterable[tuple[Corpus, list[list[Row]]]]) -> bool:
    """Whether so many tokens, in batches such as these, are run faster as a graph, with the time that making it takes."""
    if tokens < LEAST.get(device_of(model).type, math.inf):
        return False
    rows, length = _shape(options)
    run = room = 0
    for corpus, some in every:
        run += sum(len(one) * longest(corpus, one) for one in some)
        room += len(some) * rows * length
    return run >= _FULL * room


def settled(what: str, mode: str, paying: Callable[[], bool], unable: Callable[[], str | None]) -> bool:
    """Whether a graph is to be made: with `mode` "on", or "auto" where it pays. One line in the log where it is on and can't be made.

    `unable`: what keeps it from being made, in words.
    """
    if mode == "off" or (mode == "auto" and not paying()):
        return False
    why = unable()
    if why and mode == "on":
        _say(what, why)
    return why is None


def proven(what: str, make: Callable[[], T]) -> T | None:
    """What `make` makes and proves. None, and one line in the log, where that fails."""
    try:
        return make()
    except Exception as error:  # whatever a compiler raises
        reset_compile_cache()
        _say(what, next(iter(str(error).strip().splitlines()), type(error).__name__))
        return None


def _say(what: str, why: str) -> None:
    _log.warning("%s goes on without torch.compile: %s", what, why)
