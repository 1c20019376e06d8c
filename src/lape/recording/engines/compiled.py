"""Counting inside the graph that `torch.compile` makes of a model's body: as `Reader`, and faster where there is much text."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lape.data.corpus import FOLDS, Corpus
from lape.data.windows import Batch, batch
from lape.errors import ModelError
from lape.model.body import body, device_of
from lape.model.compiled import Choice, Fixed, Weighing, why_not
from lape.model.hooks import Rows, change, held, reset_compile_cache
from lape.model.numerics import summed_in
from lape.model.site import Sites
from lape.recording.counter import Recorder
from lape.recording.engine import RecordOptions, Work, tokens_in
from lape.recording.observers import asked as observed
from lape.recording.reader import Reader

_CHUNK = 128
"""Tokens whose counts of all folds are added up in one 64-bit number, 8 bits a fold: at most 255."""
_NEAR = {torch.float64: 1e-4, torch.float32: 1e-3}
"""How far counts of one batch may lie from those of the model as it is, as a share: rounding only. 0.1 in half precision."""


class CompiledRecorder(Recorder):
    """Counts and sums in tensors that are there before the first forward and stay in their place, as a graph needs them."""

    def __init__(self, model: nn.Module, found: Sites, rows: int, length: int) -> None:
        super().__init__(model, found)
        device = device_of(model)
        self._chunk = math.gcd(length, _CHUNK)
        self._lane = torch.zeros(rows * length, 1, dtype=torch.int64, device=device)
        """What a token adds to its neuron's packed count: 1 in the 8 bits of its fold, or 0 where it does not count."""
        self._counted = torch.zeros(rows * length, 1, dtype=torch.bool, device=device)
        self._fires = [one.to(device) for one in self._fires]
        self._sums = [one.to(device) for one in self._sums]
        self._calls = self._calls.to(device)

    @contextmanager
    def attached(self) -> Iterator[Recorder]:
        """While inside, a graph that is made counts; one that was made before goes on as it is."""
        sites = enumerate(self.found.sites)
        with held([handle for k, site in sites for handle in change(self.model, site, self._seer(k))], in_graph=True):
            yield self

    def count(self, fold: Tensor) -> None:
        """Say which fold each token of the next forward counts in."""
        super().count(fold)
        counted = self._fold >= 0
        lane = torch.where(counted, torch.ones_like(self._fold) << (8 * self._fold.clamp_min(0)), 0)
        self._lane.copy_(lane[:, None], non_blocking=True)
        self._counted.copy_(counted[:, None], non_blocking=True)

    def _seer(self, k: int) -> Any:
        fires, sums, calls, width = self._fires[k], self._sums[k], self._calls[k : k + 1], self.found.sites[k].width
        lane, counted, chunk = self._lane, self._counted, self._chunk
        shifts = [8 * fold for fold in range(FOLDS)]

        def see(a: Tensor, _rows: Rows) -> None:
            a = a.detach().reshape(-1, width)
            packed = torch.where(a > 0, lane, 0).view(-1, chunk, width).sum(1)
            fires.add_(torch.stack([((packed >> shift) & 255).sum(0) for shift in shifts]))
            x = torch.where(counted, a.to(summed_in(a)), 0)
            sums.add_(torch.stack([x.sum(0), x.square().sum(0), x.clamp_min(0).sum(0)]))
            calls.add_(1)

        return see


class CompiledReader(Reader):
    """A `Reader` of many languages, one after the other, whose batches all have one shape."""

    def __init__(self, model: Any, found: Sites, options: RecordOptions) -> None:
        self._found, self._options = found, options
        self._fixed = Fixed(model, found, options)
        shape = self._fixed.rows, self._fixed.length
        super().__init__(model, found, options, None, CompiledRecorder(model, found, *shape), shape)
        self._run = torch.compile(self._in_graph, dynamic=False)
        reset_compile_cache()

    def _in_graph(self, ids: Tensor, positions: Tensor | None) -> None:
        """Nothing is returned, so that what no count depends on is not computed."""
        self._fixed.forward(ids, positions)

    def proven(self, one: Batch) -> CompiledReader:
        """Itself, after a batch with and without the graph. Raises whatever torch raises, and ModelError where counts differ by more than rounding."""
        plain = Reader(self._model, self._found, self._options, None)
        for reader in (plain, self):
            with reader.attached():
                reader.read(one)
        ours, expected = self.result(), plain.result()
        self.restore({})
        near = _NEAR.get(next(body(self._model).parameters()).dtype, 0.1)
        for name, tensor in expected.items():
            off = (ours[name].double() - tensor.double()).abs().sum() / tensor.double().abs().sum().clamp_min(1e-30)
            if float(off) > near:
                raise ModelError(f"its counts are off by a share of {float(off):.2g} ({name})")
        return self

    def read(self, one: Batch) -> None:
        """Run a batch and count."""
        super().read(dataclasses.replace(one, fold=self._fixed.padded(one.fold, -1)))

    def _forward(self, one: Batch) -> None:
        self._run(*self._fixed.arguments(one))


class Readers:
    """Readers of one language after the other: one for all where it is compiled, since that takes a while."""

    def __init__(self, model: Any, found: Sites, options: RecordOptions, choice: Choice) -> None:
        self._given, self.choice = (model, found, options), choice
        """`choice`: as it turned out in the end."""
        self._weighing = Weighing("Recording", *self._given)
        self._compiled: CompiledReader | None = None

    def choose(self, every: Mapping[str, Work]) -> None:
        """Settle whether to compile; one line in the log where the options say so and it can't be."""
        model, found, options = self._given
        tokens = sum(tokens_in(work.every) for work in every.values())
        first = next((batch(work.corpus, work.every[0]) for work in every.values() if work.every), None)

        def plain() -> None:
            if first is not None:
                _read(first, Reader(model, found, options, None))

        self.choice = self._weighing.choice(
            options.compile,
            lambda: ((work.corpus, work.every) for work in every.values()),
            tokens,
            partial(why_none, model, found, options),
            plain,
            alike=options.shard is not None,
        )

    def reader(self, corpus: Corpus | None, first: Batch | None) -> Reader:
        """One that has counted nothing. Where `first`, a batch like those to come, shows that compiling fails, counts otherwise than the
        model does, or is no faster, it goes on without.
        """
        if self.choice.graph and self._compiled is None and first is not None:
            self._compiled, instead = self._weighing.made(
                lambda: CompiledReader(*self._given).proven(first), partial(_read, first)
            )
            self.choice = instead or self.choice
        if self._compiled is None:
            return Reader(*self._given, corpus)
        self._compiled.restore({})
        return self._compiled


def _read(one: Batch, reader: Reader) -> None:
    with reader.attached():
        reader.read(one)


def why_none(model: Any, found: Sites, options: RecordOptions) -> str | None:
    """What of a model or of the options keeps recording from being compiled, in words; None where nothing does."""
    unable = [f"{one.asking} {one.refused['graph']}" for one in observed(options) if "graph" in one.refused]
    return unable[0] if unable else why_not(model, found)
