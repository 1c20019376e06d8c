"""Edits as a LoRA adapter in GGUF, which llama.cpp loads beside the base model and scales per request."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lape.errors import ModelError
from lape.extras import need
from lape.ship import lora
from lape.ship.format import ExportFormat, Prepared

FILE = "adapter.gguf"


def write(prepared: Prepared, folder: Path) -> dict[str, Any]:
    """Write adapter.gguf; returns what the manifest says of it. Raises ModelError for an architecture that llama.cpp has no names for."""
    need("gguf", "writing GGUF", "gguf")
    import gguf

    model, parts = prepared.model, prepared.parts
    kind = _architecture(gguf, model)
    names = gguf.get_tensor_name_map(kind, model.config.get_text_config().num_hidden_layers)
    writer = gguf.GGUFWriter(folder / FILE, gguf.MODEL_ARCH_NAMES[kind])
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    # llama.cpp multiplies by alpha ÷ rank tensor by tensor; without alpha, by the request's scale alone
    for part in parts:
        name = names.get_name(f"{part.module}.weight", try_suffixes=(".weight",))
        if name is None:
            raise ModelError(
                f"llama.cpp has no name for {part.module} in {gguf.MODEL_ARCH_NAMES[kind]}. Write a PEFT adapter: format='lora'."
            )
        writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(part.a.float().numpy()))
        writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(part.b.float().numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {"rank": max(len(part.a) for part in parts), "modules": len(parts)}


def describe_use(_base: str, _manifest: Mapping[str, Any], name: str) -> str:
    """Say how llama.cpp loads the adapter."""
    return (
        "With llama.cpp and the base model in GGUF (the scale, 1 here, is its strength, also per request; a cached prompt would be used for other scales "
        f"too):\n\n```sh\nllama-server -m base.gguf --lora {name}/{FILE} --no-cache-prompt\n```"
    )


FORMAT = ExportFormat("LoRA adapter for llama.cpp", lora.updates, write, describe_use, tags=("lora",))


def _architecture(gguf: Any, model: Any) -> Any:
    """llama.cpp's name of a model type."""
    kind = model.config.get_text_config().model_type
    wanted = {"gemma3_text": "gemma3"}.get(kind, kind).replace("_", "").replace("-", "")
    for arch, name in gguf.MODEL_ARCH_NAMES.items():
        if name.replace("_", "").replace("-", "") == wanted:
            return arch
    raise ModelError(f"llama.cpp's gguf package knows no architecture {kind}. Write a PEFT adapter: format='lora'.")
