"""What kind of file something is, by how it begins: to say what was given where something else was expected."""

from __future__ import annotations

import json
from pathlib import Path

_BEGINNINGS = {
    b"GGUF": "a model in a GGUF file",
    b"PAR1": "a parquet table",
    b"PK\x03\x04": "a zip archive, such as PyTorch saves",
    b"\x80": "a pickle, such as PyTorch saved once",
    b"\x1f\x8b": "a file packed with gzip",
    b"\x28\xb5\x2f\xfd": "a file packed with zstandard",
    b"%PDF": "a PDF",
}
_MOST = 2**26
"""Bytes of a safetensors header that are read; a longer one is not looked into."""


def kind_of(path: Path) -> str:
    """In words, with an article: of a file or a folder that is there. Reads little, and nothing of what it finds is run."""
    if path.is_dir():
        names = {"run.json": "the folder of a run", "config.json": "a model's folder"}
        return next((said for name, said in names.items() if (path / name).is_file()), "a folder")
    with path.open("rb") as file:
        begun = file.read(9)
        length = int.from_bytes(begun[:8], "little")
        if begun[8:] == b"{" and length <= path.stat().st_size - 8:
            return _safetensors(b"{" + file.read(length - 1) if length <= _MOST else b"")
        rest = begun + file.read(1015)
    return next((said for magic, said in _BEGINNINGS.items() if begun.startswith(magic)), None) or _text(rest)


def _safetensors(header: bytes) -> str:
    try:
        kind = json.loads(json.loads(header)["__metadata__"]["lape"])["kind"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return "a safetensors file that lape did not write"
    return f"a file of {kind}"


def _text(begun: bytes) -> str:
    if not begun:
        return "an empty file"
    try:
        words = begun.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(begun) - 3:  # not merely a character that was cut
            return "a file of no kind that lape knows"
        words = begun[: error.start].decode("utf-8-sig")
    if "\x00" in words:
        return "a file of no kind that lape knows"
    return "JSON" if words.lstrip()[:1] in ("{", "[") else "text"
