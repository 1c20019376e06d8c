"""One thought, a constant in weights: the direction along which the input of a gate projection is 1, so that what is added there is a LoRA of rank one.

An MLP's input is no constant, but 1 is nearly a linear function of it: least squares over text, in closed form and without training. At the first
position of a text, where massive activations live (Sun et al. 2024), the same direction is fitted to 0, so that an edit leaves it as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lape.data.corpus import Corpus, TextOptions, prepare
from lape.data.languages import tag
from lape.data.texts import Texts
from lape.data.windows import Batch, at_once, batch, rows
from lape.errors import OptionError
from lape.model.body import evaluating, run_batch
from lape.model.hooks import hooked
from lape.model.scope import Put
from lape.progress import Progress, each, silent

TOKENS = 3000
"""Of each language, unless said otherwise."""
ROW_TOKENS = 256
_ROWS = 16
_RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Of the mean square of the input, tried on text that was held out."""
_FIRST = 10.0
"""How much a first position weighs against another: they are few, and the same again and again."""
_HELD_OUT = 5
"""Of so many rows, one is held out to choose the ridge and to say how far the constant is from one."""
_APART, _MOST_APART = 8, 4
"""Of so many rows, one is left apart altogether, of the first of them."""


@dataclass(frozen=True, eq=False)
class Constant:
    """What stands for 1 in the input of one gate projection."""

    direction: Tensor
    """(hidden,) float64: direction · input is about 1 at every position of a text but the first, and about 0 there."""
    kept: Tensor
    """(hidden, hidden) float64: a row of weights times it gives what the row gives at every position but the first, and about 0 there."""
    spread: dict[str, float]
    """Language -> root mean square of direction · input − 1 on text that was held out."""
    first: float
    """Root mean square of direction · input at first positions."""
    ridge: float
    tokens: int


@dataclass(frozen=True)
class Read:
    """A language's text for an export."""

    corpus: Corpus
    fitted: list[Batch]
    """What a constant is fitted to; a fifth of its rows, every fifth, choose the ridge before."""
    apart: list[Tensor]
    """Rows (1, tokens) that nothing is fitted to: on them the adapter is compared with the edit."""


