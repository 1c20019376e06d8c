"""Loops in C that read a layer's activations once, for CPUs: compiled on this machine when they are first needed, and kept in the cache.

Without a C compiler there are none, and torch makes the same sums in several passes (`lape.recording.adding`).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from lape.store.files import cache

_SOURCE = Path(__file__).with_suffix(".c")
_FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
_FORMATS = {torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float64: "float64"}
_SECONDS = 120


class Fused:
    """The loops. Activations are (tokens, width) on the CPU, of any number format; folds (tokens,) int8, -1 where a token does not count."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))

    def count(self, a: Tensor, fold: Tensor, sums: Tensor, fires: Tensor) -> None:
        """Add to (3, width) float64 sums, and to (folds, width) int64 fires."""
        self._run("count", a, fold, sums, fires)

    def moments(self, a: Tensor, fold: Tensor, sums: Tensor) -> None:
        """Add to (2, width) float64 sums."""
        self._run("moments", a, fold, sums)

    def bin(self, a: Tensor, fold: Tensor, counts: Tensor) -> None:
        """Add to (width, bins) int64 counts."""
        self._run("bin", a, fold, counts)

    def _run(self, name: str, a: Tensor, fold: Tensor, *into: Tensor) -> None:
        a = a if a.dtype in _FORMATS else a.float()
        a = a if a.stride(-1) == 1 else a.contiguous()
        fold = fold.contiguous()
        assert all(one.is_contiguous() for one in into)
        tokens, width = a.shape
        loop = getattr(self._library, f"{name}_{_FORMATS[a.dtype]}")
        sizes = (ctypes.c_int64(one) for one in (tokens, width, a.stride(0)))
        loop(_at(a), *sizes, _at(fold), *map(_at, into))


def _at(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def compiled() -> Fused:
    """The loops, from the cache or compiled now. Raises OSError or subprocess.SubprocessError where that cannot be done."""
    compiler = _compiler()
    path = cache() / "fused" / f"{_key(compiler)}.so"
    if path.is_file():
        with suppress(OSError):  # a damaged one is compiled again
            return Fused(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        place = tempfile.TemporaryDirectory(dir=path.parent)
    except OSError:  # nothing can be written there
        place = tempfile.TemporaryDirectory()
    with place as folder:
        made = Path(folder) / path.name
        command = [*compiler, *_FLAGS, "-o", str(made), str(_SOURCE)]
        subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)
        if made.parent.parent != path.parent:
            return Fused(made)  # stays loaded when the file is gone
        os.replace(made, path)
    return Fused(path)


def _compiler() -> list[str]:
    """As `CC` says it, or as it is found. Raises FileNotFoundError where there is none; of itself none is taken on macOS, whose own knows no OpenMP."""
    asked = shlex.split(os.environ.get("CC", ""))
    if not asked and platform.system() == "Darwin":
        raise FileNotFoundError("no compiler was named")
    found = next((path for name in asked[:1] or ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if found is None:
        raise FileNotFoundError("no C compiler was found")
    return [found, *asked[1:]]


def _key(compiler: list[str]) -> str:
    """By all that the library depends on: a cache may be shared by machines with other processors."""
    parts = [
        _SOURCE.read_bytes(),
        repr((compiler, _FLAGS, platform.machine(), os.stat(compiler[0]).st_mtime_ns)).encode(),
        _processor(),
    ]
    return hashlib.sha256(b"\n".join(parts)).hexdigest()[:16]


def _processor() -> bytes:
    """What this machine's processor can do."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return platform.processor().encode()
    return b"\n".join(
        next((line for line in lines if line.startswith(name)), b"") for name in (b"flags", b"Features", b"model name")
    )
