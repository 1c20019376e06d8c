"""One thought: the passages of text in which each neuron fires most, found in one pass in which memory does not grow with the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from lape.data.corpus import Corpus, Ints, TextOptions
from lape.data.windows import Batch, Row, batch, batches
from lape.errors import ModelError
from lape.experiments.examples.pieces import window_pieces
from lape.model.body import evaluating, run_batch
from lape.model.find import find
from lape.model.hooks import Rows, watching
from lape.model.numerics import check_finite
from lape.model.site import Sites
from lape.options import NotNegative, Positive, Tokens, within
from lape.progress import Progress, each, shown
from lape.values.neurons import NeuronSet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONTEXTS: dict[str, Any] = {
    **dict.fromkeys(("flat", "rank"), pl.Int64),
    "value": pl.Float32,
    "language": pl.String,
    **dict.fromkeys(("document", "start"), pl.Int64),
    "pieces": pl.List(pl.String),
    "activations": pl.List(pl.Float32),
}
"""A row per neuron and context: `flat` (index of the neuron), `rank` (0 is the highest), `value` (the largest activation), `language` and `document`
of the text, `start` (position of the first token in the language's text), `pieces` (the text of each token), `activations` (of each token; 0
for one that does not count or was not sent to the neuron's expert).
"""
_POSITION, _LENGTH = 40, 8
"""Bits of a window's number for its first token's position in the corpus and for its tokens, less one; the language stands above them."""
_NONE = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class ExamplesOptions(TextOptions):
    """What is looked up for each neuron."""

    keep: Annotated[int, within(1, 20)] = 20
    """Contexts kept of each neuron, at most 20."""
    length: Annotated[int, within(1, 256)] = 32
    """Tokens of a context."""
    effects: NotNegative = 10
    """Neurons of each language, those of lowest entropy, that are switched off one by one; 0: none."""
    effect_tokens: Tokens = 1000
    """At most this many tokens of each language on which these effects are measured."""
    resamples: Positive = 2000
    """Bootstrap resamples of the units of text behind the 95 % intervals."""
    seed: int = 0
    """Seed of the control neurons and the bootstrap."""
    allow_recorded: bool = False
    """Read even text that the neurons were found in."""


def contexts(
    model: PreTrainedModel | nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    corpora: Mapping[str, Corpus],
    chosen: NeuronSet,
    options: ExamplesOptions,
    progress: Progress = shown,
) -> pl.DataFrame:
    """The `options.keep` windows of text in which each chosen neuron's activation is highest: `CONTEXTS`, one row each.

    Every segment of a row is cut into windows of `options.length` tokens from its start on. A window's value is the largest
    activation on its counted tokens, compared in float32; those above 0 are kept, the earlier one first where values are equal
    (languages in the order given, then by position), so that they do not depend on how rows are put into batches.

    Pieces are those of `lape.experiments.examples.pieces`. Raises ModelError where an activation is no number.
    """
    watcher = Watcher(model, chosen, options)
    packs = find(model).packs
    with torch.inference_mode(), evaluating(model), watcher.attached():
        for number, corpus in enumerate(corpora.values()):
            for some in each(batches(corpus, options, packs=packs), f"reading {corpus.language}", progress):
                one = batch(corpus, some)
                watcher.expect(one, some, number)
                run_batch(model, one)
    return _table(watcher.result(), tokenizer, corpora)


@dataclass(frozen=True)
class _Windows:
    """The windows of a batch, on one device."""

    number: Tensor
    """(windows,) int64: language, position and length in one, ordered as the text is."""
    place: Tensor
    """(windows, length) int64: each token's place in the flattened batch, that after the last one where there is none."""
    uncounted: Tensor
    """Places of tokens that do not count."""
    tokens: int
    """Of the flattened batch."""

    def on(self, device: torch.device) -> _Windows:
        """The same on another device."""
        return _Windows(self.number.to(device), self.place.to(device), self.uncounted.to(device), self.tokens)


def windows(one: Batch, some: Sequence[Row], language: int, length: int) -> _Windows:
    """Cut a batch's segments into windows of at most `length` tokens."""
    segments = [segment for row in some for segment in row]
    starts = np.concatenate([np.arange(s.start, s.start + s.length, length) for s in segments])
    stops = np.repeat([s.start + s.length for s in segments], [-(-s.length // length) for s in segments])
    sizes = np.minimum(stops - starts, length)
    source = one.source.flatten().numpy()
    order = source.argsort(kind="stable")
    first = order[np.searchsorted(source[order], starts)]
    within = np.arange(length)
    place = np.where(within < sizes[:, None], first[:, None] + within, len(source))
    number = (language << _POSITION | starts) << _LENGTH | (sizes - 1)
    uncounted = torch.nonzero(one.fold.flatten() < 0)[:, 0]
    return _Windows(torch.from_numpy(number), torch.from_numpy(place), uncounted, len(source))


class Best:
    """The windows with the highest values of some neurons of a site, so far."""

    def __init__(self, neurons: int, keep: int, length: int, like: Tensor) -> None:
        self.values = torch.zeros(keep, neurons, device=like.device)
        self.numbers = torch.full((keep, neurons), _NONE, device=like.device)
        dtype = like.dtype if like.element_size() == 2 else torch.float32
        self.activations = torch.zeros(keep, neurons, length, dtype=dtype, device=like.device)

    def take(self, numbers: Tensor, activations: Tensor) -> None:
        """Let the windows of a batch, (windows,) numbers and (windows, neurons, length) activations, compete with those kept."""
        new = (
            activations.amax(2).float().nan_to_num_(nan=torch.inf, posinf=torch.inf).clamp_min_(0)
        )  # no number comes to light at the end
        values = torch.cat([self.values, new])
        numbers = torch.cat([self.numbers, numbers[:, None].expand(new.shape)])
        order = numbers.argsort(0)
        order = order.gather(0, values.gather(0, order).argsort(dim=0, descending=True, stable=True))[
            : len(self.values)
        ]
        self.values, self.numbers = values.gather(0, order), numbers.gather(0, order)
        wide = order[..., None].expand(self.activations.shape)
        self.activations = torch.cat([self.activations, activations]).gather(0, wide)


class Watcher:
    """Keeps each neuron's best windows where its activations are; what it keeps has one size from the first batch on."""

    def __init__(self, model: PreTrainedModel | nn.Module, chosen: NeuronSet, options: ExamplesOptions) -> None:
        found: Sites = find(model)
        self.best: dict[int, Best] = {}
        self._model, self._found, self._options = model, found, options
        self._local = found.space.split(chosen.flat)
        self._at = list(self._local)
        self._calls, self._forwards = [0] * len(self._at), 0
        self._windows: dict[torch.device, _Windows] = {}

    def attached(self) -> AbstractContextManager[None]:
        """While inside, every forward that follows `expect` is looked at."""
        return watching(self._model, [self._found.sites[k] for k in self._at], self._see)

    def expect(self, one: Batch, some: Sequence[Row], language: int) -> None:
        """Say what the next forward reads."""
        self._forwards += 1
        self._windows = {torch.device("cpu"): windows(one, some, language, self._options.length)}

    def _see(self, k: int, activation: Tensor, rows: Rows) -> None:
        a, at = activation.detach().flatten(0, -2), self._at[k]
        here = self._on(a.device)
        self._calls[k] += 1
        local = self._local[at] = self._local[at].to(a.device)
        if at not in self.best:
            self.best[at] = Best(len(local), self._options.keep, self._options.length, a)
        best = self.best[at]
        whole = torch.zeros(here.tokens + 1, len(local), dtype=best.activations.dtype, device=a.device)
        seen = slice(0, here.tokens) if rows is None else rows
        whole[seen] = a[:, local].to(whole.dtype)
        whole.index_fill_(0, here.uncounted, 0)
        best.take(here.number, whole[here.place].transpose(1, 2))

    def _on(self, device: torch.device) -> _Windows:
        if device not in self._windows:
            self._windows[device] = self._windows[torch.device("cpu")].on(device)
        return self._windows[device]

    def result(self) -> pl.DataFrame:
        """Everything that was kept, one row a context, by neuron and rank: `flat`, `rank`, `value`, `number` (of the window) and
        `activations` of a whole window. Raises ModelError where a site missed a forward, or an activation was no number.
        """
        missed = [
            self._found.sites[at].layer for at, n in zip(self._at, self._calls, strict=True) if n != self._forwards
        ]
        if missed:
            raise ModelError(
                f"Layers {missed[:6]} were not seen in every forward: parts of the model seem to be compiled or replaced. Load the model again."
            )
        parts = [self._of_site(at, best) for at, best in sorted(self.best.items())]
        *columns, activations = (np.concatenate(column) for column in zip(*parts, strict=True))
        kind = pl.Array(pl.Float32, self._options.length)
        return pl.DataFrame(
            dict(zip(("flat", "rank", "value", "number"), columns, strict=True))
            | {"activations": pl.Series(activations, dtype=kind)}
        )

    def _of_site(self, at: int, best: Best) -> tuple[Any, ...]:
        value = best.values.T.cpu()
        check_finite(value, "The activation")
        flat = self._local[at].cpu() + self._found.space.stretches[at].start
        j, rank = torch.nonzero(value > 0, as_tuple=True)
        number, activations = best.numbers.T.cpu()[j, rank], best.activations.transpose(0, 1).cpu()[j, rank].float()
        return tuple(x.numpy() for x in (flat[j], rank, value[j, rank], number, activations))


def _table(kept: pl.DataFrame, tokenizer: Any, corpora: Mapping[str, Corpus]) -> pl.DataFrame:
    """`CONTEXTS`. Many neurons share a window, whose text is made once."""
    texts = _texts(np.unique(kept["number"].to_numpy()), tokenizer, corpora)
    joined = kept.join(texts, on="number", how="left", maintain_order="left").with_columns(
        pl.col("activations").arr.to_list().list.head(pl.col("pieces").list.len())
    )
    return joined.select(pl.col(name).cast(kind) for name, kind in CONTEXTS.items())


def _texts(numbers: Ints, tokenizer: Any, corpora: Mapping[str, Corpus]) -> pl.DataFrame:
    """Of each window: its language, document, start and pieces."""
    every = list(corpora.values())
    rows = []
    for number in numbers.tolist():
        size, place = (number & (1 << _LENGTH) - 1) + 1, number >> _LENGTH
        corpus, start = every[place >> _POSITION], place & (1 << _POSITION) - 1
        document = int(np.searchsorted(corpus.starts, start, side="right")) - 1
        rows.append((number, corpus.language, document, start, window_pieces(tokenizer, corpus, document, start, size)))
    schema = {"number": pl.Int64, **{name: CONTEXTS[name] for name in ("language", "document", "start", "pieces")}}
    return pl.DataFrame(rows, schema=schema, orient="row")
