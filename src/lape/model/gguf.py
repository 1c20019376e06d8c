"""GGUF files are unpacked once, into a folder of the cache: that takes many times as long as reading what comes out."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lape.errors import told
from lape.progress import Progress, shown
from lape.store import files
from lape.store.files import cache

_log = logging.getLogger("lape")
_MADE = "gguf.json"


def place(path: Path, dtype: str) -> Path:
    """Where a GGUF file lies unpacked in a number format, or would."""
    key = hashlib.sha256(f"{path.resolve()}\n{dtype}".encode()).hexdigest()[:12]
    return cache() / "gguf" / f"{path.stem}-{key}"


def unpacked(path: Path, name: str, dtype: Any, progress: Progress = shown) -> Path | None:
    """The folder with a GGUF file's weights in a number format, as transformers takes it and by its name, and its tokenizer.

    Made anew where the file was changed, or transformers was. None where there is no room for it in the cache, or the file cannot be
    unpacked: then it is read as it is, and what is wrong is said.
    """
    if find_spec("gguf") is None:
        return None
    target, made = place(path, name), _made(path)
    if _known(target) == made:
        return target
    progress(f"unpacking {path.name}, once", 0, None)
    working = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        working.mkdir(parents=True)
        if 2 * path.stat().st_size > shutil.disk_usage(working).free:  # unpacked it takes more than that
            return None
        if not _unpack(path, dtype, working):
            return None
        files.write_json(working / _MADE, made)
        if _known(target) != made:  # another process may have been as quick
            files.finish(working, target)
        return target
    except MemoryError:
        raise
    except Exception as error:  # whatever reading a file in a foreign format raises
        _log.warning("%s was not unpacked into the cache (%s). It is read as it is.", path, told(error))
        return None
    finally:
        shutil.rmtree(working, ignore_errors=True)


def _made(path: Path) -> dict[str, Any]:
    """Which file, and by what it was unpacked."""
    stat = path.stat()
    by = {package: version(package) for package in ("transformers", "gguf")}
    return {"file": str(path.resolve()), "bytes": stat.st_size, "changed": stat.st_mtime_ns, **by}


def _known(target: Path) -> Any:
    try:
        return json.loads((target / _MADE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _unpack(path: Path, dtype: Any, folder: Path) -> bool:
    """Save model and tokenizer as any folder of transformers; False where weights are missing, or there is no room for twice what they take."""
    import transformers

    source: dict[str, Any] = {"gguf_file": path.name, "trust_remote_code": False}
    model, loading = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent,
        dtype=dtype,
        quantization_config=transformers.GgufConfig(dequantize=True),
        output_loading_info=True,
        **source,
    )
    if loading["missing_keys"] or 2 * model.get_memory_footprint() > shutil.disk_usage(folder).free:
        return False
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(path.parent, **source).save_pretrained(folder)
    return True
