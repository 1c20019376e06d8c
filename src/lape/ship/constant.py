"""One thought, a constant in weights: the direction along which the input of a gate projection is 1, so that what is added there is a LoRA of rank one.

An MLP's input is no constant, but 1 is nearly a linear function of it: least squares over text, in closed form and without training. At the first
position of a text, where massive activations live (Sun et al. 2024), the same direction is fitted to 0, so that an edit leaves it as it is: with some weight
where BOS stands there, which comes nowhere else; else as much as any other position, since a first token that may come again, as a chat template's marks
do, looks the same later, where 1 is wanted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from lape.data.corpus import BosRule, Corpus, TextOptions, prepare_all
from lape.data.texts import DocumentRule, Texts
from lape.data.windows import Batch, at_once, batch, rows
from lape.errors import OptionError
from lape.measure.prompts import ask, prompt_ids
from lape.model.body import evaluating, run_batch
from lape.model.hooks import hooked
from lape.model.scope import Put
from lape.progress import Progress, each, shown

TOKENS = 3000
"""Of each language, unless said otherwise."""
ROW_TOKENS = 256
_ROWS = 16
_RIDGES = (1e-5, 1e-4, 1e-3)
"""Of the mean square of the input, tried on text that was held out. Larger ones are no better there, and worse on code and in other languages."""
_FIRST_WITH_BOS, _FIRST = 10.0, 1.0
"""How much a first position weighs against another. Where it holds BOS: they are few, and the same again and again."""
_HELD_OUT = 5
"""Of so many rows, one is held out to choose by and to say how far the constant is from one."""
_COMPARED = 512
"""Inputs held out of each language that are compared with one."""
_ASKED, _BEGINNING = 8, 24
"""Of so many rows, so many tokens are put as a question too: in a chat model's template, inputs are others than in text."""
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
    """What a constant is fitted to, text and beginnings put as questions; a fifth of the rows, every fifth, choose how before."""
    apart: list[Tensor]
    """Rows (1, tokens) that nothing is fitted to: on them the adapter is compared with the edit."""


