"""Where a model lies: a folder, a GGUF file, or a name on the Hugging Face Hub; a missing folder is never taken for one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten

from lape.errors import ModelError, told

_PATHS = ("/", "\\", ".", "~")
"""What a name that is a path begins with."""


def located(name: str, revision: str | None) -> str | Path:
    """A model's folder or file where there is one, else its name on the Hub, if it is one there: asked for once, and not where a path was
    meant. Raises ModelError for a name with nothing behind it.
    """
    there = Path(name).expanduser()
    if there.exists():
        return there if str(there) != name or name.endswith(".gguf") else name
    if name.startswith(_PATHS) or name.count("/") > 1 or there.suffix in (".gguf", ".json", ".safetensors"):
        raise ModelError(f"There is no file or folder {name}. {advice(name)}")
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        if isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
            return name
        HfApi().model_info(name, revision=revision, timeout=10)
    except HFValidationError as error:
        raise ModelError(f"{name} is not a file, a folder or the name of a model. {advice(name)}") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"There is no file or folder {name} here, and no model of that name on the Hugging Face Hub, or you have no access to it. {advice(name)}"
        ) from error
    except Exception as error:  # no network, or it is switched off: the library raises what its transport raises
        raise ModelError(
            f"There is no file or folder {name} here, it was not downloaded before, and the Hugging Face Hub could not be asked "
            f"({shorten(told(error), 120, placeholder=' …')}). {advice(name)}"
        ) from error
    return name


def source(path: str | Path) -> tuple[Path | None, str | None]:
    """Where a checkpoint lies and what it holds, or of the Hub which commit it is."""
    where = Path(path)
    if where.is_file():
        return where, _content_of({where.name: where})
    if where.is_dir():
        weights = {one.name: one for one in where.glob("*.safetensors") if not one.name.startswith(".")}
        return where, _content_of(weights) if weights else None
    return None, None


def _content_of(files: Mapping[str, Path]) -> str:
    """SHA-256 over the sizes, beginnings, middles and ends of a checkpoint's files: tells whether it is the same one without reading it all."""
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        size = path.stat().st_size
        digest.update(f"{name} {size}\n".encode())
        with path.open("rb") as file:
            for at in sorted({0, max(0, size // 2), max(0, size - 2**20)}):
                file.seek(at)
                digest.update(file.read(2**20))
    return digest.hexdigest()


def advice(name: str | Path) -> str:
    """What a model's name was expected to be."""
    if Path(str(name)).is_file():
        return "Expected a whole GGUF file, or the folder of a model."
    if Path(str(name)).exists():
        return (
            "Expected a folder written by save_pretrained that holds config.json, safetensors weights and a tokenizer."
        )
    return "Expected a Hugging Face id, a local folder or GGUF file, or sample."
