"""DiffMean on the residual stream: the strongest simple way of steering a language in the literature, for comparison.

Marks and Tegmark 2023 (difference in means); CLaS-Bench (Gurgurov et al. 2026) for languages. Needs statistics recorded with
`--residual`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from packaging.version import Version
from torch import Tensor, nn

from lape.edit.positions import Positions, Tokens
from lape.errors import ModelError, OptionError
from lape.model.body import blocks
from lape.model.editing import editing
from lape.model.find import find
from lape.model.hooks import Alter, Rows, hooked
from lape.model.scope import Put
from lape.options import check_choices, positive
from lape.values.stats import ActivationStats

_COMPILED = (2, 13)
"""The oldest torch that was seen to run hooks of decoder blocks in compiled code; 2.7 does not."""


@dataclass(frozen=True)
class DiffMeanOptions:
    """Where and how strongly the difference of means is added."""

    layer: int
    """After which decoder block, from 0."""
    strength: float = 1.0
    """The difference is multiplied by it."""
    minus: Literal["source", "others"] = "source"
    """What is taken from the target's mean: the source's, or that of all other languages."""
    tokens: Tokens = "both"
    """Where it is added, as in `SteerOptions`."""
    first: int | None = None
    """Of the generated positions only the first N."""
    fade: float = 1.0
    """Each generated position is changed by so much of the change of the one before."""

    def __post_init__(self) -> None:
        check_choices(self)
        positive(self, "first")
        if not math.isfinite(self.strength):
            raise OptionError(f"strength is {self.strength}. Expected a finite number such as 1.0.")


def vector(stats: ActivationStats, options: DiffMeanOptions, *, source: str, target: str) -> Tensor:
    """(width,) float64: what is added. Raises OptionError where no residual sums were recorded, or for a layer there is not."""
    stats.check_whole()
    means = {language: _mean(stats, language) for language in stats.languages}
    own = means[stats.canonical(target)]
    if not 0 <= options.layer < len(own):
        raise OptionError(f"layer is {options.layer}. Expected 0 to {len(own) - 1}.")
    if options.minus == "source":
        base = means[stats.canonical(source)]
    else:
        others = [mean for language, mean in means.items() if language != stats.canonical(target)]
        if not others:
            raise OptionError(
                f"Only {stats.canonical(target)} was recorded, so there are no others to compare it with. Record two or more."
            )
        base = torch.stack(others).mean(0)
    return options.strength * (own - base)[options.layer]


def _mean(stats: ActivationStats, language: str) -> Tensor:
    """(layers, width) float64: the mean residual stream after each block, over counted tokens."""
    one = stats[language]
    return one.sums("residual") / int(one.tokens.sum())


@contextmanager
def shifted(
    model: nn.Module, stats: ActivationStats, options: DiffMeanOptions, *, source: str, target: str
) -> Iterator[nn.Module]:
    """While inside, the difference of means is added to the residual stream after one block.

    Raises ModelError for a compiled model under a torch whose compiled code may pass over the hooks of blocks.
    """
    if hasattr(model, "_orig_mod") and Version(torch.__version__).release < _COMPILED:
        raise ModelError(
            f"torch {torch.__version__} may ignore hooks on the blocks of a compiled model; with {'.'.join(map(str, _COMPILED))} and newer they were seen "
            "to run. Use the model as it was before torch.compile, or a newer torch."
        )
    amount = vector(stats, options, source=source, target=target)
    block = blocks(model, find(model))[options.layer]
    with ExitStack() as stack:

        def add(hidden: Tensor, _rows: Rows) -> Tensor:
            return hidden + amount.to(hidden.dtype).to(hidden.device)

        alter: Alter = add
        stack.enter_context(editing(model))
        if (options.tokens, options.first, options.fade) != ("both", None, 1.0):
            where = Positions(model, options.tokens, options.first, options.fade)
            alter = stack.enter_context(where.followed()).only(add)

        def hook(_module: nn.Module, _args: Any, out: Any) -> Any:
            return alter(out, None) if isinstance(out, Tensor) else (alter(out[0], None), *out[1:])

        stack.enter_context(hooked([Put(block.register_forward_hook, hook)]))
        yield model
