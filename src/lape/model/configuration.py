"""What a model's configuration says of what it computes: the part that makes two models the same, and in which numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from lape.model.body import text_config, unwrapped
from lape.values.quantity import plain

_IDLE = {
    "architectures",
    "auto_map",
    "chunk_size_feed_forward",
    "dtype",
    "finetuning_task",
    "id2label",
    "initializer_range",
    "label2id",
    "max_position_embeddings",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "quantization_config",
    "return_dict",
    "task_specific_params",
    "tie_word_embeddings",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
"""Of a configuration, what changes no hidden state; the format of the weights is compared by itself."""
_IDLE_ENDINGS = ("dropout", "_drop", "_pdrop", "_token_id", "_loss_coef")


def computing(model: nn.Module) -> dict[str, Any]:
    """The part of a configuration that says what is computed: name -> plain value, names of inner dictionaries joined by a point."""
    found = dict(_flat("", text_config(model).to_dict()))
    plain_values: dict[str, Any] = json.loads(json.dumps(found, sort_keys=True, default=str), parse_constant=str)
    return plain_values


def _flat(prefix: str, config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        name = str(key)
        if name.startswith("_") or name in _IDLE or name.endswith(_IDLE_ENDINGS):
            continue
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value


def adapters(model: nn.Module) -> str:
    """Which adapters act, and how strongly, in words and with a hash of where: `default off 1a2b3c4d`; `none` without any."""
    words: dict[str, None] = {}
    where: list[str] = []
    for name, module in model.named_modules():
        if not hasattr(module, "merged_adapters") or not hasattr(module, "active_adapters"):
            continue
        active, merged = list(module.active_adapters), list(module.merged_adapters)
        off = bool(getattr(module, "disable_adapters", False))
        scaling = getattr(module, "scaling", None)
        strengths = [scaling.get(one) for one in active] if isinstance(scaling, Mapping) else []
        words["+".join(active) + (" off" if off else "") + (" merged" if merged else "")] = None
        where.append(f"{name} {active} {off} {merged} {strengths}")
    return f"{', '.join(words)} {hashlib.sha256(chr(10).join(where).encode()).hexdigest()[:8]}" if where else "none"


def number_format(model: Any) -> str:
    """The format of a model's weights: `bfloat16`, or where they are quantised `bfloat16 bitsandbytes 8 bits cpu`."""
    inner: Any = unwrapped(model)
    if not getattr(inner, "is_quantized", False):
        return plain(inner.dtype)
    how = inner.config.quantization_config
    how = how if isinstance(how, dict) else how.to_dict()
    method = getattr(how.get("quant_method"), "value", how.get("quant_method"))
    bits = 4 if how.get("load_in_4bit") else 8 if how.get("load_in_8bit") else how.get("bits")
    return " ".join([plain(inner.dtype), str(method), *([f"{bits} bits"] if bits else []), inner.device.type])
