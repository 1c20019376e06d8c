"""The published format: for each language in order, and each layer in order, the numbers of its neurons; neither names nor width.

PyTorch files of the field hold this, under any name (`x.neuron.pth`, `llama-1`); some say which languages they are.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lape.data.languages import tag
from lape.errors import FileError, OptionError, foreign
from lape.store import files
from lape.values.space import NeuronSpace, Stretch

SUFFIXES = (".pth", ".pt")
_SAVED = (b"PK\x03\x04", b"\x80")
"""What files that PyTorch saves begin with: a zip archive, and once a pickle."""


def is_published(path: Path) -> bool:
    """Whether a file is PyTorch's, by its name, or by how it begins: many masks are published without a suffix."""
    if path.suffix in SUFFIXES or not path.is_file():
        return path.suffix in SUFFIXES
    with path.open("rb") as file:
        return file.read(4).startswith(_SAVED)


def write(path: Path, space: NeuronSpace, sets: Sequence[Tensor]) -> None:
    """Write sets of flat indices as a `List[List[LongTensor]]`. Raises OptionError for neurons that the format cannot name."""
    if any(stretch.expert is not None for stretch in space):
        raise OptionError("The published .pth format cannot hold routed experts. Save as .safetensors.")
    if len(space.layers) < len(space.stretches):
        raise OptionError(
            "The published .pth format holds one MLP per layer; here layers have several. Save as .safetensors."
        )
    at = {stretch.layer: stretch for stretch in space}
    layers = range(max(at, default=-1) + 1)  # its lists are indexed by layer: one without an MLP is empty
    lists = [[_local(flat, at.get(layer)) for layer in layers] for flat in sets]
    files.write(path, lambda temporary: torch.save(lists, temporary))


def _local(flat: Tensor, stretch: Stretch | None) -> Tensor:
    """The numbers within a layer."""
    if stretch is None:
        return torch.empty(0, dtype=torch.int64)
    return flat[(flat >= stretch.start) & (flat < stretch.stop)] - stretch.start


def read(path: Path, languages: Sequence[str] | None, width: int | None) -> tuple[NeuronSpace, dict[str, Tensor]]:
    """The neurons' space, and flat indices by language. Raises FileError for other content, OptionError where names or width do not fit.

    `languages` may be None for a file that is a mapping of language tags to layers, and names them otherwise.
    """
    data = _unpickled(path)
    if isinstance(data, dict) and all(isinstance(name, str) for name in data):
        languages = list(data) if languages is None else languages
        data = list(data.values())
    if not _fits(data, path.stat().st_size):
        raise FileError(
            f"{path} does not hold a list of lists of tensors of neuron numbers, which is the published format, or more of them than a file "
            "of its size has room for."
        )
    if languages is None or width is None:
        lacks, names = "width", ""
        if languages is None:
            lacks, names = "names or width", 'languages=["en", "zh", …], '
        raise OptionError(
            f"{path.name} holds {len(data)} languages × {len(data[0])} layers, without {lacks}. Give {names}width=11008, for instance. "
            "The paper's files hold en, zh, fr, es, vi, id and, where there are seven, ja, in this order."
        )
    if len(languages) != len(data):
        raise OptionError(
            f"{path.name} holds {len(data)} languages, but {len(languages)} names were given: {', '.join(languages)}."
        )
    if len({len(layers) for layers in data}) != 1:
        raise FileError(f"{path} gives its languages different numbers of layers. Expected the same for all.")
    space = NeuronSpace.dense(len(data[0]), width)
    sets = {}
    for language, layers in zip(languages, data, strict=True):
        for layer, local in enumerate(layers):
            if local.numel() and (int(local.min()) < 0 or int(local.max()) >= width):
                raise OptionError(
                    f"{path.name}: layer {layer} names neurons {int(local.min())} to {int(local.max())}, but width is {width}."
                )
        flat = [local.long().flatten() + layer * width for layer, local in enumerate(layers)]
        sets[tag(language)] = torch.cat(flat)
    if len(sets) != len(languages):
        raise OptionError(f"A language is named twice among {', '.join(languages)}.")
    return space, sets


def _fits(data: Any, size: int) -> bool:
    """Whether it is a list of lists of tensors of neuron numbers, no more of them than a file of `size` bytes can hold.

    A pickle may name one list, or one number of a tensor, a billion times.
    """
    if not isinstance(data, (list, tuple)) or not data:
        return False
    if not all(isinstance(layers, (list, tuple)) and layers for layers in data):
        return False
    if sum(map(len, data)) > size or not all(_is_index(layer) for layers in data for layer in layers):
        return False
    held: int = sum(layer.numel() * layer.element_size() for layers in data for layer in layers)
    return held <= size


def _is_index(layer: Any) -> bool:
    """Whether a tensor can be a list of neurons: whole numbers, or nothing at all."""
    if not isinstance(layer, Tensor) or layer.layout != torch.strided or layer.is_meta:
        return False
    return layer.dtype in (torch.int64, torch.int32, torch.int16, torch.uint8) or layer.numel() == 0


def _check_packed(path: Path) -> None:
    """Refuse a zip archive that unpacks to more than its own size: PyTorch does not compress."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            if sum(entry.file_size for entry in file.infolist()) > path.stat().st_size:
                raise ValueError("it unpacks to more than its own size")


def _unpickled(path: Path) -> Any:
    if not path.is_file():
        raise FileError(f"There is no file {path}. Expected a published .pth file.")
    with foreign(
        FileError,
        lambda said: (
            f"{path} was not read: it is damaged, or holds more than tensors in lists (code in such a file is never run). Details: {said:.200}"
        ),
    ):
        _check_packed(path)
        return torch.load(path, map_location="cpu", weights_only=True)
