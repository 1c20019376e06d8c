"""The vocabulary mask: only tokens that are frequent in the target language's text may be written. A comparison for steering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from lape.errors import OptionError


class VocabularyMask(LogitsProcessor):  # type: ignore[misc]
    """Takes `penalty` nats from the logits of tokens outside a vocabulary; inf forbids them.

    `allowed`: (vocabulary,) bool; tokens of a padded embedding beyond its end are outside. A logits processor of transformers, for `generate`.

    Example:
        >>> import torch
        >>> from lape.measure.generation import GenerationOptions, generate
        >>> from lape.measure.mask import VocabularyMask
        >>> allowed = torch.zeros(model.config.vocab_size, dtype=torch.bool)
        >>> allowed[tokenizer.convert_tokens_to_ids(["fr05", "fr06"])] = True
        >>> generate(model, tokenizer, ["en02 en03"], GenerationOptions(new_tokens=2), processors=[VocabularyMask(allowed)])
        ['fr05 fr06']
    """

    def __init__(self, allowed: Tensor, penalty: float = float("inf")) -> None:
        self._allowed, self._penalty = allowed, penalty

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002
        """(rows, vocabulary) scores -> the same, masked."""
        allowed = self._allowed.to(scores.device)
        if len(allowed) < scores.shape[1]:  # a padded embedding
            allowed = torch.nn.functional.pad(allowed, (0, scores.shape[1] - len(allowed)))
        return torch.where(allowed[: scores.shape[1]], scores, scores - self._penalty)


def frequent(counts: Tensor, coverage: float, keep: Sequence[int] = ()) -> Tensor:
    """(vocabulary,) bool: the fewest tokens that make up this share of a text, the most frequent first, and `keep`.

    `counts`: (vocabulary,) how often each token occurs in it.
    """
    if not 0 < coverage <= 1:
        raise OptionError(f"coverage is {coverage}. Expected a share above 0, up to 1.")
    order = counts.argsort(descending=True, stable=True)
    before = counts[order].cumsum(0) - counts[order]
    needed = order[(before.double() < coverage * int(counts.sum())) & (counts[order] > 0)]
    allowed = torch.zeros(len(counts), dtype=torch.bool)
    allowed[needed] = True
    allowed[torch.tensor(list(keep), dtype=torch.int64)] = True
    return allowed


def token_counts(tokens: Tensor, vocabulary: int) -> Tensor:
    """(vocabulary,) int64: how often each id occurs."""
    return torch.bincount(tokens.long(), minlength=vocabulary)


def endings(tokenizer: Any) -> list[int]:
    """The ids that end an answer, which every mask allows."""
    return [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
