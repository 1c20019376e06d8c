"""Log-likelihood of answers under a model, after a prompt or alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lape.measure.prompts import prompt_ids
from lape.model.body import device_of, evaluating, hidden_states
from lape.model.loss import Head
from lape.progress import Progress, shown

_TOKENS = 2048
"""Tokens that run at once."""


def ids_of(tokenizer: Any, prompt: str, answer: str) -> tuple[list[int], list[int]]:
    """A prompt's ids, with the special tokens the tokenizer begins with, and an answer's, without any."""
    return prompt_ids(tokenizer, prompt), list(tokenizer(answer, add_special_tokens=False)["input_ids"])


@torch.inference_mode()
def answer_losses(
    model: Any,
    head: Head,
    pairs: Sequence[tuple[list[int], list[int]]],
    fill: int,
    *,
    progress: Progress = shown,
) -> list[NDArray[np.float64]]:
    """-log P(token | prompt, answer so far) of every answer token, in nats: one (answer tokens,) array for each pair of ids.

    Rows run longest first, padded on the right, where nothing looks back from. So there is no mask: with one, padding beyond a
    sliding window would see nothing at all, which some attention turns into NaN everywhere.
    """
    result: list[NDArray[np.float64]] = [np.empty(0)] * len(pairs)
    order = sorted(
        (k for k, (prompt, answer) in enumerate(pairs) if prompt and answer), key=lambda k: -sum(map(len, pairs[k]))
    )
    done = 0
    with evaluating(model):
        while done < len(order):
            longest = sum(map(len, pairs[order[done]]))
            some = order[done : done + max(1, _TOKENS // longest)]
            for k, loss in zip(some, _batch(model, head, [pairs[k] for k in some], fill), strict=True):
                result[k] = loss
            done += len(some)
            progress("scoring answers", done, len(order))
    return result


def _batch(
    model: Any, head: Head, pairs: Sequence[tuple[list[int], list[int]]], fill: int
) -> list[NDArray[np.float64]]:
    rows = [prompt + answer for prompt, answer in pairs]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [fill] * (longest - len(row)) for row in rows])
    hidden = hidden_states(model, ids.to(device_of(model)))
    where = [
        (k, at) for k, (prompt, answer) in enumerate(pairs) for at in range(len(prompt), len(prompt) + len(answer))
    ]
    row, column = torch.tensor(where).T
    loss = head.nll(hidden[row, column - 1], ids[row, column].to(hidden.device)).cpu().numpy().astype(np.float64)
    return np.split(loss, np.cumsum([len(answer) for _, answer in pairs])[:-1])
