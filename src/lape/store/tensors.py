"""Tensor files: written one tensor after the other, read one by one, and nothing that was changed since is believed."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lape.errors import FileError, LapeError
from lape.store.documents import AGAIN, Schema, damaged, misfit, parse
from lape.store.files import write
from lape.store.kinds import kind_of

SMALL = 2**26
"""Bytes up to which a whole file is looked at when it is opened; of a larger one each tensor when it is first read."""
_NOTHING = "0" * 64
_SEALED = {"lape", "seal", "sha256"}
"""What the metadata hold: `lape`, our header; `sha256`, that of each tensor's bytes; `seal`, that of all before the tensors with zeros in the
seal's place. No bit can change unseen, and a file without a seal is refused.
"""

Laws: TypeAlias = Callable[[str, Tensor], "str | None"]
"""What is wrong with a named tensor, in words, or nothing."""


@dataclass(frozen=True)
class Later:
    """A tensor that is made when its turn to be written comes."""

    like: Tensor
    """A tensor of its shape and dtype; its content does not matter."""
    make: Callable[[], Tensor]


_CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What the safetensors format calls them."""
_DTYPES = {code: dtype for dtype, code in _CODES.items()}


def write_tensors(path: Path, tensors: Mapping[str, Tensor | Later], header: Mapping[str, Any]) -> None:
    """Write a sealed safetensors file whose header carries `header` as JSON, in one step, one tensor after the other.

    The safetensors library wants all tensors in memory at once, which statistics of many languages do not fit in.
    """

    def save(temporary: Path) -> None:
        with temporary.open("wb") as file:
            _save(file, tensors, header)

    write(path, save)


def packed(tensors: Mapping[str, Tensor | Later], header: Mapping[str, Any]) -> bytes:
    """The same as bytes."""
    file = io.BytesIO()
    _save(file, tensors, header)
    return file.getvalue()


def _save(file: BinaryIO, tensors: Mapping[str, Tensor | Later], header: Mapping[str, Any]) -> None:
    # tensors of large numbers first: then each begins at a multiple of its numbers' size, as readers want it
    order = sorted(tensors, key=lambda name: (-_like(tensors[name]).element_size(), name))
    sums = dict.fromkeys(order, _NOTHING)
    places: dict[str, Any] = {}
    at = 0
    for name in order:
        like = _like(tensors[name])
        size = like.numel() * like.element_size()
        places[name] = {"dtype": _CODES[like.dtype], "shape": list(like.shape), "data_offsets": [at, at + size]}
        at += size
    file.write(_head(header, sums, places, _NOTHING))
    for name in order:
        one = tensors[name]
        made = _bytes(one.make() if isinstance(one, Later) else one)
        sums[name] = hashlib.sha256(made).hexdigest()
        file.write(made)
    file.seek(0)  # all sums are known now, and as long as what stood for them
    file.write(_head(header, sums, places, _sum(_head(header, sums, places, _NOTHING))))


