"""What compiling gives a recording: the bare body and ours, each as it is and compiled, interleaved on the same rows; and how many
activations change sign.

Prints the time that making the graph takes, tokens a second, the ratio to the bare body of each round (median of 10 rounds), the share of
the matmul peak measured in the same process, and, per million activations, how many fire in one way and not in the other.
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
from recording import OPTIONS, ROUNDS, rows
from torch import Tensor

import lape
from lape.corpus import Batch
from lape.engines.compiled import CompiledReader
from lape.hooking import change
from lape.reader import Reader, run_batch
from lape.sites import body, evaluating, find, hidden_states


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
    model, tokenizer = lape.load(name, dtype=dtype)
    todo = full(rows(model, tokenizer))
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


def peak(dtype: torch.dtype, size: int = 2048) -> float:
    """FLOP a second of a product of square matrices."""
    a, b = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def speed(name: str, dtype: str) -> None:
    """All four ways, round by round."""
    model, tokenizer = lape.load(name, dtype=dtype)
    found, todo = find(model), full(rows(model, tokenizer))
    plain, graph = Reader(model, found, OPTIONS, None), CompiledReader(model, found, OPTIONS)
    bare = torch.compile(lambda ids, positions: hidden_states(model, ids, position_ids=positions), dynamic=False)
    positions = torch.arange(512).repeat(4, 1)
    ways: dict[str, tuple[Any, Callable[[Batch], Any]]] = {
        "bare": (nullcontext(), lambda one: run_batch(model, one)),
        "recorded": (plain, plain.read),
        "bare, compiled": (nullcontext(), lambda one: bare(one.input_ids, positions)),
        "recorded, compiled": (graph, graph.read),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    tokens = sum(one.input_ids.numel() for one in todo)
    for number in range(ROUNDS + 1):
        for way, (reader, read) in ways.items():
            with torch.inference_mode(), reader.attached() if hasattr(reader, "attached") else nullcontext():
                first = time.perf_counter()
                read(todo[0])  # where hooks came or went, torch fetches the graph again
                start = time.perf_counter()
                for one in todo:
                    read(one)
                seconds = time.perf_counter() - start
            if number:
                times[way].append(seconds)
            else:
                print(f"{way}: first batch {start - first:.1f} s")
    weights = sum(p.numel() for n, p in body(model).named_parameters() if p.dim() == 2 and "embed" not in n)
    most = peak(next(body(model).parameters()).dtype)
    for way, seconds in times.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, times["bare"], strict=True))
        rate = tokens / statistics.median(seconds)
        print(
            f"{way:20} {rate:7.0f} tokens/s  {ratio:.3f} x the bare body's time  {2 * weights * rate / most:6.1%} of the matmul peak"
        )
    print(f"matmul peak {most / 1e9:.0f} GFLOP/s in {dtype}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default="sample")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--flips", action="store_true")
    arguments = parser.parse_args()
    (flips if arguments.flips else speed)(arguments.model, arguments.dtype)
