"""How far two computations of the same thing may lie apart, and whether they overflowed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lape.errors import ModelError


def limited(x: Tensor, limit: float | None, *, above_only: bool = False) -> Tensor:
    """Clamped to ±limit, or from above alone."""
    if limit is None:
        return x
    return x.clamp(max=limit) if above_only else x.clamp(-limit, limit)


def gap(a: Tensor, b: Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    scale = b.abs().amax()
    return float((a - b).abs().amax() / scale) if scale > 0 else float("inf")


def close(a: Tensor, b: Tensor) -> bool:
    """Equal up to the rounding of the coarser dtype."""
    return a.shape == b.shape and gap(a, b) <= max(tolerance(a.dtype), tolerance(b.dtype))


def check_finite(x: Tensor | NDArray[Any], what: str, part: str | None = None) -> None:
    """Raise ModelError where something that a model computed is infinite or not a number; `part`: what (parts,) values are of."""
    finite = np.isfinite(x) if isinstance(x, np.ndarray) else torch.isfinite(x)
    if not bool(finite.all()):
        place = f" (first in {part} {finite.tolist().index(False) + 1})" if part else ""
        raise ModelError(
            f"{what} has values that are infinite or not numbers{place}. Load the model in bfloat16 or float32: dtype='bfloat16'. "
            "If they remain, its weights hold such values: load another copy of it, or an earlier one."
        )


def tolerance(dtype: torch.dtype) -> float:
    """How far two computations of the same thing may lie apart. Parts of a float64 model may compute in float32."""
    if dtype in (torch.float32, torch.float64):
        return 64 * torch.finfo(torch.float32).eps
    return 4 * torch.finfo(dtype).eps


def summed_in(a: Tensor) -> torch.dtype:
    """The number format in which values of a few tokens are added up; sums of these are added in float64."""
    return torch.float64 if a.dtype == torch.float64 else torch.float32
