"""A sentence as a vector of each layer: the mean of the residual stream over its tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lape.data.corpus import Corpus, TextOptions, prepare
from lape.data.parallel import aligned_lines
from lape.data.texts import Documents
from lape.data.windows import Batch, batch, batches
from lape.errors import OptionError, TextError, certain
from lape.model.body import blocks, check_fits, evaluating, run_batch
from lape.model.find import find
from lape.model.hooks import hooked
from lape.model.numerics import check_finite, summed_in
from lape.model.scope import Put
from lape.model.site import Sites
from lape.progress import Progress, shown


def sentence_vectors(
    model: Any,
    tokenizer: Any,
    lines: Mapping[str, Sequence[str]],
    options: TextOptions | None = None,
    *,
    progress: Progress = shown,
) -> dict[str, Tensor]:
    """Language -> (layers, sentences, width) float32, on the CPU: the mean residual stream after each decoder block.

    Each line is a document of its own, read and counted as when recording: BOS and special tokens do not count, documents
    do not see each other, one longer than a row is cut. Raises TextError for lines that are not aligned or hold nothing
    that counts, OptionError for a cap on tokens, which would cut each language at another sentence.
    """
    options = options or TextOptions()
    if options.tokens is not None:
        raise OptionError(
            f"tokens is {options.tokens}, which cuts each language at a different sentence. Leave it out; limit sentences instead."
        )
    texts = aligned_lines(lines)
    found = find(model)
    corpora = []
    for language, sentences in texts.items():
        _refuse_uncounted(language, sentences, tokenizer)
        corpora.append(prepare(language, Documents(sentences), tokenizer, options, progress=progress))
        check_fits(model, options.row_tokens, int(corpora[-1].tokens.max()))
    return {corpus.language: _vectors(model, found, corpus, options, progress) for corpus in corpora}


def _refuse_uncounted(language: str, sentences: Sequence[str], tokenizer: Any) -> None:
    special = set(tokenizer.all_special_ids)
    for number, line in enumerate(sentences, 1):
        if special.issuperset(tokenizer(line, add_special_tokens=False)["input_ids"]):
            raise TextError(
                f"{language}, line {number} holds no token that counts: {line!r:.60}. Take line {number} out of every language."
            )


def _vectors(model: Any, found: Sites, corpus: Corpus, options: TextOptions, progress: Progress) -> Tensor:
    sums = _SentenceSums(model, blocks(model, found), corpus)
    # Not inference_mode: the vectors are handed out as ordinary tensors.
    with torch.no_grad(), evaluating(model), sums.attached():
        for some in batches(corpus, options, packs=found.packs):
            one = batch(corpus, some)
            sums.count(one)
            run_batch(model, one)
            progress(f"sentence vectors {corpus.language}", int(sums.tokens.sum()), len(corpus.tokens))
    progress(f"sentence vectors {corpus.language}", len(corpus.tokens), len(corpus.tokens))
    return sums.means()


class _SentenceSums:
    """Sums of the residual stream after every decoder block, per document; nothing per token leaves a layer."""

    def __init__(self, model: nn.Module, modules: Sequence[nn.Module], corpus: Corpus) -> None:
        self._model, self._blocks = model, modules
        self._starts = torch.from_numpy(corpus.starts)
        self._sums: Tensor | None = None
        self._counted = self._documents = torch.empty(0, dtype=torch.int64)
        self._member = torch.empty(0)
        self.tokens = torch.zeros(corpus.documents, dtype=torch.int64)

    def count(self, one: Batch) -> None:
        """Say which document each token of the next forward belongs to."""
        self._counted = torch.nonzero(one.fold.reshape(-1) >= 0)[:, 0]
        document = torch.searchsorted(self._starts, one.source.reshape(-1)[self._counted], right=True) - 1
        self._documents, local, counts = torch.unique(document, return_inverse=True, return_counts=True)
        self.tokens[self._documents] += counts
        # A product with 0 and 1: adding by index is not deterministic on a GPU.
        self._member = torch.zeros(len(self._documents), len(self._counted))
        self._member[local, torch.arange(len(local))] = 1

    @contextmanager
    def attached(self) -> Iterator[None]:
        """While inside, every forward that follows `count` is added."""
        handles = [Put(block.register_forward_hook, self._hook(k)) for k, block in enumerate(self._blocks)]
        with hooked(self._model, handles):
            yield

    def _hook(self, k: int) -> Callable[[nn.Module, Any, Any], None]:
        def add(_module: nn.Module, _args: Any, out: Any) -> None:
            hidden = (out if isinstance(out, Tensor) else out[0]).flatten(0, -2)
            if self._sums is None:
                self._sums = torch.zeros(len(self._blocks), len(self.tokens), hidden.shape[1])
            dtype = summed_in(hidden)
            counted = hidden[self._counted.to(hidden.device)].to(dtype)
            self._sums[k, self._documents] += (self._member.to(hidden.device, dtype) @ counted).cpu().float()

        return add

    def means(self) -> Tensor:
        """(layers, documents, width) float32. Raises ModelError where one is not finite."""
        vectors = certain(self._sums).div_(self.tokens[:, None])
        check_finite(vectors, "The residual stream")
        return vectors
