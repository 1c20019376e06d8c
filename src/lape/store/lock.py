"""A lock on an output: two processes do not make one thing at a time. It is the system's, so that it goes with a process that is killed."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import RLock
from typing import Any

from lape.errors import FileError

fcntl: Any = import_module("fcntl") if os.name == "posix" else None
"""Not on Windows, where nothing is locked."""


@dataclass
class _Held:
    """A lock of this process."""

    descriptor: int
    made: list[Path]
    """Folders that were made for it, innermost first."""
    times: int = 0
    """How many hold it: one process does not lock itself out."""


_HELD: dict[Path, _Held] = {}
_CHANGING = RLock()
"""Held while `_HELD` is read and changed. A finalizer can run within, in the same thread."""


class Lock:
    """Held from when it is made until it is released, or nobody refers to it. Raises FileError where another process holds it.

    The file that is locked lies beside `target`, hidden, and goes with the lock; where none can be made, nothing is locked: what writes
    there will say why it cannot.
    """

    def __init__(self, target: Path) -> None:
        self.release: Callable[[], object] = lambda: None
        path = _beside(target)
        with _CHANGING:
            if path not in _HELD:
                found = _taken(path, target)
                if found is None:
                    return
                _HELD[path] = found
            _HELD[path].times += 1
        self.release = weakref.finalize(self, _release, path, os.getpid())

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def sweep(target: Path) -> None:
    """Without the lock's file that a process left which was killed when `target` was in its place already."""
    if _beside(target).exists():
        with suppress(FileError), Lock(target):
            pass


def _beside(target: Path) -> Path:
    whole = Path(os.path.abspath(target))
    return whole.with_name(f".{whole.name}.lock")


def _taken(path: Path, target: Path) -> _Held | None:
    """None where there can be no lock."""
    made = [folder for folder in path.parents if not folder.exists()]
    while fcntl is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:
            return None
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            raise FileError(
                f"{target} is being written by another process. Wait until it is done, or choose another place."
            ) from None
        except OSError:  # a file system without locks
            _gone(path, _Held(held, made))
            return None
        if _is(path, held):  # its last holder may have removed it since it was opened
            return _Held(held, made)
        os.close(held)
    return None


def _is(path: Path, held: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(held))
    except FileNotFoundError:
        return False


def _release(path: Path, process: int) -> None:
    if os.getpid() != process:  # a fork's copy: the lock is its parent's
        return
    with _CHANGING:
        _HELD[path].times -= 1
        if not _HELD[path].times:
            _gone(path, _HELD.pop(path))


def _gone(path: Path, held: _Held) -> None:
    """Without the file and the folders that were made for it, as far as nothing else is in them."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
        for folder in held.made:
            folder.rmdir()
    os.close(held.descriptor)
