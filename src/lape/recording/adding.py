"""Adds up the activations that pass a site, block by block, with torch alone.

What costs time is reading and writing memory, not arithmetic. So a block is copied once, into a buffer that stays in the cores' caches and that all
blocks of a forward share, and all later steps work on that buffer in place. It holds strips of columns one after the other, which torch shares out
among threads: a thread then finds what it wrote itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lape.data.corpus import FOLDS
from lape.model.numerics import summed_in
from lape.values.histogram import BINS, bins_of

_GROUP = 8
"""Blocks whose squares are added up in the blocks' own number format; beyond, everything is added in float64."""
_STRIPS, _WIDE = 4, 1024
"""Strips of columns that a CPU's block is cut into, where activations have at least so many columns."""


@dataclass(frozen=True)
class Block:
    """Consecutive tokens that are worked on at once."""

    start: int
    stop: int
    uncounted: Tensor | None
    """Positions within the block of tokens that do not count; None where all do."""
    member: Tensor
    """(folds, tokens) float32: 1 in the fold that a token counts in."""

    def copy_values(self, a: Tensor) -> Tensor:
        """Copy these tokens' values (tokens, width) in the dtype that sums are made in, 0 where a token does not count."""
        x = a[self.start : self.stop].to(summed_in(a), copy=True)
        return x if self.uncounted is None else x.index_fill_(0, self.uncounted, 0)

    def copy_into(self, buffer: Tensor, a: Tensor) -> Tensor:
        """The same values in the first rows of a buffer (strips, tokens, columns): (strips, tokens of the block, columns)."""
        x = buffer[:, : self.stop - self.start]
        x.copy_(a[self.start : self.stop].view(x.shape[1], x.shape[0], x.shape[2]).transpose(0, 1))
        return x if self.uncounted is None else x.index_fill_(1, self.uncounted, 0)


