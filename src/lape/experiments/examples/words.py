"""The tokens that a neuron's output row promotes and suppresses, seen through the unembedding."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import polars as pl
import torch
from torch import Tensor, nn

from lape.experiments.examples.pieces import decoded
from lape.model.body import body, present, unwrapped
from lape.model.find import find
from lape.model.loss import Head
from lape.model.numerics import summed_in
from lape.model.site import Site
from lape.model.weights import has_adapter
from lape.progress import Progress, shown
from lape.values.neurons import NeuronSet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WORDS = {"flat": pl.Int64, "kind": pl.String, "rank": pl.Int64, "token": pl.String, "score": pl.Float32}
"""A row per neuron and token: `flat` (index of the neuron), `kind` (promotes or suppresses), `rank` (0 is the highest, or the lowest), `token`, `score`
(the dot product of the token's unembedding with the neuron's column of the down projection: the logit lens, after Geva et al. 2022, without norms).
"""
MOST = 10
"""Tokens of each kind."""
_NEURONS, _ENTRIES = 1024, 8192
"""Neurons and vocabulary entries whose scores exist at once."""
_UNUSED = re.compile(r"[<\[]\W*(unused|reserved)[^<>\[\]]*[>\]]", re.IGNORECASE)


@torch.inference_mode()
def words(
    model: PreTrainedModel | nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    head: Head,
    chosen: NeuronSet,
    progress: Progress = shown,
) -> pl.DataFrame:
    """The 10 tokens with the highest and the lowest dot product of their unembedding with each neuron's column of the down
    projection, which is what an activation adds to the residual stream (Geva et al. 2022, "Transformer Feed-Forward Layers Build
    Predictions by Promoting Concepts in the Vocabulary Space"): `WORDS`, one row each.

    Special and unused tokens are left out. Norms on the way are not applied, neither between activation and down projection, nor after it, nor before
    the head. In a gated MLP the activation is multiplied by the up branch, which may be negative: then the two kinds change places.
    """
    weight: Any = head.linear.weight
    names = usable(tokenizer, len(weight))
    allowed = torch.zeros(len(weight), dtype=torch.bool)
    allowed[list(names)] = True
    allowed = allowed.to(weight.device)
    frames = [pl.DataFrame(schema=WORDS)]
    for at in range(0, len(chosen), _NEURONS):
        progress("looking up tokens", at, len(chosen))
        flat = chosen.flat[at : at + _NEURONS]
        columns = down_columns(model, flat).to(weight.device)
        for kind, sign in (("promotes", 1), ("suppresses", -1)):
            scores, ids = _highest(weight, columns * sign, allowed)
            frames.append(_frame(flat, kind, scores * sign, ids, lambda k: token_text(tokenizer, k, names[k])))
    progress("looking up tokens", len(chosen), len(chosen))
    return pl.concat(frames).sort("flat", "kind", "rank")  # promotes before suppresses


def usable(tokenizer: PreTrainedTokenizerBase, entries: int) -> dict[int, str]:
    """Id -> text of the tokens of a vocabulary that a model with so many `entries` can write: neither special nor unused."""
    special = set(tokenizer.all_special_ids)
    special |= {k for k, one in getattr(tokenizer, "added_tokens_decoder", {}).items() if one.special}
    return {
        number: entry
        for entry, number in sorted(tokenizer.get_vocab().items(), key=lambda one: one[1])
        if number < entries and number not in special and not _UNUSED.fullmatch(entry)
    }


def token_text(tokenizer: PreTrainedTokenizerBase, number: int, entry: str) -> str:
    """A single token as text, its space kept; half a character as its vocabulary entry."""
    if "▁" in entry:  # decoders strip a text's first space
        return entry.replace("▁", " ")
    text = decoded(tokenizer, [number])
    return entry if "�" in text or not text else text


def _highest(weight: Tensor, columns: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """The highest scores of each neuron and the ids that they are of, (neurons, 10) each; -inf where there are no more. The lower id
    comes first where scores are equal.
    """
    scores = torch.empty(len(columns), 0, dtype=columns.dtype, device=columns.device)
    ids = torch.empty(len(columns), 0, dtype=torch.int64, device=columns.device)
    for at in range(0, len(weight), _ENTRIES):
        part = slice(at, at + _ENTRIES)
        block = (columns @ weight[part].to(columns.dtype).T).masked_fill_(~allowed[part], -torch.inf)
        top = block.topk(min(MOST, block.shape[1]), dim=1)
        ids, order = torch.cat([ids, top.indices + at], 1).sort(1)
        scores = torch.cat([scores, top.values], 1).gather(1, order)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        scores, ids = scores[:, :MOST], ids.gather(1, order)[:, :MOST]
    return scores, ids


def _frame(flat: Tensor, kind: str, scores: Tensor, ids: Tensor, name: Callable[[int], str]) -> pl.DataFrame:
    j, rank = torch.nonzero(torch.isfinite(scores), as_tuple=True)
    columns = {
        "flat": flat[j.cpu()].numpy(),
        "kind": [kind] * len(j),
        "rank": rank.cpu().numpy(),
        "token": [name(number) for number in ids[j, rank].tolist()],
        "score": scores[j, rank].float().cpu().numpy(),
    }
    return pl.DataFrame(columns, schema=WORDS)


def down_columns(model: PreTrainedModel | nn.Module, flat: Tensor) -> Tensor:
    """(neurons, width of the residual stream) columns of the down projections of some neurons, sorted flat indices; float32, or float64 as
    the weights are, on the CPU. Quantised layers and adapters are read by running them, as `sites.down_norms` does.
    """
    found = find(model)
    return torch.cat([_columns(model, found.sites[k], local) for k, local in found.space.split(flat).items()])


def _columns(model: Any, site: Site, local: Tensor) -> Tensor:
    linear: Any = unwrapped(model).get_submodule(site.down)
    if site.layout is None and (has_adapter(linear) or not torch.is_floating_point(linear.weight)):
        dtype = next(body(model).parameters()).dtype
        rows = torch.nn.functional.one_hot(local, site.width).to(linear.weight.device, dtype)
        return _exact(linear(rows) - linear(torch.zeros_like(rows[:1])))
    with present(linear):
        if site.layout is not None and site.expert is not None:
            weight = site.layout.down.weight(linear, site.expert).T
        else:
            weight = linear.weight if hasattr(linear, "nx") else linear.weight.T
        return _exact(weight[local.to(weight.device)])


def _exact(columns: Tensor) -> Tensor:
    return columns.detach().cpu().to(summed_in(columns))
