"""Which attention heads make one answer likelier than another: a backward pass through each shows all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import polars as pl
import torch
from torch import nn

from lape.errors import OptionError
from lape.measure.divergence import Pair
from lape.model.attribution import attribute_answers
from lape.model.heads import find_heads
from lape.model.loss import find_head
from lape.values.heads import HeadSpace

RANKED = {"layer": pl.Int64, "head": pl.Int64, "nats": pl.Float64}
"""A row per attention head, the strongest first: by how many `nats` the right answers gain on the wrong ones, to first order, where what it writes is
doubled.
"""


def rank_heads(model: nn.Module, right: Sequence[Pair], wrong: Sequence[Pair], *, first: int = 8) -> pl.DataFrame:
    """Attention heads by how much they make right answers likelier than wrong ones: `RANKED`.

    The gradient of log P(right) − log P(wrong), means over answers of their `first` tokens, with respect to the scale of each head, at 1. It is as
    true as a tangent is: what is taken from it is to be tried. Ours; in the manner of attribution patching (Nanda 2023).

    `right`, `wrong`: prompts and answers by their ids (`lape.measure.answer_loss.ids_of`). Raises OptionError where one of them has no answer, ModelError
    where a model's heads, or gradients, cannot be had.

    Example:
        >>> from lape.measure.answer_loss import ids_of
        >>> from lape.measure.heads import rank_heads
        >>> right, wrong = [ids_of(tokenizer, "en01 en02", "fr03 fr04")], [ids_of(tokenizer, "en01 en02", "en03 en04")]
        >>> rank_heads(model, right, wrong).columns
        ['layer', 'head', 'nats']
    """
    found, head = find_heads(model), find_head(model)
    space = cast(HeadSpace, found.space)
    sums = torch.zeros(len(space), dtype=torch.float64)
    for sign, pairs in ((1, right), (-1, wrong)):
        asked = [(prompt, answer[:first]) for prompt, answer in pairs if prompt and answer]
        if not asked:
            raise OptionError(
                "There is no answer to compare. Expected right and wrong ones, with at least a token each."
            )
        sums += sign * attribute_answers(model, head, asked, found)
    rows = []
    for stretch, width in zip(space.stretches, space.widths, strict=True):
        nats = sums[stretch.start : stretch.stop].view(-1, width).sum(1).tolist()
        rows += [{"layer": stretch.layer, "head": k, "nats": one} for k, one in enumerate(nats)]
    return pl.DataFrame(rows, schema=RANKED).sort("nats", descending=True, maintain_order=True)
