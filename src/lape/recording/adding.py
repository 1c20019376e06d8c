"""What is added up of the activations that pass a site: in one pass by loops in C where that can be (`lape.recording.fused`), else by torch."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from lape.data.corpus import FOLDS
from lape.model.numerics import summed_in
from lape.recording.fused import Fused, compiled
from lape.values.histogram import BINS, bins_of

_log = logging.getLogger("lape")
_NEAR = 1e-5
"""How far sums of a few hundred numbers, in float32 within blocks, may lie from the definition's, as a share."""


@dataclass(frozen=True)
class Block:
    """Consecutive tokens that are worked on at once."""

    start: int
    stop: int
    uncounted: Tensor | None
    """Positions within the block of tokens that do not count; None where all do."""
    member: Tensor
    """(folds, tokens) float32: 1 in the fold that a token counts in."""

    def of(self, a: Tensor) -> Tensor:
        """A copy of these tokens' values (tokens, width) in the format that sums are made in, 0 where a token does not count."""
        x = a[self.start : self.stop].to(summed_in(a), copy=True)
        return x if self.uncounted is None else x.index_fill_(0, self.uncounted, 0)


class Folds:
    """Which fold each token counts in: of a forward, or of those that reach an expert."""

    def __init__(self, fold: Tensor) -> None:
        """`fold`: (tokens,) of any integers, -1 for none."""
        self._fold = fold.to(torch.int8)
        self._on = {fold.device: self._fold}
        self._blocks: dict[tuple[torch.device, int], list[Block]] = {}

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


def _blocks(fold: Tensor, longest: int, device: torch.device) -> Iterator[Block]:
    every = torch.arange(FOLDS, dtype=torch.int8, device=fold.device)
    for start in range(0, len(fold), longest):
        part = fold[start : start + longest]
        uncounted = torch.nonzero(part < 0)[:, 0]
        member = (part == every[:, None]).float().to(device)
        yield Block(start, start + len(part), uncounted.to(device) if len(uncounted) else None, member)


def tokens_at_once(device: torch.device, width: int) -> int:
    """Tokens of so many numbers each that are worked on at once: on a CPU few enough to stay in its cache."""
    return max(16, 2**18 // width) if device.type == "cpu" else 2**13


def count(a: Tensor, folds: Folds, sums: Tensor, fires: Tensor) -> None:
    """Add activations (tokens, width): to (3, width) float64, their sums, those of their squares and of their positive parts; and to
    (folds, width) int64, how many are above 0.
    """
    if (fused := _fused_on(a.device)) is not None:
        fused.count(a, folds.on(a.device), sums, fires)
    else:
        _count(a, folds, sums, fires)


def _count(a: Tensor, folds: Folds, sums: Tensor, fires: Tensor) -> None:
    for block in folds.blocks(a.device, a.shape[1]):
        x = block.of(a)
        positive = x.clamp_min(0)
        sums[0] += x.sum(0).to(sums.device)
        sums[2] += positive.sum(0).to(sums.device)
        sums[1] += x.square_().sum(0).to(sums.device)
        fired = positive.sign_()  # 1 where the activation is above 0
        fires += (block.member.to(x.dtype) @ fired).to(fires.device).long()


def moments(a: Tensor, folds: Folds, sums: Tensor) -> None:
    """Add values (tokens, width) to (2, width) float64: their sums and those of their squares."""
    if (fused := _fused_on(a.device)) is not None:
        fused.moments(a, folds.on(a.device), sums)
    else:
        _moments(a, folds, sums)


def _moments(a: Tensor, folds: Folds, sums: Tensor) -> None:
    for block in folds.blocks(a.device, a.shape[1]):
        sums += moments_of(block.of(a)).to(sums.device)


def moments_of(x: Tensor) -> Tensor:
    """(2, width) of (tokens, width): sums, and sums of squares."""
    return torch.stack([x.sum(0), x.square().sum(0)])


def bin(a: Tensor, folds: Folds, counts: Tensor) -> None:
    """Add activations (tokens, width) to (width, bins) int64: how many lie in each bin of `lape.values.histogram`."""
    if (fused := _fused_on(a.device)) is not None:
        fused.bin(a, folds.on(a.device), counts)
    else:
        _bin(a, folds, counts)


def _bin(a: Tensor, folds: Folds, counts: Tensor) -> None:
    width = a.shape[1]
    counted = torch.nonzero(folds.on(a.device) >= 0)[:, 0]
    bins = torch.empty(len(counted), width, dtype=torch.int32, device=a.device)
    first = torch.arange(width, dtype=torch.int32, device=a.device) * BINS
    step = tokens_at_once(a.device, width)
    for at in range(0, len(counted), step):
        torch.add(bins_of(a[counted[at : at + step]].float()), first, out=bins[at : at + step])
    counts += torch.bincount(bins.flatten(), minlength=width * BINS).view(width, BINS)


def summed_by(device: torch.device) -> str:
    """What adds up what a device computes, outside of compiled graphs: loops in C, or torch."""
    return "torch" if _fused_on(device) is None else "loops in C"


def _fused_on(device: torch.device) -> Fused | None:
    return fused() if device.type == "cpu" else None


@cache
def fused() -> Fused | None:
    """The loops in C, proven; None where there is no compiler. Where one fails, or what it makes counts otherwise, a line in the log says so."""
    try:
        made = compiled()
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever a compiler and a loader do
        said = getattr(error, "stderr", None) or str(error).encode()
        _log.warning(
            "Sums are made by torch, since the loops in C cannot be compiled: %s",
            said.decode(errors="replace").strip().split("\n")[0],
        )
        return None
    if (wrong := _differs(made)) is not None:
        _log.warning("Sums are made by torch, since those of the loops in C differ: %s", wrong)
        return None
    return made


def _differs(made: Fused) -> str | None:
    """What the loops add up otherwise than torch does, of a few numbers of each format; None where all is equal but for rounding."""
    generator = torch.Generator().manual_seed(0)
    exact = torch.randn(300, 550, generator=generator, dtype=torch.float64)
    exact[torch.rand(exact.shape, generator=generator) < 0.1] = 0
    folds = Folds(torch.randint(-1, FOLDS, (300,), generator=generator).sort().values.roll(50))
    fold = folds.on(exact.device)
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        a, width = exact.to(dtype), exact.shape[1]
        found, expected = (
            (
                torch.zeros(3, width, dtype=torch.float64),
                torch.zeros(FOLDS, width, dtype=torch.int64),
                torch.zeros(2, width, dtype=torch.float64),
                torch.zeros(width, BINS, dtype=torch.int64),
            )
            for _ in range(2)
        )
        made.count(a, fold, found[0], found[1])
        made.moments(a, fold, found[2])
        made.bin(a, fold, found[3])
        _count(a, folds, expected[0], expected[1])
        _moments(a, folds, expected[2])
        _bin(a, folds, expected[3])
        scale = a.double().square().sum(0).clamp_min(1)
        for ours, theirs in zip(found, expected, strict=True):
            same = (
                torch.equal(ours, theirs)
                if ours.dtype == torch.int64
                else bool(((ours - theirs).abs() <= _NEAR * scale).all())
            )
            if not same:
                return f"in {dtype}"
    return None