def _head(header: Mapping[str, Any], sums: Mapping[str, str], places: Mapping[str, Any], seal: str) -> bytes:
    """All that stands before the tensors."""
    text = json.dumps(header, ensure_ascii=False, sort_keys=True, allow_nan=False)
    metadata = {"lape": text, "seal": seal, "sha256": json.dumps(sums, ensure_ascii=False)}
    head = json.dumps({"__metadata__": metadata, **places}, ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head


def _sum(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    if not tensor.numel():  # whose strides may be such that PyTorch does not view it as bytes
        return memoryview(b"")
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _like(one: Tensor | Later) -> Tensor:
    return one.like if isinstance(one, Later) else one


class TensorFile:
    """A safetensors file of `lape`, its tensors read one by one when asked for.

    `header`: what its header must hold, and of which types. `format`: the newest that is read.
    Raises FileError for another kind of file and, here or when a tensor is first read, for one that was changed since it was written.
    """

    def __init__(
        self,
        path: Path,
        kind: str,
        header: Mapping[str, Schema] | None = None,
        *,
        format: int = 1,
    ) -> None:
        self.path = path
        self._laws: Laws = lambda _name, _tensor: None
        self._seen: set[str] = set()
        if not path.is_file():
            raise FileError(f"There is no file {path}. Expected {kind}.")
        try:
            opened: Any = safe_open(path, framework="pt")
            self._file = opened
            metadata: dict[str, str] = self._file.metadata() or {}
            self.header: dict[str, Any] = parse(metadata.get("lape", "{}"))
            if not isinstance(self.header, dict):
                raise ValueError("its header is not a JSON object")
        except (SafetensorError, OSError, ValueError) as error:
            other = "" if isinstance(error, OSError) else kind_of(path)
            if other and "safetensors" not in other and not other.startswith("a file of"):
                raise FileError(
                    f"{path} is {other}. Expected {kind}: a .safetensors file, or the folder of a run."
                ) from error
            raise FileError(f"{path} is damaged or not {kind} ({error}). {AGAIN}") from error
        if self.header.get("kind") != kind:
            found = self.header.get("kind", "a safetensors file that lape did not write")
            raise FileError(f"{path} holds {found}. Expected {kind}.")
        found = self.header.get("format", 1)
        if type(found) is not int or not 1 <= found <= format:
            raise FileError(
                f"{path} is of format {found!s:.80}, and this version of lape reads format{f's 1 to {format}' if format > 1 else ' 1'}. "
                "Use the version of lape that wrote it, or a newer one."
            )
        self._sums = self._unbroken(metadata)
        missing = [name for name in header or () if name not in self.header]
        if missing:
            raise damaged(path, f"its header has no {', '.join(missing)}")
        if wrong := misfit(self.header, {**(header or {}), ...: object}, "its header"):
            raise damaged(path, wrong)

    def _unbroken(self, metadata: dict[str, str]) -> dict[str, str]:
        """The tensors' sums, of a file whose seal is whole."""
        if set(metadata) != _SEALED:
            raise damaged(
                self.path, f"its header holds {', '.join(sorted(metadata))}, not {', '.join(sorted(_SEALED))}"
            )
        with self.path.open("rb") as file:
            length = file.read(8)
            head = length + file.read(int.from_bytes(length, "little"))
        if (
            _sum(head.replace(f'"seal": "{metadata["seal"]}"'.encode(), f'"seal": "{_NOTHING}"'.encode(), 1))
            != metadata["seal"]
        ):
            raise damaged(self.path, "its header is not as it was written")
        try:
            sums: dict[str, str] = parse(metadata["sha256"])
        except ValueError as error:
            raise damaged(self.path, error) from error
        if wrong := misfit(sums, {...: str}, "sha256"):
            raise damaged(self.path, wrong)
        return sums

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While inside, what is refused of its content is refused as damage of this file."""
        try:
            yield
        except LapeError as error:
            raise damaged(self.path, str(error).rstrip(".")) from error

    def obey(self, laws: Laws) -> None:
        """Hold every tensor to laws when it is first read; all of a small file's now. Raises FileError for what breaks them."""
        self._laws = laws
        self._seen.clear()
        if sum(one.numel() * one.element_size() for one in map(self.like, self.names())) <= SMALL:
            self.whole()

    def whole(self) -> None:
        """Look at everything. Raises FileError for what was changed or breaks the laws."""
        for name in self.names():
            self.tensor(name)

    def names(self) -> list[str]:
        """The names of the tensors in it."""
        return list(self._file.keys())

    def like(self, name: str) -> Tensor:
        """A tensor of a named one's shape and dtype, without content."""
        part = self._file.get_slice(name)
        code = part.get_dtype()
        if code not in _DTYPES:
            raise damaged(self.path, f"{name} holds numbers of the kind {code}, which lape does not write")
        return torch.empty(part.get_shape(), dtype=_DTYPES[code], device="meta")

    def tensor(self, name: str) -> Tensor:
        """Read one tensor."""
        try:
            tensor: Tensor = self._file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise damaged(self.path, f"{name} could not be read ({error})") from error
        if name not in self._seen:
            if self._sums.get(name) != _sum(_bytes(tensor)):
                raise damaged(self.path, f"{name} is not as it was written")
            if wrong := self._laws(name, tensor):
                raise damaged(self.path, wrong)
            self._seen.add(name)
        return tensor
