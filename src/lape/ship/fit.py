"""How near an adapter is to the edit that it stands for: the model with the adapter beside the model with the edit, on text that nothing was fitted to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from lape.edit.edit import Edit, edited
from lape.model.body import device_of, evaluating, hidden_states, tiny_ids, unwrapped
from lape.model.editing import editing
from lape.model.loss import Head, find_head
from lape.model.scope import Put
from lape.progress import Progress, each, shown
from lape.ship.changes import LowRank
from lape.ship.constant import question

FIT = {
    **dict.fromkeys(("language", "read_as", "position"), pl.String),
    "positions": pl.Int64,
    **dict.fromkeys(("kl", "kl_median", "kl_worst", "agreement", "edit"), pl.Float64),
}
"""A row per language, way of reading (text, or prompt: as a question, in a chat model's template) and part of it (position 0, 1–3, 4–63, 64 and on):
`positions` looked at, `kl` (mean KL divergence of the next token's distribution, edit ‖ adapter, nats), `kl_median` (its median: a few rare tokens, which
the model treats as the first of a text, weigh on the mean), `kl_worst` (the largest mean of one row of text), `agreement` (share of positions with the same
likeliest token), and beside them `edit` (the same mean of edit ‖ unedited: what the edit itself does).
"""
_EACH = 24
"""Positions of a row, beside the first four, at which distributions are compared."""
_PARTS = (("0", 0, 1), ("1–3", 1, 4), ("4–63", 4, 64), ("64 and on", 64, 1 << 30))


@contextmanager
def served(model: nn.Module, parts: Sequence[LowRank]) -> Iterator[nn.Module]:
    """While inside, the model computes as an engine does that serves the adapter: each layer's output plus B·(A·input)."""
    inner = unwrapped(model)
    with editing(inner, [_update(inner, one) for one in parts]):
        yield model


def _update(model: nn.Module, one: LowRank) -> Put:
    linear = model.get_submodule(one.module)
    held: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def add(_module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        key = args[0].device, args[0].dtype
        if key not in held:
            held[key] = one.a.float().to(*key), one.b.float().to(*key)
        a, b = held[key]
        return out + F.linear(F.linear(args[0], a), b)

    return Put(linear.register_forward_hook, add, prepend=True)


@dataclass(frozen=True)
class Reference:
    """Edits at run time, as weights can hold them: some everywhere, others but for the first position of a text."""

    everywhere: Sequence[Edit]
    sparing: Sequence[Edit]

    def on(self, model: nn.Module) -> AbstractContextManager[object]:
        """While inside, the model is edited so."""
        stack = ExitStack()
        if self.everywhere:
            stack.enter_context(edited(model, self.everywhere))
        if self.sparing:
            stack.enter_context(edited(model, self.sparing, spare=True))
        return stack


@torch.inference_mode()
def largest_difference(model: Any, reference: Reference, exported: Callable[[Tensor], Tensor]) -> float:
    """The largest difference of a logit between the edit and what was exported, on a few fixed tokens, as a share of the range of all logits.

    `exported`: (rows, tokens) ids -> (rows, tokens, vocabulary) logits.
    """
    ids = tiny_ids(model)
    with evaluating(model):
        with reference.on(model):
            wanted = logits_of(model, ids).double()
        found = exported(ids).double()
    return float((found - wanted).abs().max() / (wanted.max() - wanted.min()))


def logits_of(model: Any, ids: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
    """(rows, tokens, vocabulary) logits, with some weights in the place of the model's own."""
    given = {"input_ids": ids, "use_cache": False}
    logits: Tensor = functional_call(unwrapped(model), dict(weights or {}), (), given, tie_weights=False).logits
    return logits


@torch.inference_mode()
def fit(
    model: Any,
    tokenizer: Any,
    reference: Reference,
    parts: Sequence[LowRank],
    rows: Mapping[str, Sequence[Tensor]],
    *,
    progress: Progress = shown,
) -> pl.DataFrame:
    """The adapter beside the edit on rows of text, language -> (1, tokens) ids each, and on their beginnings put as questions: `FIT`."""
    head, device = find_head(model), device_of(model)
    kinds = [(language, "text", list(some)) for language, some in rows.items()]
    kinds += [
        (language, "prompt", [question(tokenizer, one, language) for one in some]) for language, some in rows.items()
    ]
    found = []
    with evaluating(model):
        for language, read_as, some in each(kinds, "comparing the adapter with the edit", progress):
            every = [_compared(model, head, reference, parts, one.to(device)) for one in some]
            found += [{"language": language, "read_as": read_as, **row} for row in _summed(every)]
    return pl.DataFrame(found, schema=FIT)


@dataclass(frozen=True)
class _Row:
    at: Tensor
    kl: Tensor
    same: Tensor
    edit: Tensor


def _compared(model: Any, head: Head, reference: Reference, parts: Sequence[LowRank], ids: Tensor) -> _Row:
    length = ids.shape[1]
    later = torch.linspace(4, length - 1, min(_EACH, max(length - 4, 0))).round().long()
    at = torch.unique(torch.cat([torch.arange(min(4, length)), later]))

    def distribution() -> Tensor:
        return head.logits(hidden_states(model, ids)[0, at.to(ids.device)]).log_softmax(-1).cpu()

    plain = distribution()
    with reference.on(model):
        wanted = distribution()
    with served(model, parts):
        ours = distribution()
    return _Row(at, _divergence(wanted, ours), wanted.argmax(-1) == ours.argmax(-1), _divergence(wanted, plain))


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    return (p.exp() * (p - q)).sum(-1).double()


def _summed(every: Sequence[_Row]) -> Iterator[dict[str, Any]]:
    for name, start, stop in _PARTS:
        here = [(row, (row.at >= start) & (row.at < stop)) for row in every]
        here = [(row, where) for row, where in here if bool(where.any())]
        if here:
            kl, same, edit = (
                torch.cat([getattr(row, key)[where].double() for row, where in here]) for key in ("kl", "same", "edit")
            )
            worst = max(float(row.kl[where].mean()) for row, where in here)
            mean = {
                "kl": float(kl.mean()),
                "kl_median": float(kl.quantile(0.5)),
                "kl_worst": worst,
                "agreement": float(same.mean()),
                "edit": float(edit.mean()),
            }
            yield {"position": name, "positions": len(kl), **mean}
