"""What recording costs on this machine: the bare body, ours, and the published rule as a hook, interleaved on the same rows.

Prints tokens per second, the ratio to the bare body of each round (median of 10 rounds), and the peak memory of a bare and of
a recording process. usage: python benchmarks/recording.py [MODEL] [--memory bare|ours]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch

import lape
from lape.data import samples
from lape.data.corpus import prepare
from lape.data.texts import Documents
from lape.data.windows import Batch, batch, batches
from lape.model.body import run_batch
from lape.model.find import find
from lape.model.hooks import watching
from lape.model.site import Sites
from lape.recording.engine import RecordOptions
from lape.recording.reader import Reader

ROUNDS = 10
OPTIONS = RecordOptions(row_tokens=512, batch_tokens=2048)


def rows(model: Any, tokenizer: Any) -> list[Batch]:
    """About 4,000 tokens of bundled text as one document a language, so that rows are full."""
    text = Documents(["\n".join(samples.texts("record")["fr"].texts)])
    corpus = prepare("fr", text, tokenizer, OPTIONS)
    return [batch(corpus, some) for some in batches(corpus, OPTIONS, packs=find(model).packs)]


@contextmanager
def published(model: Any, found: Sites) -> Iterator[None]:
    """The published rule: upcast, compare, sum over tokens."""
    device = next(model.parameters()).device
    counts = [torch.zeros(site.width, dtype=torch.int32, device=device) for site in found.sites]
    with watching(model, found.sites, lambda k, a, _rows: counts[k].add_((a.float() > 0).sum((0, 1)))):
        yield


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default="sample")
    parser.add_argument("--memory", choices=("bare", "ours"))
    arguments = parser.parse_args()
    model, tokenizer = lape.load(arguments.model)
    found, todo = find(model), rows(model, tokenizer)
    reader = Reader(model, found, OPTIONS, None)

    def run(count: bool) -> float:
        start = time.perf_counter()
        for one in todo:
            (reader.read if count else partial(run_batch, model))(one)
        return time.perf_counter() - start

    ways: dict[str, tuple[Callable[[], Any], bool]] = {
        "bare": (nullcontext, False),
        "ours": (reader.attached, True),
        "published": (lambda: published(model, found), False),
    }
    with torch.inference_mode():
        if arguments.memory:
            context, count = ways[arguments.memory]
            for _ in range(3):
                with context():
                    run(count)
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            return
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(ROUNDS + 1):
            for name, (context, count) in ways.items():
                with context():
                    seconds = run(count)
                if number:  # the first round warms up
                    times[name].append(seconds)
    tokens = sum(int((one.source >= 0).sum()) for one in todo)
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds, times["bare"], strict=True)]
        print(
            f"{name:10} {tokens / statistics.median(seconds):8.0f} tokens/s   median of medians ratio "
            f"{statistics.median(seconds) / statistics.median(times['bare']):.3f}   median of paired ratios {statistics.median(ratios):.3f}"
        )
    peak = {
        name: int(
            subprocess.run(
                [sys.executable, __file__, arguments.model, "--memory", name], capture_output=True, check=True
            ).stdout.split()[-1]
        )
        for name in ("bare", "ours")
    }
    print(
        f"peak memory: bare {peak['bare'] / 1024:.0f} MiB, recording {peak['ours'] / 1024:.0f} MiB, ratio {peak['ours'] / peak['bare']:.3f}"
    )


if __name__ == "__main__":
    main()
