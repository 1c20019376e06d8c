"""Negative log-likelihood of every token, without ever holding rows × vocabulary numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lape.data.corpus import Corpus, TextOptions
from lape.data.windows import Batch, batch, batches
from lape.errors import ModelError
from lape.model.body import evaluating, hidden_states, run_batch, text_config, tiny_ids, unwrapped
from lape.model.find import find
from lape.model.numerics import gap, tolerance

_ROWS, _WORDS = 1024, 2048
"""Tokens and vocabulary entries whose logits exist at once on a CPU: they fit its cache, and the weights are laid out anew for few blocks of tokens."""
_ROWS_GPU, _WORDS_GPU = 4096, 32768


@dataclass(frozen=True)
class Head:
    """A model's LM head: a linear layer and what is done to its output, element by element."""

    linear: nn.Module
    after: Callable[[Tensor], Tensor]
    what: str
    """In words, for `lape doctor`."""

    def logits(self, hidden: Tensor) -> Tensor:
        """(tokens, width) hidden states -> (tokens, vocabulary) float32 logits."""
        weight: Any = self.linear.weight
        out: Tensor = self.after(F.linear(hidden.to(weight.device), weight, getattr(self.linear, "bias", None)))
        return out.float()

    def nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """(tokens, width) hidden states and (tokens,) ids -> (tokens,) float32 nats."""
        weight: Any = self.linear.weight
        rows, words = (_ROWS, _WORDS) if hidden.device.type == "cpu" else (_ROWS_GPU, _WORDS_GPU)
        hidden, targets = hidden.to(weight.device), targets.to(weight.device)
        parts = [
            self._block(hidden[at : at + rows], targets[at : at + rows], words) for at in range(0, len(hidden), rows)
        ]
        return torch.cat(parts).float() if parts else torch.empty(0)

    def _block(self, hidden: Tensor, targets: Tensor, words: int) -> Tensor:
        """The log Σ exp over the vocabulary in slices, keeping the running maximum, minus the target's own logit."""
        weight: Any = self.linear.weight
        bias = getattr(self.linear, "bias", None)
        top = torch.full(targets.shape, -torch.inf, device=weight.device)
        total = torch.zeros_like(top)
        own = torch.zeros_like(top)
        for at in range(0, len(weight), words):
            part = slice(at, at + words)
            logits = self.after(F.linear(hidden, weight[part], None if bias is None else bias[part])).float()
            here = (targets >= at) & (targets < at + logits.shape[1])
            own = torch.where(here, logits.gather(1, (targets - at).clamp(0, logits.shape[1] - 1)[:, None])[:, 0], own)
            higher = torch.maximum(top, logits.amax(1))
            total = total * (top - higher).exp() + logits.sub_(higher[:, None]).exp_().sum(1)
            top = higher
        return top + total.log() - own


@torch.inference_mode()
def find_head(model: Any) -> Head:
    """The LM head, and what follows it (nothing, a soft cap or a factor), proven by running.

    Raises ModelError for a head that cannot be taken apart that way.
    """
    inner: Any = unwrapped(model)
    linear: Any = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
    if linear is None or not torch.is_floating_point(getattr(linear, "weight", torch.empty(0, dtype=torch.int8))):
        raise ModelError(
            f"{type(inner).__name__} has no LM head with plain weights, so no loss can be measured. Load a causal language model."
        )
    ids = tiny_ids(model)
    with evaluating(model):
        return _matched(model, inner, linear, ids)


def _matched(model: Any, inner: Any, linear: Any, ids: Tensor) -> Head:
    expected = inner(input_ids=ids, use_cache=False).logits.cpu().double()
    raw = linear(hidden_states(model, ids)).cpu()
    for after, what in _endings(text_config(model), expected, raw):
        if gap(after(raw).to(expected), expected) <= tolerance(raw.dtype):
            return Head(linear, after, what)
    raise ModelError(
        f"The logits of {type(inner).__name__} are not the output of its head, whether soft-capped or scaled, so the loss cannot be measured in slices."
    )


def _endings(config: Any, expected: Tensor, raw: Tensor) -> list[tuple[Callable[[Tensor], Tensor], str]]:
    cap = getattr(config, "final_logit_softcapping", None)
    flat = raw.double().flatten()
    factor = float((flat @ expected.flatten()) / (flat @ flat))
    scaled = (lambda x: x * factor, f"scaled by {factor:.6g}")
    if cap:  # first: small logits hardly differ with and without it
        return [(lambda x: torch.tanh(x / cap) * cap, f"soft-capped at {cap}"), (lambda x: x, "plain"), scaled]
    return [(lambda x: x, "plain"), scaled]


@dataclass(frozen=True)
class Loss:
    """The loss of each line of a corpus."""

    nll: NDArray[np.float64]
    """(lines,) nats, summed over the line's scored tokens."""
    tokens: NDArray[np.int64]
    """(lines,) scored tokens: text tokens with something before them."""


@torch.inference_mode()
def line_loss(
    model: Any,
    head: Head,
    corpus: Corpus,
    options: TextOptions,
    watch: Callable[[Batch], None] | None = None,
) -> Loss:
    """Negative log-likelihood of every line of a corpus (prepared with `lines=True`).

    Documents do not see each other. A row's first token is scored only where BOS stands before it. `watch` is called with
    each batch before it runs.
    """
    lines = corpus.lines
    if lines is None:
        raise ModelError("This corpus was prepared without its lines. Call prepare(..., lines=True).")
    nll = np.zeros(len(lines.document))
    tokens = np.zeros(len(lines.document), np.int64)
    with evaluating(model):
        for some in batches(corpus, options, packs=find(model).packs):
            one = batch(corpus, some)
            if watch:
                watch(one)
            predicted, source = targets_of(one, corpus.bos is not None)
            hidden = run_batch(model, one)[:, :-1].flatten(0, 1)[predicted]
            targets = one.input_ids[:, 1:].flatten()[predicted]
            loss = head.nll(hidden, targets).cpu().numpy().astype(np.float64)
            of_line = lines.of_token[source]
            np.add.at(nll, of_line, loss)
            np.add.at(tokens, of_line, 1)
    return Loss(nll, tokens)


def targets_of(one: Batch, bos: bool) -> tuple[Tensor, NDArray[np.int64]]:
    """Which positions (flattened, of all but the last column) predict a counted token of the same document, and that token's place."""
    source = one.source
    counted = one.fold[:, 1:] >= 0
    follows = source[:, 1:] == source[:, :-1] + 1  # the token before it in the text
    if bos:
        ids = one.input_ids
        positions = torch.arange(source.shape[1])[None].expand_as(ids) if one.position_ids is None else one.position_ids
        follows |= positions[:, 1:] == 1  # BOS before it
    else:
        same = torch.ones_like(follows) if one.position_ids is None else one.position_ids[:, 1:] > 0
        follows &= same
    predicted = (counted & follows).flatten()
    return predicted, source[:, 1:].flatten()[predicted].numpy()
