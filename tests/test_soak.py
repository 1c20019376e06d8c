"""Long rounds, run by `make soak`."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import lape
from support.tiny import tiny, tiny_tokenizer

LINE = "the cat sat on the mat and the dog ate the rat; le chat dort sur le lit et le chien mange.\n"


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.soak
def test_ten_million_tokens_take_no_more_memory_and_no_more_time_each_than_a_few(tmp_path: Path) -> None:
    model, tokenizer = tiny("llama", torch.float32), tiny_tokenizer()
    per_line = len(tokenizer(LINE, add_special_tokens=False)["input_ids"])
    path = tmp_path / "en.txt"
    with path.open("w") as file:
        for _ in range(10_000_000 // per_line // 1000 + 1):
            file.write(LINE * 1000)
    seen: list[tuple[float, int]] = []

    def note(task: str, done: int, _total: int | None) -> None:
        if task == "recording en":
            seen.append((time.perf_counter(), done))

    options = {"row_tokens": 256, "batch_tokens": 16_384}
    lape.record(model, tokenizer, {"en": path}, tokens=600_000, **options)
    before = _peak()
    stats = lape.record(model, tokenizer, {"en": path}, tokens=10_000_000, progress=note, **options)
    assert int(stats["en"].tokens.sum()) == 10_000_000
    assert _peak() - before < 200 * 1024  # kilobytes: the token file is mapped, not held
    times, done = np.array(seen).T
    rates = 1e6 / np.diff(
        np.interp(np.linspace(0.01, 1, 11) * 1e7, done, times)
    )  # after the first batches, which warm up
    print(f"\ntokens/s of each tenth {rates.round(-3)}, last of first {rates[-1] / rates[0]:.3f}")  # noqa: T201
    assert rates[-1] > 0.8 * rates[0]  # a machine's own ups and downs are less than that


@pytest.mark.soak
def test_the_demo_says_the_same_to_the_last_digit_whatever_the_number_of_threads(tmp_path: Path) -> None:
    """Sums in bfloat16 are rounded otherwise by another number of threads, and a neuron at the bar would pass or not."""
    said = []
    for threads in (1, 4):
        command = [sys.executable, "-m", "lape", "demo", "--out", str(tmp_path / str(threads))]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "COLUMNS": "80"}
        done = subprocess.run(
            [*command, "--documents", "1", "--draws", "2"], env=environment, capture_output=True, text=True, check=True
        )
        said.append(done.stdout.split("Everything is in")[0])
    assert "beside control neurons" in said[0]
    assert said[0] == said[1]
    one, other = (pl.read_parquet(tmp_path / threads / "lines.parquet") for threads in ("1", "4"))
    assert one.equals(other)
