"""How long LAPE takes on statistics the size of LLaMA-2-70B (80 layers × 28,672 neurons × 7 languages), and in how much memory.

usage: python benchmarks/identify.py [FILE.safetensors]   with a file, the statistics go through disk as a user's would
"""

from __future__ import annotations

import resource
import sys
import time

import torch

import lape
from lape.stats import ActivationStats

LAYERS, WIDTH, TOKENS = 80, 28672, 99_999_744
LANGUAGES = ("en", "zh", "fr", "es", "vi", "id", "ja")


def synthetic() -> ActivationStats:
    """Firing rates as real models have them: mostly low, some neurons far more frequent in one language."""
    generator = torch.Generator().manual_seed(0)
    rate = torch.rand(LAYERS, WIDTH, generator=generator).pow_(3)
    fires = torch.empty(len(LANGUAGES), LAYERS, WIDTH, dtype=torch.int64)
    for k in range(len(LANGUAGES)):
        noise = torch.rand(LAYERS, WIDTH, generator=generator)
        fires[k] = ((rate * 0.7 + 0.3 * noise.pow_(4)) * TOKENS).long()
    return ActivationStats.from_counts(LANGUAGES, [TOKENS] * len(LANGUAGES), fires)


def main() -> None:
    stats = synthetic()
    if len(sys.argv) > 1:
        stats.save(sys.argv[1], overwrite=True)
        stats = ActivationStats.load(sys.argv[1])
    start = time.perf_counter()
    neurons = lape.identify(stats)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{len(stats.space):,} neurons × {len(stats.languages)} languages: {seconds:.1f} s, peak memory of the process {peak:.2f} GiB"
    )
    print({language: len(found) for language, found in neurons.items()}, "union", len(neurons.union))


if __name__ == "__main__":
    main()
