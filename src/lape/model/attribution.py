"""First-order attribution (activation × gradient) of a language's loss to each neuron: one backward pass gives all of them (ours)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lape.data.corpus import Corpus, TextOptions
from lape.data.windows import Batch, batch, batches
from lape.errors import ModelError
from lape.model.body import device_of, evaluating, hidden_states, run_batch, tiny_ids, unwrapped
from lape.model.find import find
from lape.model.hooks import Rows, at_product, hooked
from lape.model.loss import Head, targets_of
from lape.model.scope import Handle
from lape.model.site import Sites
from lape.model.weights import is_linear

_ROWS, _ROWS_GPU = 128, 1024
"""Tokens whose logits, and their gradient, exist at once."""


@dataclass(frozen=True)
class Pass:
    """One backward pass through a batch."""

    batch: Batch
    draw: int | None
    """None: the loss of the text's own tokens. Otherwise the number of the draw of tokens from what the model expects, from 0."""

    @cached_property
    def pieces(self) -> Tensor:
        """(rows · tokens,) int64: the number within the batch of the document, or piece of one, that each position belongs to."""
        rows, length = self.batch.input_ids.shape
        if self.batch.position_ids is None:
            return torch.arange(rows).repeat_interleave(length)
        return (self.batch.position_ids == 0).flatten().long().cumsum(0) - 1


See: TypeAlias = Callable[[int, Tensor, Rows, Pass], None]
"""Called with a site's position, a · ∂NLL/∂a of every token and neuron there (..., width), which tokens they are of, and the pass."""


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

    def add(k: int, product: Tensor, _rows: Rows, _now: Pass) -> None:
        owed[space.stretches[k].start : space.stretches[k].stop] -= product.flatten(0, -2).sum(0).cpu().double()

    return owed, backward(model, head, corpus, options, add, tokens=tokens, progress=progress)


def attribute_answers(
    model: Any, head: Head, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], found: Sites
) -> Tensor:
    """Mean over answers of a · ∂ log P(answer | prompt) / ∂a at the inputs of sites' down or output projections, (all channels,) float64 in nats: by how much
    the answers get likelier, to first order, where a channel's contribution is scaled up by its own size.

    `pairs`: the ids of a prompt, and of an answer to it, both of at least one.
    """
    check_gradients(model)
    owed = torch.zeros(len(found.space), dtype=torch.float64)

    def shown(k: int) -> list[Handle]:
        stretch = found.space.stretches[k]

        def add(product: Tensor, _rows: Rows) -> None:
            owed[stretch.start : stretch.stop] -= product.flatten(0, -2).sum(0).cpu().double()

        return at_product(model, found.sites[k], _hook(add))

    handles = [handle for k in range(len(found.sites)) for handle in shown(k)]
    with torch.enable_grad(), evaluating(model), _frozen(model), hooked(model, handles):
        for prompt, answer in pairs:
            hidden = hidden_states(model, torch.tensor([[*prompt, *answer]]).to(device_of(model)))
            at = slice(len(prompt) - 1, -1)
            targets = torch.tensor(answer, device=hidden.device)
            owing = torch.zeros_like(hidden)
            owing[0, at] = _gradients(head, hidden.detach()[0, at], targets, 0, torch.Generator())[0]
            torch.autograd.backward(hidden, owing)
    return owed / len(pairs)


def backward(
    model: Any,
    head: Head,
    corpus: Corpus,
    options: TextOptions,
    see: See,
    *,
    tokens: int | None = None,
    draws: int = 0,
    seed: int = 0,
    sites: Collection[int] | None = None,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> int:
    """Run a corpus forwards once and backwards, and show a · ∂NLL/∂a at every down projection's input; how many tokens were scored.

    `draws`: after the loss of the text's own tokens, backwards again for that of tokens drawn from what the model expects, so many
    times, whose gradients have mean 0 and say how the loss bends; `sites`: only these, by position; gradients are taken no further down
    than the lowest of them.
    """
    found = find(model)
    check_gradients(model)
    count, wanted = 0, len(corpus.tokens) if tokens is None else tokens
    now: list[Pass] = []
    watched = range(len(found.sites)) if sites is None else sorted(sites)
    generator = torch.Generator().manual_seed(seed)  # on the CPU, so that every device draws the same

    def shown(k: int) -> list[Handle]:
        return at_product(model, found.sites[k], _hook(lambda product, rows: see(k, product, rows, now[0])))

    handles = [handle for k in watched for handle in shown(k)]
    with torch.enable_grad(), evaluating(model), _frozen(model), hooked(model, handles):
        for some in batches(corpus, options, packs=found.packs):
            one = batch(corpus, some)
            predicted, _ = targets_of(one, corpus.bos is not None)
            hidden = run_batch(model, one)
            flat = hidden.detach()[:, :-1].flatten(0, 1)
            targets = one.input_ids[:, 1:].flatten()[predicted]
            for number, part in enumerate(_gradients(head, flat[predicted], targets, draws, generator)):
                now[:] = [Pass(one, number - 1 if number else None)]
                gradient = torch.zeros_like(flat)
                gradient[predicted] = part
                owing = F.pad(gradient.view_as(hidden[:, :-1]), (0, 0, 0, 1))
                torch.autograd.backward(hidden, owing, retain_graph=number < draws)
            count += int(predicted.sum())
            progress(min(count, wanted), wanted)
            if tokens is not None and count >= tokens:
                break
    return count


def _gradients(head: Head, hidden: Tensor, targets: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """(1 + draws, tokens, width) gradients of the NLL with respect to the last hidden states: of the targets, then of each draw of others.

    They differ in one row of the head's weights alone: for logits z = after(W h), ∂NLL/∂h is Wᵀ(softmax(z) · after') less the target's own
    row times its after', so that the passes through the head do not grow with the draws.
    """
    linear: Any = head.linear
    weight, bias = linear.weight, getattr(linear, "bias", None)
    rows = _ROWS if weight.device.type == "cpu" else _ROWS_GPU
    result = hidden.new_empty(1 + draws, *hidden.shape)
    for at in range(0, len(hidden), rows):
        part = slice(at, at + rows)
        raw = F.linear(hidden[part].to(weight.device), weight, bias).detach().requires_grad_()
        logits = head.after(raw).float()
        (slope,) = torch.autograd.grad(logits.sum(), raw)
        p = logits.detach().softmax(1)
        wanted = torch.cat([targets[part].to(p.device)[:, None], _draw(p, draws, generator)], 1).T
        expected = (p * slope).to(weight.dtype) @ weight
        own = weight[wanted] * slope.gather(1, wanted.T).T[..., None]
        result[:, part] = (expected - own).to(hidden.device)
    return result


def _draw(p: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """(tokens, draws) ids drawn from (tokens, vocabulary) probabilities: the first at which a uniform number is exceeded."""
    levels = torch.rand(len(p), draws, generator=generator)
    if not draws:
        return levels.to(p.device, torch.int64)
    heights = p.cumsum(1)
    return torch.searchsorted(heights, levels.to(heights) * heights[:, -1:]).clamp_max(p.shape[1] - 1)


def _hook(see: Callable[[Tensor, Rows], None]) -> Callable[[Tensor, Rows], Tensor]:
    """What shows x · ∂NLL/∂x of all that passes, x, at every backward pass."""

    def watch(given: Tensor, rows: Rows) -> Tensor:
        x: Tensor = given if given.requires_grad else given.detach().requires_grad_()  # the first of the model
        value = x.detach()

        def add(gradient: Tensor) -> None:
            see(value.float() * gradient.float(), rows)

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
    with torch.enable_grad():
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
