"""What `lape study --preset tang2024` costs on the paper's models: `python docs/studies/paper/cost.py` prints the table of docs/paper.md.

Passes are counted by the experiments themselves, on a model of no size; FLOP per token are those of the real shapes, as torch counts them on two layers.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

import lape
from lape.data import samples
from lape.data.texts import Documents
from lape.errors import LapeWarning
from lape.experiments.context import Context
from lape.experiments.experiment import Cost, taken
from lape.model.body import hidden_states, tiny_ids
from lape.model.load import load_tokenizer
from lape.model.skeleton import skeleton
from lape.study.options import study_options
from lape.study.presets import preset
from lape.study.run import chosen_parts

LANGUAGES = ("en", "zh", "fr", "es", "vi", "id", "ja")
SHAPES: dict[str, dict[str, Any]] = {
    "LLaMA-2-7B": {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
    },
    "BLOOM-7B1": {"model_type": "bloom", "hidden_size": 4096, "n_layer": 30, "n_head": 32, "vocab_size": 250880},
}
SIZES = (90, 180, 359, 718, 1436)
"""About as many as the frontier takes by default to span the levels, where LAPE finds 718 neurons a language, as in LLaMA-2-7B."""
CARD = 0.4 * 989e12
"""FLOP per second: 40 % of what an H100 does at most in bfloat16."""


def costs() -> dict[str, Cost]:
    """Part -> what it runs, of those that run a model, for seven languages."""
    values = preset("tang2024")
    parts = chosen_parts(values.pop("parts").split(","), False)
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    options = study_options()(**settings, sizes=SIZES)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", LapeWarning)
        model, tokenizer, lines = _small()
        stats = lape.record(
            model, tokenizer, {k: Documents(some) for k, some in lines.items()}, tokens=500, document="line"
        )
        context = Context(model, tokenizer, stats, lines, options, Path(folder))
        found = {
            one.name: one.cost(context, taken(one.options, options))
            for one in parts
            if not one.missing(context, options)
        }
    return {name: cost for name, cost in found.items() if cost != Cost()}


def _small() -> tuple[PreTrainedModel, Any, dict[str, list[str]]]:
    """A model of two narrow layers, and lines in seven languages."""
    tokenizer = load_tokenizer("sample")
    shape = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), **shape)
    lines = samples.questions("reporting")
    return AutoModelForCausalLM.from_config(config).eval(), tokenizer, {k: list(lines[k]) for k in LANGUAGES}


def flops(shape: dict[str, Any]) -> tuple[float, float]:
    """FLOP per token of the body and of the head, of a model with random weights of which a few layers are made."""
    with tempfile.TemporaryDirectory() as folder:
        AutoConfig.for_model(**shape, torch_dtype="bfloat16").save_pretrained(folder)
        few = skeleton(folder, fewest=2)
    ids = tiny_ids(few.model, 1, 512)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        hidden_states(few.model, ids)  # the counter does not know the CPU's fused attention
    body = counter.get_total_flops() / ids.numel() / few.layers * few.of
    return body, 2.0 * few.model.config.hidden_size * few.model.config.vocab_size


def main() -> None:
    """Print the table."""
    recorded = len(LANGUAGES) * preset("tang2024")["record_tokens"]
    found = {"record": Cost(body_tokens=recorded), **costs()}
    each = {name: flops(shape) for name, shape in SHAPES.items()}
    print(f"| part | passes | tokens | {' | '.join(each)} |")
    print(f"|---|---|---|{'---|' * len(each)}")
    total = dict.fromkeys(each, 0.0)
    for part, cost in found.items():
        row = []
        for name, (body, head) in each.items():
            seconds = (cost.loss_tokens * (body + head) + (cost.body_tokens + cost.new_tokens) * body) / CARD
            total[name] += seconds
            row.append(f"{seconds / 3600:.1f} h")
        tokens = cost.loss_tokens + cost.body_tokens + cost.new_tokens
        print(f"| {part} | {cost.passes:,} | {tokens / 1e6:,.0f} M | {' | '.join(row)} |")
    print(f"| all | | | {' | '.join(f'{one / 3600:.0f} h' for one in total.values())} |")


if __name__ == "__main__":
    main()