def read(
    tokenizer: Any,
    texts: Texts,
    *,
    tokens: int = TOKENS,
    document: DocumentRule = "file",
    column: str = "text",
    bos: BosRule = "auto",
) -> dict[str, Read]:
    """Language -> `tokens` tokens of its text in rows, one of eight left apart, and the beginnings of some of the others as questions."""
    options = TextOptions(
        tokens=tokens, document=document, column=column, bos=bos, row_tokens=ROW_TOKENS, one_per_row=True
    )
    found = {}
    for language, corpus in prepare_all(texts, tokenizer, options).items():
        length = min(
            ROW_TOKENS, max(len(corpus.tokens) // _ROWS, 8)
        )  # of a short text too there are rows to leave apart
        every = rows(corpus, length, apart=False)
        apart = [row for k, row in enumerate(every) if k % _APART == _APART - 1][:_MOST_APART]
        rest = [row for row in every if row not in apart]
        size = at_once(options)
        fitted = [batch(corpus, rest[at : at + size]) for at in range(0, len(rest), size)]
        asked = [question(tokenizer, batch(corpus, [row]).input_ids, language) for row in rest[:_ASKED]]
        found[language] = Read(
            corpus, [*fitted, _side_by_side(asked)], [batch(corpus, [row]).input_ids for row in apart]
        )
    return found


def question(tokenizer: Any, row: Tensor, language: str) -> Tensor:
    """(1, tokens) ids of a text -> (1, tokens) ids of its beginning as a question."""
    text = tokenizer.decode(row[0, :_BEGINNING], skip_special_tokens=True).strip()
    return torch.tensor([prompt_ids(tokenizer, ask(tokenizer, text, source=language, target=language))])


def _side_by_side(some: Sequence[Tensor]) -> Batch:
    """(1, tokens) ids each as one batch, padded on the right."""
    ids = pad_sequence([one[0] for one in some], batch_first=True)
    at = torch.arange(ids.shape[1])
    source = torch.stack([torch.where(at < one.shape[1], at, -1) for one in some])
    return Batch(ids, None, source, source)


def constants(
    model: nn.Module, modules: Sequence[str], texts: Mapping[str, Read], *, progress: Progress = shown
) -> dict[str, Constant]:
    """The constant of each gate projection, named by its module, fitted to text.

    Takes hidden² · 24 bytes for each module, those of the result included. Raises OptionError for less text than there are dimensions to fit.
    """
    found = {name: _Inputs() for name in modules}
    for language, text in each(list(texts.items()), "fitting a constant to the input of the gates", progress):
        _collect(model, text, language, found)
    first = _FIRST_WITH_BOS if all(text.corpus.bos is not None for text in texts.values()) else _FIRST
    return {name: _fitted(name, inputs, first) for name, inputs in found.items()}


class _Moments:
    """Sums over inputs, float64: what least squares needs of them."""

    def __init__(self) -> None:
        self.count = 0
        self.square: Any = 0.0
        self.total: Any = 0.0
        self.firsts: list[Tensor] = []
        """Inputs at first positions, (n, hidden) each: they are few."""

    def add(self, later: Tensor, first: Tensor) -> None:
        """Inputs (n, hidden) at positions but the first, and at first positions."""
        self.square = self.square + (later.T @ later).double()  # of one batch, in float32: many times as fast
        self.total = self.total + later.double().sum(0)
        self.count += len(later)
        self.firsts.append(first)

    def include(self, other: _Moments) -> None:
        """Add another's, in place: there are as many as there are gates."""
        self.square, self.total = self.square + other.square, self.total + other.total
        self.count, self.firsts = self.count + other.count, self.firsts + other.firsts

    def weighed(self, ridge: float, first: float) -> Tensor:
        """(hidden, hidden) squares, with the ridge, of positions but the first and, so many times, of those."""
        both: Tensor = self.square + first * self.first()
        both += ridge * self.square.diagonal().mean() * torch.eye(len(both)).double()
        return both

    def first(self) -> Tensor:
        """(hidden, hidden) squares of first positions."""
        every = torch.cat(self.firsts).double()
        return every.T @ every


class _Inputs:
    """What goes into one gate projection: sums of what is fitted and of what is held out, and some inputs held out of each language."""

    def __init__(self) -> None:
        self.fitted, self.held = _Moments(), _Moments()
        self.some: dict[str, list[Tensor]] = {}

    def add(self, x: Tensor, first: Tensor, language: str, *, held: bool) -> None:
        """Inputs (n, hidden), and (n,) bool whether each is at a first position."""
        later = x[~first]
        (self.held if held else self.fitted).add(later, x[first])
        if held:
            kept = self.some.setdefault(language, [])
            kept.append(later[: _COMPARED - sum(map(len, kept))])


@torch.inference_mode()
def _collect(model: nn.Module, text: Read, language: str, found: Mapping[str, _Inputs]) -> None:
    """Add the inputs on one language's text: four rows of five to what is fitted, the fifth to what is held out."""
    count = 0
    with evaluating(model):
        for one in text.fitted:
            out = (torch.arange(len(one.source)) + count) % _HELD_OUT == _HELD_OUT - 1
            count += len(one.source)
            with hooked(model, [_seen(model, name, one, out, language, into) for name, into in found.items()]):
                run_batch(model, one)


def _seen(model: nn.Module, name: str, one: Batch, out: Tensor, language: str, into: _Inputs) -> Put:
    """A hook that adds what goes into a module."""
    first = torch.zeros_like(one.source, dtype=torch.bool)
    first[:, 0] = True
    counted = first | (one.source >= 0)

    def see(_module: nn.Module, args: tuple[Any, ...]) -> None:
        x = args[0].reshape(*one.source.shape, -1).cpu().float()
        for held, some in ((False, ~out), (True, out)):
            where = counted[some]
            into.add(x[some][where], first[some][where], language, held=held)

    return Put(model.get_submodule(name).register_forward_pre_hook, see)


def _fitted(name: str, found: _Inputs, first: float) -> Constant:
    fit = found.fitted
    hidden = len(fit.total) if fit.count else 0
    if fit.count < 2 * hidden or not found.held.count:
        raise OptionError(
            f"{fit.count} tokens of text were given to fit a constant to the {hidden} dimensions that go into {name}, and {found.held.count} to choose "
            f"how. Expected at least {2 * max(hidden, 1)}, in several rows of each of several languages: give more texts=, or tokens=."
        )
    some = {language: torch.cat(rows).double() for language, rows in found.some.items()}
    every = torch.cat(list(some.values()))
    tried = {ridge: torch.linalg.solve(fit.weighed(ridge, first), fit.total) for ridge in _RIDGES}
    ridge = min(tried, key=lambda one: _distance(every, tried[one]))
    spread = {language: _distance(rows, tried[ridge]) for language, rows in some.items() if len(rows)}
    at_first = float((torch.cat(found.held.firsts).double() @ tried[ridge]).square().mean().sqrt())
    fit.include(found.held)
    inverse = torch.linalg.inv(fit.weighed(ridge, first))
    kept = torch.eye(hidden).double() - first * fit.first() @ inverse
    return Constant(inverse @ fit.total, kept, spread, at_first, ridge, fit.count)


def _distance(x: Tensor, v: Tensor) -> float:
    """Root mean square of v · x − 1."""
    return float((x @ v - 1).square().mean().sqrt())