class Folds:
    """Which fold each token counts in: of a forward, or of those that reach an expert."""

    def __init__(self, fold: Tensor) -> None:
        """`fold`: (tokens,) of any integers, -1 for none."""
        self._fold = fold.to(torch.int8)
        self._on = {fold.device: self._fold}
        self._blocks: dict[tuple[torch.device, int], list[Block]] = {}
        self._buffers: dict[tuple[torch.device, torch.dtype, int], tuple[Tensor, Tensor]] = {}

    def on(self, device: torch.device) -> Tensor:
        """(tokens,) int8."""
        if device not in self._on:
            self._on[device] = self._fold.to(device)
        return self._on[device]

    def some(self, rows: Tensor) -> Folds:
        """Of the tokens with these numbers, on their device."""
        return Folds(self.on(rows.device)[rows])

    def sizes(self) -> Tensor:
        """(folds,) int64 on the CPU: how many tokens count in each."""
        return torch.bincount(self._fold[self._fold >= 0].long(), minlength=FOLDS).cpu()

    def blocks(self, device: torch.device, width: int) -> list[Block]:
        """All tokens, in blocks no longer than what is worked on at once."""
        key = (device, longest := tokens_at_once(device, width))
        if key not in self._blocks:
            # where folds came from: a GPU is not asked for positions that the CPU knows
            self._blocks[key] = list(_blocks(self._fold, longest, device))
        return self._blocks[key]

    def groups(self, device: torch.device, width: int) -> Iterator[list[Block]]:
        """The same blocks, `_GROUP` at a time."""
        blocks = self.blocks(device, width)
        return (blocks[at : at + _GROUP] for at in range(0, len(blocks), _GROUP))

    def buffers(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """Two buffers for blocks of such activations, (strips, tokens, columns) in the dtype that sums are made in, shared by all sites of a
        forward.
        """
        width, dtype = a.shape[1], summed_in(a)
        key = (a.device, dtype, width)
        if key not in self._buffers:
            strips = _STRIPS if a.device.type == "cpu" and width >= _WIDE and width % _STRIPS == 0 else 1
            shape = strips, min(tokens_at_once(a.device, width), len(self._fold)), width // strips
            self._buffers[key] = (a.new_empty(shape, dtype=dtype), a.new_empty(shape, dtype=dtype))
        return self._buffers[key]


def _blocks(fold: Tensor, longest: int, device: torch.device) -> Iterator[Block]:
    numbers = torch.arange(FOLDS, dtype=torch.int8, device=fold.device)
    for start in range(0, len(fold), longest):
        part = fold[start : start + longest]
        uncounted = torch.nonzero(part < 0)[:, 0]
        member = (part == numbers[:, None]).float().to(device)
        yield Block(start, start + len(part), uncounted.to(device) if len(uncounted) else None, member)


def tokens_at_once(device: torch.device, width: int) -> int:
    """Tokens of so many numbers each that are worked on at once: on a CPU few enough that two buffers stay in its cores' caches."""
    return max(16, 2**18 // width) if device.type == "cpu" else 2**13


def count(a: Tensor, folds: Folds, sums: Tensor, fires: Tensor) -> None:
    """Add activations (tokens, width): to (3, width) float64, their sums, those of their squares and of their positive parts; and to
    (folds, width) int64, how many are above 0.
    """
    for blocks in folds.groups(a.device, a.shape[1]):
        buffer, squares = folds.buffers(a)
        strips, _, columns = buffer.shape
        totals = buffer.new_empty(2, len(blocks), strips, columns)
        fired = buffer.new_zeros(strips, FOLDS, columns)
        for number, block in enumerate(blocks):
            x = block.copy_into(buffer, a)
            torch.sum(x, 1, out=totals[0, number])
            _add_squares(x, squares, first=number == 0)
            torch.sum(x.clamp_min_(0), 1, out=totals[1, number])
            fired.baddbmm_(block.member.to(x.dtype).expand(strips, -1, -1), x.gt_(0))  # sums of ones are exact
        sums[::2] += totals.to(sums.device).sum(1, dtype=sums.dtype).flatten(1)
        sums[1] += _add_rows(squares, blocks[0]).to(sums.device)
        fires += fired.transpose(0, 1).flatten(1).to(fires.device).long()


def moments(a: Tensor, folds: Folds, sums: Tensor) -> None:
    """Add values (tokens, width) to (2, width) float64: their sums and those of their squares."""
    for blocks in folds.groups(a.device, a.shape[1]):
        buffer, squares = folds.buffers(a)
        totals = buffer.new_empty(len(blocks), buffer.shape[0], buffer.shape[2])
        for number, block in enumerate(blocks):
            x = block.copy_into(buffer, a)
            torch.sum(x, 1, out=totals[number])
            _add_squares(x, squares, first=number == 0)
        sums[0] += totals.to(sums.device).sum(0, dtype=sums.dtype).flatten()
        sums[1] += _add_rows(squares, blocks[0]).to(sums.device)


def _add_squares(x: Tensor, squares: Tensor, *, first: bool) -> None:
    """Add x² of a block to the same rows of `squares`; of the first block of a group, which is the longest, write it there."""
    rows = squares[:, : x.shape[1]]
    if first:
        torch.mul(x, x, out=rows)
    else:
        rows.addcmul_(x, x)


def _add_rows(squares: Tensor, longest: Block) -> Tensor:
    """(width,): the sums of the rows that a group's blocks were added to."""
    return squares[:, : longest.stop - longest.start].sum(1).flatten()


def moments_of(x: Tensor) -> Tensor:
    """(2, width) of (tokens, width): sums, and sums of squares."""
    return torch.stack([x.sum(0), x.square().sum(0)])


def bin(a: Tensor, folds: Folds, counts: Tensor) -> None:
    """Add activations (tokens, width) to (width, bins) int64: how many lie in each bin of `lape.values.histogram`."""
    width = a.shape[1]
    counted = torch.nonzero(folds.on(a.device) >= 0)[:, 0]
    bins = torch.empty(len(counted), width, dtype=torch.int32, device=a.device)
    first = torch.arange(width, dtype=torch.int32, device=a.device) * BINS
    step = tokens_at_once(a.device, width)
    for at in range(0, len(counted), step):
        torch.add(bins_of(a[counted[at : at + step]].float()), first, out=bins[at : at + step])
    counts += torch.bincount(bins.flatten(), minlength=width * BINS).view(width, BINS)
