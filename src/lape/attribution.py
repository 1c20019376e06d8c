"""What a language's loss owes each neuron, to first order: one backward pass gives every neuron (ours)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lape.corpus import Corpus, batch, batches
from lape.evaluate.nll import Head, targets_of
from lape.options import TextOptions
from lape.recording import run_batch
from lape.sites import Sites, evaluating, find, unwrapped

_ROWS, _ROWS_GPU = 128, 1024
"""Tokens whose logits, and their gradient, exist at once."""


def attribute(
    model: Any,
    head: Head,
    corpus: Corpus,
    options: TextOptions,
    tokens: int,
    *,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> tuple[Tensor, int]:
    """Σ over tokens of −a · ∂NLL/∂a for every neuron, (neurons,) float64 in nats, and how many tokens were scored.

    It estimates how much the loss would rise were the neuron zeroed: the first term of a Taylor series around the model as it
    is, and an underestimate where the loss bends upwards. Whole batches are taken until `tokens` are scored.

    In a gated MLP the gate's activation and the product with `up` have the same a · ∂/∂a, so the down projection's input
    serves every architecture.
    """
    found = find(model)
    owed = torch.zeros(len(found.space), dtype=torch.float64)
    scored = 0
    with torch.enable_grad(), evaluating(model), _frozen(model), _owing(model, found, owed):
        for some in batches(corpus, options, packs=found.packs):
            one = batch(corpus, some)
            predicted, _ = targets_of(one, corpus.bos is not None)
            hidden = run_batch(model, one)
            flat = hidden[:, :-1].flatten(0, 1)
            gradient = torch.zeros_like(flat)
            gradient[predicted] = _gradient(head, flat.detach()[predicted], one.input_ids[:, 1:].flatten()[predicted])
            owing = F.pad(gradient.view_as(hidden[:, :-1]), (0, 0, 0, 1))
            torch.autograd.backward(hidden, owing)
            scored += int(predicted.sum())
            progress(min(scored, tokens), tokens)
            if scored >= tokens:
                break
    return owed, scored


def _gradient(head: Head, hidden: Tensor, targets: Tensor) -> Tensor:
    """(tokens, width) gradient of the summed NLL with respect to the last hidden states."""
    linear: Any = head.linear
    weight, bias = linear.weight, getattr(linear, "bias", None)
    rows = _ROWS if weight.device.type == "cpu" else _ROWS_GPU
    parts = []
    for at in range(0, len(hidden), rows):
        x = hidden[at : at + rows].to(weight.device).requires_grad_()
        logits = head.after(F.linear(x, weight, bias)).float()
        loss = F.cross_entropy(logits, targets[at : at + rows].to(weight.device), reduction="sum")
        parts.append(torch.autograd.grad(loss, x)[0].to(hidden.device))
    return torch.cat(parts) if parts else torch.empty_like(hidden)


@contextmanager
def _owing(model: nn.Module, found: Sites, owed: Tensor) -> Iterator[None]:
    """While inside, every backward pass adds −x · ∂NLL/∂x of each down projection's input to `owed`."""
    handles = [
        unwrapped(model).get_submodule(site.down).register_forward_pre_hook(_hook(owed[stretch.start : stretch.stop]))
        for site, stretch in zip(found.sites, found.space, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(owed: Tensor) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    def watch(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x: Tensor = args[0] if args[0].requires_grad else args[0].detach().requires_grad_()  # the first of the model
        value = x.detach()

        def add(gradient: Tensor) -> None:
            product = value.flatten(0, -2).float() * gradient.flatten(0, -2).float()
            owed.sub_(product.sum(0).cpu().double())

        x.register_hook(add)  # type: ignore[no-untyped-call]
        return (x, *args[1:])

    return watch


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """While inside, no weight wants a gradient."""
    wanting = [parameter for parameter in unwrapped(model).parameters() if parameter.requires_grad]
    for parameter in wanting:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanting:
            parameter.requires_grad_(True)
