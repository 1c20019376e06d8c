"""What a recording that was stopped left: read only where it is whole and of these very batches, else dropped and recorded again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lape.data.corpus import FOLDS
from lape.data.windows import batch
from lape.errors import FileError
from lape.recording.engine import Work
from lape.store import files
from lape.store.lazy import FromFile, like
from lape.store.tensors import TensorFile, write_tensors
from lape.values.laws import broken
from lape.values.quantity import COUNTED, Quantity
from lape.values.space import NeuronSpace
from lape.values.stats import LanguageStats, check

_COUNTED = {one.name: one for one in COUNTED}


def keep(path: Path, kind: str, tensors: Mapping[str, Tensor], batches: int) -> None:
    """Write what was counted in so many batches of a language."""
    write_tensors(path, tensors, {"kind": kind, "batches": batches})


def kept(
    path: Path,
    kind: str,
    work: Work,
    space: NeuronSpace,
    expected: Mapping[str, Tensor | Quantity],
    quantities: Mapping[str, Quantity] = _COUNTED,
) -> tuple[int, Mapping[str, Tensor]] | None:
    """In how many of a language's batches was counted, and what; None where nothing is kept, or what is cannot be believed, which is said.

    `expected`: its tensors by name, as they are or as they are described; where one is empty, any number of rows is right.
    """
    if not path.exists():
        return None
    try:
        return _read(path, kind, work, space, expected, quantities)
    except FileError as error:
        files.dropped(path, error)
        return None


def _read(
    path: Path,
    kind: str,
    work: Work,
    space: NeuronSpace,
    expected: Mapping[str, Tensor | Quantity],
    quantities: Mapping[str, Quantity],
) -> tuple[int, Mapping[str, Tensor]]:
    file = TensorFile(path, kind, {"batches": int})
    tensors, batches = FromFile(file), file.header["batches"]
    with file.reading():
        if not 0 <= batches <= len(work.batches):
            raise FileError(f"It holds {batches} batches of {len(work.batches)}.")
        if set(tensors) != set(expected):
            raise FileError(f"It holds {', '.join(tensors)}; expected {', '.join(sorted(expected))}.")
        odd = [
            name for name, one in expected.items() if isinstance(one, Tensor) and not _like(like(tensors, name), one)
        ]
        if odd:
            raise FileError(f"{', '.join(odd)} has another shape or another kind of numbers than is recorded.")
        described = {name: torch.empty_like(like(tensors, name)) for name in tensors if name in quantities}
        check(work.corpus.language, LanguageStats(described), space, quantities)
        if not torch.equal(tensors["tokens"], _tokens(work, batches)):
            raise FileError("It counts other tokens than its batches have.")
        if not torch.equal(tensors.get("fingerprints", work.corpus.fingerprints), work.corpus.fingerprints):
            raise FileError("It is of other lines.")
    file.obey(lambda name, tensor: broken(name, tensor, tensors, space, empty=True))
    file.whole()
    return batches, tensors


def _like(found: Tensor, expected: Tensor) -> bool:
    """Whether a tensor is of the same kind as another, of which an empty one says nothing of the number of rows."""
    rows = 1 if expected.dim() and not len(expected) else 0
    return (
        found.dtype == expected.dtype and found.shape[rows:] == expected.shape[rows:] and found.dim() == expected.dim()
    )


def _tokens(work: Work, batches: int) -> Tensor:
    """(folds,) int64: the counted tokens of the first batches."""
    result = torch.zeros(FOLDS, dtype=torch.int64)
    for some in work.batches[:batches]:
        fold = batch(work.corpus, some).fold
        result += torch.bincount(fold[fold >= 0], minlength=FOLDS)
    return result
