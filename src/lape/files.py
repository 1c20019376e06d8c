"""Writing so that nothing half-written is ever seen, and saying so plainly when a disk or a file fails."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lape.errors import FileError

STATE = "state.checkpoint"
"""The file of a half-full folder that says which run it belongs to."""
OURS = ("run.json", "config.json")
"""A folder that may be overwritten holds one of these: it is a run, or an exported checkpoint."""


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
            save(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    """What new files are masked with; safetensors makes its files private."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any) -> None:
    """Write JSON, readable, in one step."""
    text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True, default=str) + "\n"
    write(path, lambda file: file.write_text(text, encoding="utf-8"))


def write_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write a safetensors file whose header carries `header` as JSON."""
    ready: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        ready[name] = own.clone() if own.data_ptr() in seen else own  # the format refuses shared memory
        seen.add(own.data_ptr())
    text = json.dumps(header, ensure_ascii=False, sort_keys=True)
    write(path, lambda file: save_file(ready, file, metadata={"lape": text}))


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
