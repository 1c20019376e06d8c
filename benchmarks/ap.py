"""How long average precision takes a million neurons: made answers of 7 languages × 200 texts.

usage: python benchmarks/ap.py [NEURONS]
"""

from __future__ import annotations

import sys
import time

import torch

from lape.detect.ap import average_precision

LANGUAGES, TEXTS = 7, 200


def main() -> None:
    neurons = int(sys.argv[1]) if len(sys.argv) > 1 else 36_864
    generator = torch.Generator().manual_seed(0)
    answers = [torch.randn(TEXTS, neurons, generator=generator).half() for _ in range(LANGUAGES)]
    start = time.perf_counter()
    average_precision(answers)
    seconds = time.perf_counter() - start
    print(
        f"{neurons:,} neurons, {LANGUAGES * TEXTS:,} texts: {seconds:.1f} s, {seconds / neurons * 1e6:.0f} s per million neurons"
    )


if __name__ == "__main__":
    main()
