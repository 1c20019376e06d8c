"""What recording costs on this machine, compared with the bare body and the published rule as a hook, interleaved on the same rows: counts and
sums of activations and of what is written, and with residuals and histograms as well.

Prints tokens per second, the ratio to the bare body of each round (median of 10 rounds), the same for batches of fewer tokens, and the peak
memory of a bare and of a recording process. usage: python benchmarks/recording.py [MODEL] [--memory bare|ours]
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
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import torch

import lape
from lape.data import samples
from lape.data.corpus import FOLDS, prepare
from lape.data.texts import Documents
from lape.data.windows import Batch, batch, batches
from lape.model.body import run_batch
from lape.model.find import find
from lape.model.hooks import watching
from lape.model.site import Sites
from lape.recording.engine import RecordOptions
from lape.recording.reader import Reader

Read: TypeAlias = Callable[[Batch], object]
ROUNDS = 10
SIZES = (32, 128, 512)
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


def smaller(model: Any, found: Sites, tokens: int) -> float:
    """What recording costs where batches have so many tokens: the median ratio to the bare body of 10 rounds."""
    source = torch.arange(tokens)[None]
    one = Batch(1000 + 7 * source, None, source, source // 16 % FOLDS)
    reader, ratios = Reader(model, found, OPTIONS, None), []
    with torch.inference_mode():
        for number in range(ROUNDS + 1):
            seconds = []
            for context, read in ((nullcontext(), partial(run_batch, model)), (reader.attached(), reader.read)):
                with context:
                    start = time.perf_counter()
                    for _ in range(max(1, 1024 // tokens)):
                        read(one)
                    seconds.append(time.perf_counter() - start)
            if number:
                ratios.append(seconds[1] / seconds[0])
    return statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default="sample")
    parser.add_argument("--memory", choices=("bare", "ours"))
    arguments = parser.parse_args()
    model, tokenizer = lape.load(arguments.model)
    found, todo = find(model), rows(model, tokenizer)
    reader = Reader(model, found, OPTIONS, None)
    more = Reader(model, found, replace(OPTIONS, residual=True, histogram=True), None)
    forward: Read = partial(run_batch, model)
    ways: dict[str, tuple[Callable[[], Any], Read]] = {
        "bare": (nullcontext, forward),
        "ours": (reader.attached, reader.read),
        "ours, with residual and histogram": (more.attached, more.read),
        "published": (lambda: published(model, found), forward),
    }

    def run(read: Read) -> float:
        start = time.perf_counter()
        for one in todo:
            read(one)
        return time.perf_counter() - start

    with torch.inference_mode():
        if arguments.memory:
            context, read = ways[arguments.memory]
            for _ in range(3):
                with context():
                    run(read)
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            return
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(ROUNDS + 1):
            for name, (context, read) in ways.items():
                with context():
                    seconds = run(read)
                if number:  # the first round warms up
                    times[name].append(seconds)
    tokens = sum(int((one.source >= 0).sum()) for one in todo)
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds, times["bare"], strict=True)]
        print(
            f"{name:34} {tokens / statistics.median(seconds):8.0f} tokens/s   median of medians ratio "
            f"{statistics.median(seconds) / statistics.median(times['bare']):.3f}   median of paired ratios {statistics.median(ratios):.3f}"
        )
    print(
        "tokens of a batch: median of paired ratios "
        + ", ".join(f"{n:,}: {smaller(model, found, n):.3f}" for n in SIZES)
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