def read(tokenizer: Any, texts: Texts, *, tokens: int = TOKENS) -> dict[str, Read]:
    """Language -> `tokens` tokens of its text in rows, one of eight left apart."""
    options = TextOptions(tokens=tokens, row_tokens=ROW_TOKENS, one_per_row=True)
    found = {}
    for language, source in texts.items():
        corpus = prepare(tag(language), source, tokenizer, options)
        length = min(
            ROW_TOKENS, max(len(corpus.tokens) // _ROWS, 8)
        )  # of a short text too there are rows to leave apart
        every = rows(corpus, length, apart=False)
        apart = [row for k, row in enumerate(every) if k % _APART == _APART - 1][:_MOST_APART]
        rest = [row for row in every if row not in apart]
        size = at_once(options)
        fitted = [batch(corpus, rest[at : at + size]) for at in range(0, len(rest), size)]
        found[tag(language)] = Read(corpus, fitted, [batch(corpus, [row]).input_ids for row in apart])
    return found


def constants(
    model: nn.Module, modules: Sequence[str], texts: Mapping[str, Read], *, progress: Progress = silent
) -> dict[str, Constant]:
    """The constant of each gate projection, named by its module, fitted to text.

    Takes hidden² · 32 bytes for each module while it runs. Raises OptionError for less text than there are dimensions to fit.
    """
    found = {name: (_Moments(), dict[str, _Moments]()) for name in modules}
    for language, text in each(list(texts.items()), "fitting a constant to the input of the gates", progress):
        _collect(model, text, language, found)
    return {name: _fitted(name, fit, held) for name, (fit, held) in found.items()}


class _Moments:
    """Sums over inputs: what least squares needs of them."""

    def __init__(self) -> None:
        self.count = self.firsts = 0
        self.square: Any = 0.0
        self.total: Any = 0.0
        self.first: Any = 0.0

    def add(self, x: Tensor, first: Tensor) -> None:
        """Inputs (n, hidden), and (n,) bool whether each is at a first position."""
        later, begins = x[~first], x[first]
        self.square = self.square + (later.T @ later).double()  # of one batch, in float32: many times as fast
        self.total = self.total + later.double().sum(0)
        self.first = self.first + (begins.T @ begins).double()
        self.count, self.firsts = self.count + len(later), self.firsts + len(begins)

    def __add__(self, other: _Moments) -> _Moments:
        both = _Moments()
        both.count, both.firsts = self.count + other.count, self.firsts + other.firsts
        both.square, both.total, both.first = (
            self.square + other.square,
            self.total + other.total,
            self.first + other.first,
        )
        return both

    def error(self, v: Tensor) -> float:
        """Mean of (v · x − 1)² over positions but the first."""
        return max(float((v @ self.square @ v - 2 * (v @ self.total)) / max(self.count, 1) + 1), 0.0)

    def at_first(self, v: Tensor) -> float:
        """Mean of (v · x)² over first positions."""
        return max(float(v @ self.first @ v) / max(self.firsts, 1), 0.0)

    def solved(self, ridge: float) -> Tensor:
        """(hidden, hidden) inverse of what is weighed together, and the ridge."""
        both = self.square + _FIRST * self.first
        inverse: Tensor = torch.linalg.inv(both + ridge * self.square.diagonal().mean() * torch.eye(len(both)).double())
        return inverse


_Found = Mapping[str, tuple[_Moments, dict[str, _Moments]]]


@torch.inference_mode()
def _collect(model: nn.Module, text: Read, language: str, found: _Found) -> None:
    """Add the inputs on one language's text: four rows of five to what is fitted, the fifth to what is held out."""
    held = {name: apart.setdefault(language, _Moments()) for name, (_, apart) in found.items()}
    count = 0
    with evaluating(model):
        for one in text.fitted:
            out = (torch.arange(len(one.source)) + count) % _HELD_OUT == _HELD_OUT - 1
            count += len(one.source)
            with hooked([_seen(model, name, one, out, found[name][0], held[name]) for name in found]):
                run_batch(model, one)


def _seen(model: nn.Module, name: str, one: Batch, out: Tensor, fit: _Moments, held: _Moments) -> Put:
    """A hook that adds what goes into a module."""
    first = torch.zeros_like(one.source, dtype=torch.bool)
    first[:, 0] = True
    counted = first | (one.source >= 0)

    def see(_module: nn.Module, args: tuple[Any, ...]) -> None:
        x = args[0].reshape(*one.source.shape, -1).cpu().float()
        for some, into in ((~out, fit), (out, held)):
            where = counted[some]
            into.add(x[some][where], first[some][where])

    return Put(model.get_submodule(name).register_forward_pre_hook, see)


def _fitted(name: str, fit: _Moments, held: Mapping[str, _Moments]) -> Constant:
    apart = sum(held.values(), _Moments())
    hidden = len(fit.total) if fit.count else 0
    if fit.count < 2 * hidden or not apart.count:
        raise OptionError(
            f"{fit.count} tokens of text were given to fit a constant to the {hidden} dimensions that go into {name}. "
            f"Expected at least {2 * max(hidden, 1)}: give texts= of several languages, on the command line --text TAG=PATH."
        )
    tried = {ridge: fit.solved(ridge) @ fit.total for ridge in _RIDGES}
    ridge = min(tried, key=lambda one: apart.error(tried[one]))
    spread = {language: apart_.error(tried[ridge]) ** 0.5 for language, apart_ in held.items() if apart_.count}
    whole = fit + apart
    inverse = whole.solved(ridge)
    v = inverse @ whole.total
    kept = torch.eye(hidden).double() - _FIRST * whole.first @ inverse
    return Constant(v, kept, spread, apart.at_first(tried[ridge]) ** 0.5, ridge, whole.count)
