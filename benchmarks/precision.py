"""Which neurons LAPE selects when the model runs in bfloat16 and in float32: Jaccard of the sets found in the same text.

usage: python benchmarks/precision.py TAG=PATH TAG=PATH ... [--tokens N]
"""

from __future__ import annotations

import argparse

import lape


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--model", default="sample")
    parser.add_argument("--tokens", type=int, default=10_000)
    arguments = parser.parse_args()
    texts = dict(pair.split("=", 1) for pair in arguments.texts)
    half, full = (found(arguments.model, dtype, texts, arguments.tokens) for dtype in ("bfloat16", "float32"))
    for language in half:
        a, b = half[language], full[language]
        print(f"{language:8} {len(a):5} {len(b):5}  {len(a & b) / max(1, len(a | b)):.3f}")
    union = len(half.union & full.union) / max(1, len(half.union | full.union))
    print(f"{'all':8} {len(half.union):5} {len(full.union):5}  {union:.3f}")


def found(name: str, dtype: str, texts: dict[str, str], tokens: int) -> lape.LanguageNeurons:
    model, tokenizer = lape.load(name, dtype=dtype)
    return lape.identify(lape.record(model, tokenizer, texts, tokens=tokens))


if __name__ == "__main__":
    main()
