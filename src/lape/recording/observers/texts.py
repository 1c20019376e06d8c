"""Mean activations of single texts."""

from __future__ import annotations

from contextlib import AbstractContextManager
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from lape.data.corpus import Corpus, Ints
from lape.data.windows import Batch
from lape.errors import certain
from lape.model.hooks import Rows, watching
from lape.recording.observers.observer import Observer, Setting, Watcher, unless
from lape.values.quantity import Quantity

DOCUMENTS_FOR_TEXTS = 64
"""With as many documents each is a text; with fewer, each chunk of a document is."""
CHUNK = 64
"""Tokens of a chunk, about."""


def texts_of(corpus: Corpus, most: int) -> tuple[Ints, Ints]:
    """Where texts start and stop in `Corpus.tokens`: documents where there are 64 or more, else chunks of documents.

    A document of n tokens has max(1, round(n / 64)) chunks that differ by at most one token. Where there are more than `most`
    texts, as many are taken, evenly spread over the corpus.
    """
    starts, stops = corpus.starts[:-1], corpus.starts[1:]
    if corpus.documents < DOCUMENTS_FOR_TEXTS:
        lengths = stops - starts
        chunks = np.maximum(1, np.round(lengths / CHUNK).astype(np.int64))
        document = np.repeat(np.arange(len(chunks)), chunks)
        number = np.arange(len(document)) - np.repeat(np.cumsum(chunks) - chunks, chunks)
        first, length, of = corpus.starts[document], lengths[document], chunks[document]
        starts, stops = first + number * length // of, first + (number + 1) * length // of
    if len(starts) > most:
        kept = np.arange(most) * len(starts) // most
        starts, stops = starts[kept], stops[kept]
    return starts, stops


class TextRecorder(Watcher):
    """Sums over the counted tokens of each text, on each site's own device. Memory is (texts, neurons) float32."""

    def __init__(self, setting: Setting) -> None:
        self.model, self.found = setting.model, setting.found
        self._starts, self._stops = texts_of(certain(setting.corpus), setting.options.most_texts)
        self._tokens = torch.zeros(len(self._starts), dtype=torch.int64)
        self._sums = [torch.zeros(len(self._starts), stretch.width) for stretch in self.found.space]
        self._runs: list[tuple[int, int, int]] = []
        self._text = torch.empty(0, dtype=torch.int64)
        """Of each token of the next forward, the text that it counts in; -1 for none."""

    def attached(self) -> AbstractContextManager[None]:
        """While inside, every forward that follows `count` is recorded."""
        return watching(self.model, self.found.sites, self._see)

    def count(self, one: Batch) -> None:
        """Find the runs of counted tokens of one text: (start, stop, text) each."""
        source, fold = one.source.reshape(-1).numpy(), one.fold.reshape(-1).numpy()
        text = np.searchsorted(self._starts, source, side="right") - 1
        text[(fold < 0) | (source >= self._stops[text])] = -1
        self._text = torch.from_numpy(text)
        edges = [0, *(np.flatnonzero(text[1:] != text[:-1]) + 1).tolist(), len(text)]
        self._runs = [(start, stop, int(text[start])) for start, stop in pairwise(edges) if text[start] >= 0]
        for start, stop, number in self._runs:
            self._tokens[number] += stop - start

    def _see(self, k: int, activation: Tensor, rows: Rows) -> None:
        a = activation.detach().flatten(0, -2)
        self._sums[k] = sums = self._sums[k].to(a.device)
        if rows is not None:  # an expert's: the other tokens of a text add nothing
            text = self._text.to(a.device)[rows]
            sums.index_add_(0, text[text >= 0], a[text >= 0].float())
            return
        for start, stop, number in self._runs:
            sums[number] += a[start:stop].sum(0, dtype=torch.float32)

    def state(self) -> dict[str, Tensor]:
        """`texts.sums` (texts, neurons) float32 and `texts.tokens` (texts,) int64."""
        sums = torch.cat([one.cpu() for one in self._sums], 1)
        return {"texts.sums": sums, "texts.tokens": self._tokens.clone()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        self._tokens = state["texts.tokens"].clone()
        self._sums = [state["texts.sums"][:, one.start : one.stop].clone() for one in self.found.space]

    def result(self) -> dict[str, Tensor]:
        """`texts` (texts, neurons) float16: means over counted tokens, cut at ±65,504. Texts without counted tokens are left out."""
        counted = self._tokens > 0
        means = self.state()["texts.sums"][counted].div_(self._tokens[counted, None])
        most = torch.finfo(torch.float16).max
        return {"texts": means.clamp_(-most, most).half()}


OBSERVER = Observer(
    "texts",
    "The mean activation over the counted tokens of each text: documents, or chunks where there are under 64.",
    (Quantity("texts", ("texts", "neurons"), torch.float16, "join"),),
    option="per_text",
    watch=TextRecorder,
    refused={
        **unless("ray"),
        "shards": "cannot be recorded in shards, which cut texts. Leave it out, or leave out shard.",
    },
)
