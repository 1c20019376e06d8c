"""A model from its configuration alone: random weights in its real shapes, in as few layers as show every kind of them."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lape.errors import ModelError, OptionError, foreign
from lape.model.locate import located

FEWEST = 4
"""Layers, where the model has as many: leading dense ones and every second with experts are among them."""


@dataclass(frozen=True)
class Skeleton:
    """A model with random weights."""

    model: Any
    layers: int
    """How many decoder layers were made."""
    of: int
    """How many the model has."""


def is_bare(name: str | Path) -> bool:
    """Whether a path is a configuration without weights: a .json file, or a folder that holds one and none of them."""
    path = Path(name)
    if path.is_file():
        return path.suffix == ".json"
    return (path / "config.json").is_file() and not any(
        file.suffix in (".safetensors", ".bin", ".gguf") for file in path.iterdir()
    )


def skeleton(name: str | Path, revision: str | None = None, fewest: int = FEWEST) -> Skeleton:
    """Make a model of the configuration of a Hugging Face id, a folder, or a config.json, in `fewest` layers or more.

    "sample" is the embedded model. Raises ModelError where there is none, where transformers has no causal language model for it, or where even a few layers do
    not fit into memory.
    """
    return skeleton_of(_config(name, revision), name, fewest)


def skeleton_of(config: Any, name: str | Path, fewest: int = FEWEST) -> Skeleton:
    """`skeleton` of a configuration that is there already; `name` is for messages."""
    with _explained(name):
        depth, small = _depth(config), shallow(config, fewest)
    parameters, room = _size(small, name), free_memory()
    if 2 * parameters > 0.7 * room:
        raise ModelError(
            f"{_depth(small)} layers of {name} in bfloat16 need {2 * parameters / 2**30:.0f} GiB, and {room / 2**30:.0f} are free. Use a larger machine."
        )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _made(small, name)
    if hasattr(model, "_can_set_experts_implementation") and model._can_set_experts_implementation():
        model.set_experts_implementation("eager")  # the default refuses some shapes
    return Skeleton(model.eval(), _depth(small), depth)


def _size(config: Any, name: str | Path) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in _made(config, name).parameters())


def _config(name: str | Path, revision: str | None) -> Any:
    import transformers

    if str(name) == "sample":
        from lape.model.sample import folder

        name = folder()
    else:
        name = located(str(name), revision)
    with foreign(ModelError, lambda said: f"{name} has no configuration that transformers knows: {said}"):
        return transformers.AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)


def shallow(config: Any, fewest: int = FEWEST) -> Any:
    """A configuration of the same model with few layers: as many as show every kind that the configuration lists."""
    data: dict[str, Any] = json.loads(json.dumps(config.to_dict(), default=str))
    depth = _depth(config)
    text = _text_part(data, config)
    per_layer = {key: value for key, value in text.items() if isinstance(value, list) and len(value) == depth}
    kinds = list(zip(*per_layer.values(), strict=True)) if per_layer else [()] * depth
    last = max(kinds.index(kind) for kind in kinds)
    layers = min(depth, max(fewest, last + 1))
    names = [name for name in ("num_hidden_layers", "num_layers", "n_layer", "n_layers") if name in text]
    if not names and not per_layer:
        raise OptionError("The configuration does not say how many layers there are (num_hidden_layers).")
    text.update(dict.fromkeys(names, layers))
    for name, value in per_layer.items():
        text[name] = value[:layers]
    return type(config).from_dict(data)


def _text_part(data: dict[str, Any], config: Any) -> dict[str, Any]:
    """The part of a configuration's dictionary that the text model reads."""
    text = config.get_text_config()
    if text is config:
        return data
    names = (name for name in config.sub_configs if getattr(config, name, None) is text and name in data)
    part: dict[str, Any] = data[name] if (name := next(names, "")) else data
    return part


def _depth(config: Any) -> int:
    return int(config.get_text_config().num_hidden_layers)


def _made(config: Any, name: str | Path) -> Any:
    import transformers

    with _explained(name):
        return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, trust_remote_code=False)


def _explained(name: str | Path) -> AbstractContextManager[None]:
    """Say of a configuration of which nothing can be made what was expected."""
    return foreign(ModelError, lambda said: f"{name} is not a causal language model of transformers: {said}")


def free_memory() -> int:
    """Bytes of main memory that can be had."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
