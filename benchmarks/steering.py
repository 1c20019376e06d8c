"""What steering costs a decode step: steered and unsteered generation of the sample model, interleaved in one process.

Also with edits that act on some positions only, and an exported checkpoint beside the model it came from.
Usage: python benchmarks/steering.py [rounds]
"""

import statistics
import sys
import tempfile
import time
from contextlib import nullcontext
from typing import Any

import torch

import lape
from lape.data import samples
from lape.edit.steer import PUBLISHED
from lape.measure.generation import greedy
from lape.recording.record import record

TOKENS = 48


def seconds(model: Any, ids: torch.Tensor) -> float:
    """One greedy generation of exactly TOKENS tokens."""
    began = time.perf_counter()
    with torch.inference_mode():
        model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            min_new_tokens=TOKENS,
            pad_token_id=0,
            **greedy(model, ids.shape[1] + TOKENS),
        )
    return time.perf_counter() - began


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    model, tokenizer = lape.load("sample")
    texts = {
        language: source for language, source in samples.texts("record", 2).items() if language in ("en", "fr", "zh")
    }
    stats = record(model, tokenizer, texts)
    neurons = lape.identify(stats, "difference", per_language=100)
    ids = tokenizer(["How can I manage my time better?"], return_tensors="pt")["input_ids"]
    with tempfile.TemporaryDirectory() as folder:
        exported, _ = lape.load(lape.export(model, lape.Off(neurons["fr"]), folder + "/off", tokenizer=tokenizer))
        steered = {**vars(PUBLISHED), "source": "en", "to": "fr"}
        generated = {**steered, "tokens": "generated"}
        ways: dict[str, tuple[Any, Any]] = {
            "unsteered": (model, nullcontext),
            "steered": (model, lambda: lape.steer(model, neurons, stats=stats, **steered)),
            "steered, generated tokens only": (
                model,
                lambda: lape.steer(model, neurons, stats=stats, **generated),
            ),
            "steered, fading": (
                model,
                lambda: lape.steer(model, neurons, stats=stats, **{**generated, "fade": 0.9}),
            ),
            "exported": (exported, nullcontext),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds + 1):
            for name, (which, context) in ways.items():
                with context():
                    times[name].append(seconds(which, ids))
    base = times["unsteered"][1:]
    print(
        f"{rounds} interleaved rounds of {TOKENS} tokens, one row, {torch.get_num_threads()} threads, after one to warm up"
    )
    for name, all_ in times.items():
        own = all_[1:]
        paired = statistics.median(a / b for a, b in zip(own, base, strict=True))
        ratio = statistics.median(own) / statistics.median(base)
        print(
            f"{name:32s} {1000 * statistics.median(own) / TOKENS:6.2f} ms a token, median of paired ratios {paired:.3f}, ratio of medians {ratio:.3f}"
        )


if __name__ == "__main__":
    main()
