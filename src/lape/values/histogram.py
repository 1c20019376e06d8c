"""The fixed grid on which activations are counted in a histogram: 70 bins, finer near 0, the same for every neuron and model."""

from __future__ import annotations

import torch
from torch import Tensor

_LOWEST, _HIGHEST, _HIGHEST_NEGATIVE = -10, 13, -1
"""Powers of two between which edges lie; below 0 up to −0.75 only, since no usual activation function goes much lower."""
_NEGATIVE = 2 * (_HIGHEST_NEGATIVE - _LOWEST + 1)
_POSITIVE = 2 * (_HIGHEST - _LOWEST + 1)
_FIRST = 2 * (127 + _LOWEST)
"""The exponent and the first bit of the mantissa of the smallest edge, as float32 holds them."""


def _edges() -> Tensor:
    positive = [2.0**power * part for power in range(_LOWEST, _HIGHEST + 1) for part in (1, 1.5)]
    return torch.tensor([*(-edge for edge in reversed(positive[:_NEGATIVE])), 0.0, *positive])


EDGES = _edges()
"""(69,) float32, rising: −0.75 … −2⁻¹⁰, 0, 2⁻¹⁰ … 12,288; two in each octave, at 2ⁿ and 1.5 · 2ⁿ. Bin b holds the activations
above edge b − 1 and not above edge b; the first and the last bin are open to one side."""
BINS = len(EDGES) + 1
ZERO = _NEGATIVE
"""The bin that ends in 0; those after it count what fires."""


def bins_of(x: Tensor) -> Tensor:
    """The bin of each of some float32 numbers: int32, same shape. What `torch.bucketize(x, EDGES)` gives, many times faster."""
    bits = x.contiguous().view(torch.int32)
    sign = bits >> 31  # −1 below 0, and for −0
    # Above 0 a number on an edge belongs below it, hence one step less before the low bits fall away; 0 itself becomes −1.
    level = (bits & 0x7FFFFFFF).sub_(sign + 1).bitwise_right_shift_(22)
    zero = level >> 31
    place = level.sub_(_FIRST - 1).clamp_(0, _POSITIVE).bitwise_xor_(sign)  # −place − 1 below 0
    return place.add_(zero).add_(ZERO + 1).clamp_min_(0)
