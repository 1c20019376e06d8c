"""What watching a mixture of experts costs: one expert after the other, beside the model's own experts, interleaved in one run.

usage: python benchmarks/experts.py [REPEATS]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from lape.model.body import hidden_states
from lape.model.find import find
from lape.model.hooks import watching
from lape.model.numerics import gap
from lape.recording.counter import Recorder

ROWS, TOKENS = 4, 512


def model() -> Qwen3MoeForCausalLM:
    """Qwen3's shape, scaled down: 4 layers of 64 experts, 8 a token, random weights in bfloat16."""
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=32_000,
        hidden_size=1024,
        intermediate_size=2048,
        moe_intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=128,
        num_experts=64,
        num_experts_per_tok=8,
    )
    return Qwen3MoeForCausalLM(config).to(torch.bfloat16).eval()


def timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


@torch.inference_mode()
def main(repeats: int) -> None:
    made = model()
    found = find(made)
    ids = torch.randint(100, 32_000, (ROWS, TOKENS), generator=torch.Generator().manual_seed(1))
    fold = torch.zeros(ROWS, TOKENS, dtype=torch.int64)

    def bare() -> torch.Tensor:
        return hidden_states(made, ids)

    def watched() -> torch.Tensor:
        with watching(made, found.sites, lambda _k, _a, _rows: None):
            return hidden_states(made, ids)

    recorder = Recorder(made, found)

    def recorded() -> torch.Tensor:
        with recorder.attached():
            recorder.count(fold)
            return hidden_states(made, ids)

    ways = {"the model's own experts": bare, "one after the other, watched": watched, "counted": recorded}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, run in ways.items():
            seconds[name].append(timed(run))
    first = statistics.median(seconds["the model's own experts"][1:])
    print(f"{found.space}; {ROWS} × {TOKENS} tokens, {made.dtype}, {made.device}, {torch.get_num_threads()} threads")
    for name, times in seconds.items():
        median = statistics.median(times[1:])
        print(f"{name:32} {ROWS * TOKENS / median:8.0f} tokens/s  {median / first:.2f} × the time")
    print(f"hidden states differ by {gap(watched(), bare()):.1e} of the largest")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
