"""How far an edit moves what a model says next: KL divergence from the unedited model, on answers that are given."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lape.errors import OptionError
from lape.model.body import device_of, evaluating, hidden_states
from lape.model.loss import Head, find_head

Pair: TypeAlias = "tuple[list[int], list[int]]"
"""The ids of a prompt, and of an answer to it."""
TOKENS = 48
"""Of each answer so many tokens are compared."""
_AT_ONCE = 256
"""Distributions that are held at once."""


@torch.inference_mode()
def divergence(model: Any, pairs: Sequence[Pair], under: Callable[[], AbstractContextManager[object]]) -> float:
    """Mean KL divergence of the next token's distribution, unedited ‖ edited, in nats a token, on the first tokens of answers.

    `pairs`: prompts and answers by their ids (`lape.measure.answer_loss.ids_of`). `under`: gives the context in which the model is edited. Infinite where the
    edited model gives no numbers. Raises OptionError where there is no answer.

    Example:
        >>> from lape.measure.answer_loss import ids_of
        >>> from lape.measure.divergence import divergence
        >>> pairs = [ids_of(tokenizer, "en01 en02", "en03 en04")]
        >>> divergence(model, pairs, lambda: lape.edited(model, []))
        0.0
        >>> divergence(model, pairs, lambda: lape.edited(model, lape.Off(neurons["en"]))) > 0.1
        True
    """
    asked = [(prompt, answer[:TOKENS]) for prompt, answer in pairs]
    kept = [k for k, (_, answer) in enumerate(asked) if answer]
    if not kept:
        raise OptionError("There is no answer to compare on. Expected at least one with a token.")
    head = find_head(model)
    total, count = 0.0, 0
    with evaluating(model):
        for some in _chunks(kept, [len(answer) for _, answer in asked]):
            before = _distributions(model, head, [asked[k] for k in some])
            with under():
                after = _distributions(model, head, [asked[k] for k in some])
            total += float((before.exp() * (before - after)).sum(dtype=torch.float64))
            count += len(before)
    return max(0.0, total / count) if math.isfinite(total) else math.inf


def _chunks(kept: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Answers in groups of so few tokens that their distributions fit."""
    found: list[list[int]] = [[]]
    for k in kept:
        if found[-1] and sum(lengths[one] for one in (*found[-1], k)) > _AT_ONCE:
            found.append([])
        found[-1].append(k)
    return found


def _distributions(model: Any, head: Head, pairs: Sequence[Pair]) -> Tensor:
    """(answer tokens, vocabulary) log-probabilities of every answer token's place; padded on the right, where nothing looks back from."""
    longest = max(len(prompt) + len(answer) for prompt, answer in pairs)
    ids = torch.tensor([[*prompt, *answer, *[0] * (longest - len(prompt) - len(answer))] for prompt, answer in pairs])
    hidden = hidden_states(model, ids.to(device_of(model)))
    where = [
        (row, at) for row, (prompt, answer) in enumerate(pairs) for at in range(len(prompt), len(prompt) + len(answer))
    ]
    row, column = torch.tensor(where, device=hidden.device).T
    return head.logits(hidden[row, column - 1]).float().log_softmax(-1)
