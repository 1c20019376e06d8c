"""How long every selection method takes on statistics the size of LLaMA-2-70B (80 layers × 28,672 neurons × 7 languages, 8 folds).

What reads single texts or histograms is timed on fewer neurons, and told per million of them; their time grows in step.
usage: python benchmarks/identify.py [FILE.safetensors]   with a file, the statistics go through disk as a user's would
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch

import lape
from lape.values.histogram import BINS
from lape.values.space import NeuronSpace
from lape.values.stats import ActivationStats, LanguageStats

LAYERS, WIDTH, TOKENS, FOLDS = 80, 28672, 99_999_744, 8
FEW, TEXTS = 36_864, 200
LANGUAGES = ("en", "zh", "fr", "es", "vi", "id", "ja")
LIMIT = 30.0
"""Seconds that a selection method may take on all neurons."""
WAYS: list[tuple[str, dict[str, Any]]] = [
    ("lape", {}),
    ("lape", {"per_language": 1000}),
    ("lap", {}),
    ("lave", {}),
    ("random", {}),
    ("alignment", {}),
    ("alignment", {"weight": 0.1}),
    ("difference", {}),
    ("difference", {"of": "probability"}),
    ("difference", {"against": "largest"}),
    *(("attribution", {"by": by}) for by in ("own", "difference", "share", "product", "entropy")),
]
PER_MILLION = ("ap", "probability90")


def synthetic() -> ActivationStats:
    """Firing rates as real models have them: mostly low, some neurons far more frequent in one language."""
    generator = torch.Generator().manual_seed(0)
    neurons = LAYERS * WIDTH
    rate = torch.rand(neurons, generator=generator).pow_(3)
    by_language = {}
    for language in LANGUAGES:
        noise = torch.rand(neurons, generator=generator)
        share = rate * 0.7 + 0.3 * noise.pow(4)
        strength = share * (0.5 + noise) * TOKENS
        by_language[language] = LanguageStats(
            {
                "tokens": torch.full((FOLDS,), TOKENS // FOLDS),
                "routed": torch.full((FOLDS, LAYERS), TOKENS // FOLDS),
                "fires": (share * (TOKENS // FOLDS)).long().repeat(FOLDS, 1),
                "sum": (strength - 0.1 * TOKENS).double(),
                "positive": strength.double(),
                "attribution": torch.randn(neurons, generator=generator).double() * share,
                "attributed": torch.tensor([5000]),
            }
        )
    return ActivationStats(NeuronSpace.dense(LAYERS, WIDTH), by_language, {})


def few() -> ActivationStats:
    """Fewer neurons, with the means of single texts and histograms."""
    generator = torch.Generator().manual_seed(0)
    by_language = {}
    for language in LANGUAGES:
        by_language[language] = LanguageStats(
            {
                "tokens": torch.tensor([TOKENS]),
                "routed": torch.tensor([[TOKENS]]),
                "fires": torch.randint(TOKENS, (1, FEW), generator=generator),
                "texts": torch.randn(TEXTS, FEW, generator=generator).half(),
                "histogram": torch.randint(TOKENS // BINS, (FEW, BINS), generator=generator),
            }
        )
    return ActivationStats(NeuronSpace.dense(1, FEW), by_language, {})


def timed(stats: ActivationStats, method: str, options: dict[str, Any]) -> tuple[float, int]:
    """Seconds, and how many neurons were chosen."""
    start = time.perf_counter()
    neurons = lape.identify(stats, method, reliability=False, **options)
    return time.perf_counter() - start, len(neurons.union)


def gibibytes() -> float:
    """The peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def lines() -> Iterator[str]:
    stats = synthetic()
    if len(sys.argv) > 1:
        stats.save(sys.argv[1], overwrite=True)
        stats = ActivationStats.load(sys.argv[1])
    held = gibibytes()
    yield f"{len(stats.space):,} neurons × {len(LANGUAGES)} languages; the statistics took {held:.2f} GiB to make"
    for method, options in WAYS:
        seconds, chosen = timed(stats, method, options)
        name = " ".join([method, *(f"{key}={value}" for key, value in options.items())])
        slow = f"   over {LIMIT:.0f} s" if seconds > LIMIT else ""
        yield f"{name:30} {seconds:6.2f} s   {chosen:7,} neurons   peak memory {gibibytes():.2f} GiB{slow}"
    stats = few()
    for method in PER_MILLION:
        seconds, _ = timed(stats, method, {})
        yield f"{method:30} {seconds:6.2f} s   {FEW:7,} neurons in all: {seconds / FEW * 1e6:.0f} s per million neurons"


def main() -> None:
    for line in lines():
        print(line, flush=True)


if __name__ == "__main__":
    main()
