"""Writing so that nothing half-written is ever seen, and saying so plainly when a disk or a file fails."""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lape.errors import FileError

STATE = "state.checkpoint"
"""The file of a half-full folder that says which run it belongs to."""
OURS = ("run.json", "config.json", "figures.json")
"""A folder that may be overwritten holds one of these: it is a run, an exported checkpoint, or figures."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failed write (full disk, no permission) into an error that names the file."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FileError(
            f"{path} could not be written: {reason}. Free some space or choose another place, then run the same command again."
        ) from error


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Let `save` write a temporary file beside `path`, then put it in place in one step; on failure leave nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _sweep(path)
            save(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Delete what processes that were killed left of this very file."""
    for old in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        number = old.name.split(".")[-2]
        if number.isdigit() and not _runs(int(number)):
            with suppress(OSError):
                old.unlink()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def _umask() -> int:
    """What new files are masked with; safetensors makes its files private."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write text in one step."""
    write(path, lambda file: file.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON, readable, in one step."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True, default=str) + "\n")


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


def write_tensors(path: Path, tensors: Mapping[str, Tensor | Later], header: dict[str, Any]) -> None:
    """Write a safetensors file whose header carries `header` as JSON, one tensor after the other.

    The safetensors library wants all tensors in memory at once, which statistics of many languages do not fit in.
    """
    text = json.dumps(header, ensure_ascii=False, sort_keys=True)
    # tensors of large numbers first: then each begins at a multiple of its numbers' size, as readers want it
    order = sorted(tensors, key=lambda name: (-_like(tensors[name]).element_size(), name))
    places: dict[str, Any] = {"__metadata__": {"lape": text}}
    at = 0
    for name in order:
        like = _like(tensors[name])
        size = like.numel() * like.element_size()
        places[name] = {"dtype": _CODES[like.dtype], "shape": list(like.shape), "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(places, ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)

    def save(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(len(head).to_bytes(8, "little") + head)
            for name in order:
                one = tensors[name]
                made = one.make() if isinstance(one, Later) else one
                file.write(made.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)

    write(path, save)


def _like(one: Tensor | Later) -> Tensor:
    return one.like if isinstance(one, Later) else one


class TensorFile:
    """A safetensors file of `lape`, its tensors read one by one when asked for."""

    def __init__(self, path: Path, kind: str, required: tuple[str, ...] = ()) -> None:
        self.path = path
        if not path.is_file():
            raise FileError(f"There is no file {path}. Expected {kind}.")
        try:
            opened: Any = safe_open(path, framework="pt")
            self._file = opened
            metadata: dict[str, str] = self._file.metadata() or {}
            self.header: dict[str, Any] = json.loads(metadata.get("lape", "{}"))
            if not isinstance(self.header, dict):
                raise ValueError("its header is no object")
        except (SafetensorError, OSError, ValueError) as error:
            raise FileError(
                f"{path} is damaged or not {kind} ({error}). Make it again, or copy it anew from where it came."
            ) from error
        if self.header.get("kind") != kind:
            found = self.header.get("kind", "a safetensors file that lape did not write")
            raise FileError(f"{path} holds {found}. Expected {kind}.")
        missing = [name for name in required if name not in self.header]
        if missing:
            raise FileError(f"{path} is damaged: its header has no {', '.join(missing)}. Make it again.")

    def names(self) -> list[str]:
        """The names of the tensors in it."""
        return list(self._file.keys())

    def like(self, name: str) -> Tensor:
        """A tensor of a named one's shape and dtype, without content."""
        part = self._file.get_slice(name)
        dtype = next(dtype for dtype, code in _CODES.items() if code == part.get_dtype())
        return torch.empty(part.get_shape(), dtype=dtype, device="meta")

    def tensor(self, name: str) -> Tensor:
        """Read one tensor."""
        try:
            tensor: Tensor = self._file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise FileError(f"{self.path} is damaged: {name} could not be read ({error}).") from error
        return tensor


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse to write over something unless told, and over what `lape` did not write even then."""
    if path.name in ("", "..") or path.is_symlink():
        raise FileError(f"{path} cannot be the output. Name a new folder or file.")
    if path.exists() and not overwrite:
        raise FileError(f"{path} exists already. Choose another name, or add --overwrite to replace it.")
    if path.is_dir() and any(path.iterdir()) and not any((path / name).is_file() for name in OURS):
        raise FileError(f"{path} holds files that lape did not write, so it is not replaced. Choose another name.")
    if path.parent.exists() and not path.parent.is_dir():
        raise FileError(f"{path.parent} is a file. Choose another name.")


def partial(path: Path) -> Path:
    """The name under which a run's folder is filled before it is whole."""
    return path.with_name(path.name + ".partial")


def fresh(working: Path) -> None:
    """Empty the place where a folder is filled, unless a stopped recording is kept there."""
    if (working / STATE).exists():
        raise FileError(f"{working} holds a recording that was stopped. Finish it, delete it, or choose another name.")
    with writing(working):
        shutil.rmtree(working, ignore_errors=True)
        working.mkdir(parents=True)


def same_run(working: Path, ours: dict[str, Any]) -> None:
    """Note in a folder that is filled step by step which run it belongs to; refuse one that belongs to another."""
    path = working / STATE
    plain = json.loads(json.dumps(ours, default=str))
    if not path.exists():
        write_json(path, plain)
        return
    theirs = json.loads(path.read_text(encoding="utf-8"))
    for key, value in plain.items():
        if theirs.get(key) != value:
            there, now = (f"{json.dumps(v, ensure_ascii=False):.600}" for v in (theirs.get(key), value))
            raise FileError(
                f"{working} holds a run that was stopped, with another {key}: {there} there, {now} now. "
                f"Give the same command to go on, choose another --out, or delete {working}."
            )


def finish(working: Path, path: Path) -> None:
    """Rename a whole run folder into place, replacing an older one (whose refusal came earlier)."""
    with writing(path):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        os.replace(working, path)
