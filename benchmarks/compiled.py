"""What compiling gives a recording: the bare body and ours, each as it is and compiled, interleaved on the same rows; and how many
activations change sign.

Prints the time that making the graph takes, tokens per second, the ratio to the bare body of each round (median of 10 rounds), the share of
the matmul peak measured in the same process, and, per million activations, how many fire in one way and not in the other.
MODEL may be llama-2-7b: that shape with random weights, rows of 4 × 2,048 tokens of one document each. On a GPU where there is one.
usage: python benchmarks/compiled.py [MODEL] [--dtype bfloat16] [--flips]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

import lape
from lape.data.windows import Batch
from lape.model.body import body, evaluating, hidden_states, run_batch
from lape.model.compiled import Fixed
from lape.model.find import find
from lape.model.hooks import change
from lape.recording.engine import RecordOptions
from lape.recording.engines.compiled import CompiledReader
from lape.recording.reader import Reader
from recording import OPTIONS, ROUNDS, published, rows


def full(todo: list[Batch]) -> list[Batch]:
    """Batches of the one shape, so that all ways run the same."""
    return [one for one in todo if one.input_ids.shape == (4, 512)]


def fires(model: Any, todo: list[Batch], *, graph: bool) -> Tensor:
    """(tokens, neurons) bool: which counted activations are above 0."""
    held: list[Tensor] = []

    def forward(ids: Tensor) -> list[Tensor]:
        held.clear()
        hidden_states(model, ids)
        return list(held)

    run = torch.compile(forward, dynamic=False) if graph else forward
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(evaluating(model))
        for site in find(model).sites:
            for handle in change(model, site, lambda a, _rows: held.append(a > 0)):
                stack.callback(handle.remove)
        return torch.cat([torch.cat(run(one.input_ids), -1)[one.fold >= 0] for one in todo])


def flips(name: str, dtype: str) -> None:
    """How many activations fire in one way and not in the other, per million."""
    model, todo, _ = given(name, dtype)
    usual, compiled = fires(model, todo, graph=False), fires(model, todo, graph=True)
    print(
        f"{dtype}: {(usual != compiled).double().mean() * 1e6:.2f} of a million activations change sign when compiled"
    )
    if dtype != "float32":
        exact = fires(lape.load(name, dtype="float32")[0], todo, graph=False)
        for what, ours in (("as it is", usual), ("compiled", compiled)):
            print(
                f"{dtype} {what}: {(ours != exact).double().mean() * 1e6:.0f} of a million lie otherwise than in float32"
            )


def peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP per second of a product of square matrices."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        a @ b
        wait(device)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def given(name: str, dtype: str) -> tuple[Any, list[Batch], RecordOptions]:
    """A model, batches of one shape, and the options that they go with."""
    if name != "llama-2-7b":
        model, tokenizer = lape.load(name, dtype=dtype)
        return model, full(rows(model, tokenizer)), OPTIONS
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        model = LlamaForCausalLM(LlamaConfig()).to(getattr(torch, dtype)).eval()
    ids = torch.randint(1000, 30_000, (4, 2048))
    fold = torch.arange(8192).view(4, 2048) // 1024 % 8
    one = Batch(ids, None, torch.arange(8192).view(4, 2048), fold)
    return model, [one], RecordOptions(row_tokens=2048, batch_tokens=8192, one_per_row=True)


def speed(name: str, dtype: str) -> None:
    """All ways, round by round."""
    model, todo, options = given(name, dtype)
    found, device = find(model), next(body(model).parameters()).device
    plain, graph = Reader(model, found, options, None), CompiledReader(model, found, options)
    fixed = Fixed(model, found, options)
    bare = torch.compile(fixed.forward, dynamic=False)
    ways: dict[str, tuple[Callable[[], Any], Callable[[Batch], Any]]] = {
        "bare": (nullcontext, lambda one: run_batch(model, one)),
        "published rule": (lambda: published(model, found), lambda one: run_batch(model, one)),
        "recorded": (plain.attached, plain.read),
        "bare, compiled": (nullcontext, lambda one: bare(*fixed.arguments(one))),
        "recorded, compiled": (graph.attached, graph.read),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    tokens = sum(one.input_ids.numel() for one in todo)
    for number in range(ROUNDS + 1):
        for way, (attached, read) in ways.items():
            with torch.inference_mode(), attached():
                first = time.perf_counter()
                read(todo[0])  # where hooks came or went, torch fetches the graph again
                wait(device)
                start = time.perf_counter()
                for one in todo:
                    read(one)
                wait(device)
                seconds = time.perf_counter() - start
            if number:
                times[way].append(seconds)
            else:
                print(f"{way}: first batch {start - first:.1f} s")
    weights = sum(p.numel() for n, p in body(model).named_parameters() if p.dim() == 2 and "embed" not in n)
    most = peak(device, next(body(model).parameters()).dtype)
    for way, seconds in times.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, times["bare"], strict=True))
        rate = tokens / statistics.median(seconds)
        print(
            f"{way:20} {rate:7.0f} tokens/s  {ratio:.3f} x the bare body's time  {2 * weights * rate / most:6.1%} of the matmul peak"
        )
    what = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU cores"
    print(f"matmul peak {most / 1e9:,.0f} GFLOP/s in {dtype} on {what}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default="sample")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--flips", action="store_true")
    arguments = parser.parse_args()
    (flips if arguments.flips else speed)(arguments.model, arguments.dtype)
