"""First-order attribution (activation × gradient) of a language's loss to each neuron: one backward pass gives all of them (ours)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lape.data.corpus import Corpus, TextOptions
from lape.data.windows import Batch, batch, batches
from lape.errors import ModelError
from lape.model.body import evaluating, hidden_states, run_batch, tiny_ids, unwrapped
from lape.model.find import find
from lape.model.hooks import Rows, at_product, hooked
from lape.model.loss import Head, targets_of
from lape.model.scope import Handle
from lape.model.weights import is_linear

_ROWS, _ROWS_GPU = 128, 1024
"""Tokens whose logits, and their gradient, exist at once."""


See: TypeAlias = Callable[[int, Tensor, Batch], None]
"""Called with a site's position, a · ∂NLL/∂a of every token and neuron there (..., width), and the batch."""


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
    space = find(model).space
    owed = torch.zeros(len(space), dtype=torch.float64)

    def add(k: int, product: Tensor, _one: Batch) -> None:
        owed[space.stretches[k].start : space.stretches[k].stop] -= product.flatten(0, -2).sum(0).cpu().double()

    return owed, backward(model, head, corpus, options, add, tokens=tokens, progress=progress)


def backward(
    model: Any,
    head: Head,
    corpus: Corpus,
    options: TextOptions,
    see: See,
    *,
    tokens: int | None = None,
    scored: NDArray[np.bool_] | None = None,
    drawn: torch.Generator | None = None,
    sites: Collection[int] | None = None,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> int:
    """Run a corpus forwards and backwards and show a · ∂NLL/∂a at every down projection's input; how many tokens were scored.

    `scored` (tokens of the corpus,) bool: only the loss of these tokens, though all are read; `drawn`: the loss not of the
    text's own tokens but of ones drawn from what the model expects, whose gradients have mean 0 and say how the loss bends;
    `sites`: only these, by position; gradients are taken no further down than the lowest of them.
    """
    found = find(model)
    check_gradients(model)
    count, wanted = 0, len(corpus.tokens) if tokens is None else tokens
    now: list[Batch] = []
    watched = range(len(found.sites)) if sites is None else sorted(sites)

    def shown(k: int) -> list[Handle]:
        return at_product(model, found.sites[k], _hook(lambda product: see(k, product, now[0])))

    handles = [handle for k in watched for handle in shown(k)]
    with torch.enable_grad(), evaluating(model), _frozen(model), hooked(handles):
        for some in batches(corpus, options, packs=found.packs):
            now[:] = [one := batch(corpus, some)]
            predicted, source = targets_of(one, corpus.bos is not None)
            if scored is not None:
                predicted[predicted.clone()] = torch.from_numpy(scored[source])
            hidden = run_batch(model, one)
            flat = hidden[:, :-1].flatten(0, 1)
            gradient = torch.zeros_like(flat)
            targets = None if drawn is not None else one.input_ids[:, 1:].flatten()[predicted]
            gradient[predicted] = _gradient(head, flat.detach()[predicted], targets, drawn)
            owing = F.pad(gradient.view_as(hidden[:, :-1]), (0, 0, 0, 1))
            torch.autograd.backward(hidden, owing)
            count += int(predicted.sum())
            progress(min(count, wanted), wanted)
            if tokens is not None and count >= tokens:
                break
    return count


def _gradient(head: Head, hidden: Tensor, targets: Tensor | None, drawn: torch.Generator | None) -> Tensor:
    """(tokens, width) gradient of the summed NLL with respect to the last hidden states."""
    linear: Any = head.linear
    weight, bias = linear.weight, getattr(linear, "bias", None)
    rows = _ROWS if weight.device.type == "cpu" else _ROWS_GPU
    parts = []
    for at in range(0, len(hidden), rows):
        x = hidden[at : at + rows].to(weight.device).requires_grad_()
        logits = head.after(F.linear(x, weight, bias)).float()
        wanted = _draw(logits, drawn) if targets is None else targets[at : at + rows].to(weight.device)
        loss = F.cross_entropy(logits, wanted, reduction="sum")
        parts.append(torch.autograd.grad(loss, x)[0].to(hidden.device))
    return torch.cat(parts) if parts else torch.empty_like(hidden)


def _draw(logits: Tensor, drawn: torch.Generator | None) -> Tensor:
    """(tokens,) ids drawn from (tokens, vocabulary) logits: the first at which a uniform number is exceeded."""
    levels = torch.rand(len(logits), 1, generator=drawn)  # on the CPU, so that every device draws the same
    heights = logits.detach().softmax(1).cumsum(1)
    return torch.searchsorted(heights, levels.to(heights) * heights[:, -1:])[:, 0].clamp_max(logits.shape[1] - 1)


def _hook(see: Callable[[Tensor], None]) -> Callable[[Tensor, Rows], Tensor]:
    """What shows x · ∂NLL/∂x of all that passes, x, at every backward pass."""

    def watch(given: Tensor, _rows: Rows) -> Tensor:
        x: Tensor = given if given.requires_grad else given.detach().requires_grad_()  # the first of the model
        value = x.detach()

        def add(gradient: Tensor) -> None:
            see(value.float() * gradient.float())

        x.register_hook(add)  # type: ignore[no-untyped-call]
        return x

    return watch


def check_gradients(model: Any) -> None:
    """Refuse quantised weights through which gradients do not pass as they should; some of a library's fast paths have none.

    A linear layer y(x) = W x + b must give Wᵀ v for v = W x, whose product with x is |W x|².
    """
    inner: Any = unwrapped(model)
    if not getattr(inner, "is_quantized", False):
        return
    with torch.no_grad(), evaluating(model):
        hidden_states(model, tiny_ids(model))  # some fast paths are taken from the first run on
    for name, module in inner.named_modules():
        if is_linear(module) and type(module) is not nn.Linear and not _passes(module, inner.dtype):
            raise ModelError(
                f"Gradients do not pass through {name} ({type(module).__name__}), so attributions would be wrong. "
                "Leave them out, load the model unquantised, or use another device."
            )


def _passes(linear: Any, dtype: torch.dtype) -> bool:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, linear.in_features, generator=generator).to(linear.weight.device, dtype)
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = x.requires_grad_()
        try:
            moved = linear(given) - linear(torch.zeros_like(x))
            (back,) = torch.autograd.grad(moved, given, moved.detach())
        except RuntimeError:
            return False
    expected = float(moved.detach().float().square().sum())
    return (
        abs(float((back.float() * x.detach()).sum()) - expected) <= 0.1 * expected
    )  # rounding to 8 bits costs a few per cent


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
