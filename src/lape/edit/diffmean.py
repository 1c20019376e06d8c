"""DiffMean on the residual stream: the strongest simple way of steering a language in the literature, for comparison.

Marks and Tegmark 2023 (difference in means); CLaS-Bench (Gurgurov et al. 2026) for languages. Needs statistics recorded with
`--residual`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lape.edit.positions import Positions, Tokens
from lape.errors import OptionError
from lape.model.body import blocks
from lape.model.editing import editing
from lape.model.find import find
from lape.model.hooks import Alter, Rows
from lape.model.scope import Put
from lape.options import Finite, Options, Positive
from lape.values.stats import ActivationStats


@dataclass(frozen=True)
class DiffMeanOptions(Options):
    """Where and how strongly the difference of means is added."""

    layer: int
    """After which decoder block, from 0."""
    strength: Finite = 1.0
    """The difference is multiplied by it."""
    minus: Literal["source", "others"] = "source"
    """What is taken from the target's mean: the source's, or that of all other languages."""
    tokens: Tokens = "both"
    """Where it is added, as in `SteerOptions`."""
    first: Positive | None = None
    """Of the generated positions only the first N."""
    fade: float = 1.0
    """Each generated position is changed by so much of the change of the one before."""


def vector(stats: ActivationStats, options: DiffMeanOptions, *, source: str, target: str) -> Tensor:
    """DiffMean (Marks and Tegmark 2023): (width,) float64, what is added to the residual stream, in its own unit.

    It is `strength` times the mean residual stream after the block `layer` in `target`, minus that in `source` or the mean of those in all other
    languages (`minus`); means are over counted tokens. Raises OptionError for statistics recorded without `residual`, a layer that there is not, or
    a single language where others are needed; TextError for a language that was not recorded.

    Example:
        >>> from lape.edit.diffmean import DiffMeanOptions, vector
        >>> vector(stats, DiffMeanOptions(layer=1, minus="others"), source="en", target="fr").shape
        torch.Size([64])
    """
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
    """While inside, the difference of means, see `vector`, is added to the residual stream after one block.

    At which positions is for `tokens`, `first` and `fade` to say. It works in `generate`, and on leaving the model is what it was. Raises as `vector`
    does.

    Example:
        >>> from lape.edit.diffmean import DiffMeanOptions, shifted
        >>> inputs = tokenizer("en02 en03", return_tensors="pt")
        >>> with shifted(model, stats, DiffMeanOptions(layer=0, strength=3.0), source="en", target="fr"):
        ...     answer = model.generate(**inputs, max_new_tokens=3, do_sample=False)
        >>> tokenizer.decode(answer[0, 3:])
        'fr01 fr01 fr01'
    """
    amount = vector(stats, options, source=source, target=target)
    block = blocks(model, find(model))[options.layer]
    with ExitStack() as stack:

        def add(hidden: Tensor, _rows: Rows) -> Tensor:
            return hidden + amount.to(hidden.dtype).to(hidden.device)

        alter: Alter = add
        if (options.tokens, options.first, options.fade) != ("both", None, 1.0):
            where = Positions(model, options.tokens, options.first, options.fade)
            alter = stack.enter_context(where.followed()).only(add)

        def hook(_module: nn.Module, _args: Any, out: Any) -> Any:
            return alter(out, None) if isinstance(out, Tensor) else (alter(out[0], None), *out[1:])

        stack.enter_context(editing(model, [Put(block.register_forward_hook, hook)]))
        yield model
