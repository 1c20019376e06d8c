"""What a tensor of the statistics is: its axes, its number format, and how those of two texts merge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from lape.errors import FileError

Merge: TypeAlias = Literal["add", "join", "same", "union"]
"""add: the sum of both; join: one after the other along the first axis; same: equal in both, or they are not merged; union: all values of
both, each once.
"""


def plain(dtype: torch.dtype) -> str:
    """A number format's name: `float64`."""
    return str(dtype).removeprefix("torch.")


_DTYPES = {plain(dtype): dtype for dtype in (torch.int64, torch.float64, torch.float32, torch.float16)}


@dataclass(frozen=True)
class Quantity:
    """One tensor that is kept of every language, described so that whoever merges or checks it need not know it.

    Example:
        >>> import torch
        >>> from lape.values.quantity import Quantity
        >>> fourth = Quantity("fourth", ("neurons",))
        >>> fourth.to_json()
        {'axes': ['neurons'], 'dtype': 'float64', 'merge': 'add'}
        >>> Quantity.from_json("fourth", fourth.to_json()) == fourth
        True
        >>> fourth.fits(torch.zeros(2800), {"neurons": 2800})
        False
    """

    name: str
    axes: tuple[str, ...]
    """`folds`, `stretches` and `neurons` have the statistics' own lengths; an axis of any other name has any length."""
    dtype: torch.dtype = torch.float64
    """int64, float64, float32 or float16."""
    merge: Merge = "add"
    """add: the sum of both; join: one after the other along the first axis; same: equal in both, or they are not merged; union: all values
    of both, each once.
    """

    def fits(self, like: Tensor, lengths: Mapping[str, int]) -> bool:
        """Whether a tensor has this number format and these axes, of which `lengths` says how long some are."""
        if like.dtype != self.dtype or like.dim() != len(self.axes):
            return False
        return all(lengths.get(axis, length) == length for axis, length in zip(self.axes, like.shape, strict=True))

    def to_json(self) -> dict[str, Any]:
        """As plain values, without the name."""
        return {"axes": list(self.axes), "dtype": plain(self.dtype), "merge": self.merge}

    @classmethod
    def from_json(cls, name: str, data: Any) -> Quantity:
        """Read what `to_json` wrote. Raises FileError for anything else."""
        try:
            axes, dtype, merge = tuple(data["axes"]), _DTYPES[data["dtype"]], data["merge"]
        except (KeyError, TypeError) as error:
            raise FileError(f"The description of {name!r} is damaged: {data}. Record the text again.") from error
        if merge not in get_args(Merge):
            raise FileError(f"{name!r} merges by {merge!r}. Expected {', '.join(get_args(Merge))}: use a newer lape.")
        return cls(name, axes, dtype, merge)


COUNTED = (
    Quantity("tokens", ("folds",), torch.int64),
    Quantity("routed", ("folds", "stretches"), torch.int64),
    Quantity("fires", ("folds", "neurons"), torch.int64),
    Quantity("sum", ("neurons",)),
    Quantity("square", ("neurons",)),
    Quantity("positive", ("neurons",)),
    Quantity("fingerprints", ("lines",), torch.int64, "union"),
)
"""What every recording keeps: see `LanguageStats`."""
_FORMAT_1 = {
    one.name: one
    for one in (
        *COUNTED,
        Quantity("residual", ("layers", "width")),
        Quantity("attribution", ("neurons",)),
        Quantity("attributed", ("one",), torch.int64),
        Quantity("texts", ("texts", "neurons"), torch.float16, "join"),
        Quantity("histogram", ("neurons", "bins"), torch.int64),
        Quantity("variation", ("neurons",), torch.float64, "same"),
    )
}
"""All that files of format 1 can hold, which do not describe it. Closed: what came later is described by its file."""


def described(manifest: Mapping[str, Any]) -> dict[str, Quantity]:
    """What a manifest says of the tensors, by name; what it is silent about is as in format 1."""
    told = manifest.get("quantities", {})
    return {**_FORMAT_1, **{name: Quantity.from_json(name, data) for name, data in told.items()}}


WRITTEN = ("written", "written_square")
"""Sums of the written activation, activation × up, and of its square."""
EXTRAS = {
    "residual": "--residual",
    "attribution": "--attribution 5k",
    "texts": "--per-text",
    "histogram": "--histogram",
    "variation": "--tuned TAG=PATH",
}
"""What only an option of `lape record` records, and the option; what has none of its own is asked for by name: `--also NAME`."""
