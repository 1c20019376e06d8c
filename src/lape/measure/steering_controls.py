"""Controls of a steering edit: as strong, but with other neurons, or with its values in the wrong places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lape.edit.edit import Add, Edit, Off, Set, edited, values_at
from lape.edit.positions import Tokens
from lape.measure.controls import random_like
from lape.model.body import evaluating, hidden_states
from lape.model.find import find
from lape.model.hooks import Rows, at_output, watching
from lape.model.site import Sites
from lape.values.neurons import NeuronSet


def permuted(edits: Sequence[Edit], generator: torch.Generator) -> list[Edit]:
    """The same neurons, each with the value of another of them."""
    return [_moved(edit, edit.neurons, generator) for edit in edits]


def transplanted(edits: Sequence[Edit], onto: NeuronSet, generator: torch.Generator) -> list[Edit]:
    """The values of what is set or added given to the neurons of another language; what is off stays off but for these."""
    return [Off(edit.neurons - onto) if isinstance(edit, Off) else _moved(edit, onto, generator) for edit in edits]


def randomised(edits: Sequence[Edit], excluded: NeuronSet, generator: torch.Generator) -> list[Edit]:
    """As many random neurons in each layer instead, none of `excluded`, with the same values in another order."""
    result = []
    for edit in edits:
        drawn = random_like(edit.neurons, excluded, generator)
        excluded = excluded | drawn  # no neuron is both off and added to, as in steering
        result.append(Off(drawn) if isinstance(edit, Off) else _moved(edit, drawn, generator))
    return result


def _moved(edit: Edit, onto: NeuronSet, generator: torch.Generator) -> Edit:
    """An edit on other neurons (or the same), its values dealt out anew; repeated where there are more neurons."""
    if not isinstance(edit, (Set, Add)):
        return replace(edit, neurons=onto)
    values = values_at(edit.value, edit.neurons.flat)
    times = -(-len(onto) // max(len(values), 1))
    dealt = torch.cat([values[torch.randperm(len(values), generator=generator)] for _ in range(times)])[: len(onto)]
    spread = torch.zeros(len(onto.space), dtype=torch.float64)
    spread[onto.flat] = dealt
    return replace(edit, neurons=onto, value=spread)


def matched_norm(
    model: Any, edits: Sequence[Edit], like: Sequence[Edit], ids: Sequence[Tensor], tokens: Tokens = "both"
) -> list[Edit]:
    """`edits` with set and added values scaled, layer by layer, until they change the residual stream as much as `like` does.

    What an edit changes is measured on prompts, `ids` (1, tokens) each: the norm of the change of each MLP's output, its
    input being that of the unedited model. Where switching off alone changes more, nothing is added.
    """
    found = find(model)

    def squares(times: float) -> Tensor:
        factor = torch.full((len(found.space),), times, dtype=torch.float64)
        return change_norms(model, [_times(edit, factor) for edit in edits], ids, tokens).square()

    wanted = change_norms(model, like, ids, tokens).square()
    none, once, opposite = squares(0.0), squares(1.0), squares(-1.0)
    # A layer's change is a fixed part plus the factor times another, so its square is a quadratic in the factor.
    bend, slope, short = (once + opposite) / 2 - none, (once - opposite) / 2, (wanted - none).clamp_min(0)
    root = (slope.square() + 4 * bend.clamp_min(0) * short).sqrt() - slope
    factor = (root / (2 * bend)).where(short > 0, 0.0).where(bend > 0, 1.0)
    per_neuron = found.space.per_neuron(factor)
    return [_times(edit, per_neuron) for edit in edits]


def _times(edit: Edit, factor: Tensor) -> Edit:
    if not isinstance(edit, (Set, Add)):
        return edit
    return replace(edit, value=torch.as_tensor(edit.value, dtype=torch.float64) * factor)


@torch.inference_mode()
def change_norms(model: Any, edits: Sequence[Edit], ids: Sequence[Tensor], tokens: Tokens = "both") -> Tensor:
    """(stretches,) float64: root mean square over tokens of ‖change of the MLP's output‖, all inputs being the unedited ones."""
    found = find(model)
    total, count = torch.zeros(len(found.sites), dtype=torch.float64), 0
    with evaluating(model):
        for one in ids:
            with _outputs(model, found) as plain:
                hidden_states(model, one)
            with _replayed(model, found, plain, total), edited(model, edits, tokens=tokens):
                hidden_states(model, one)
            count += one.numel()
    return (total / max(count, 1)).sqrt()


@contextmanager
def _outputs(model: nn.Module, found: Sites) -> Iterator[dict[int, Tensor]]:
    """While inside, each down projection's output is kept."""
    kept: dict[int, Tensor] = {}

    def keep(k: int, out: Tensor, _rows: Rows) -> None:
        kept[k] = out

    with watching(model, found.sites, keep, at_output):
        yield kept


@contextmanager
def _replayed(model: nn.Module, found: Sites, plain: dict[int, Tensor], total: Tensor) -> Iterator[None]:
    """While inside, each down projection gives what it gave before; the square of the difference is added up."""

    def replay(k: int, out: Tensor, _rows: Rows) -> Tensor:
        total[k] += float((out.float() - plain[k].float()).square().sum())
        return plain[k]

    with watching(model, found.sites, replay, at_output):
        yield
