"""Which neurons LAPE selects in one number format and in others: Jaccard of the sets found in the same text.

usage: python benchmarks/precision.py TAG=PATH TAG=PATH ... [--tokens N] [--formats bfloat16 float32 8 4]

The first format is compared with each other one; 8 and 4 are bits (bitsandbytes).
"""

from __future__ import annotations

import argparse

import lape
from lape.values.neurons import jaccard


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--model", default="sample")
    parser.add_argument("--tokens", type=int, default=10_000)
    parser.add_argument("--formats", nargs="+", default=["bfloat16", "float32"])
    arguments = parser.parse_args()
    texts = dict(pair.split("=", 1) for pair in arguments.texts)
    first, *others = ((name, found(arguments.model, name, texts, arguments.tokens)) for name in arguments.formats)
    for name, sets in others:
        print(f"{first[0]} and {name}")
        for language, own in first[1].items():
            print(f"{language:8} {len(own):5} {len(sets[language]):5}  {jaccard(own, sets[language]):.3f}")
        print(f"{'all':8} {len(first[1].union):5} {len(sets.union):5}  {jaccard(first[1].union, sets.union):.3f}")


def found(name: str, number_format: str, texts: dict[str, str], tokens: int) -> lape.LanguageNeurons:
    how = {"bits": int(number_format)} if number_format.isdigit() else {"dtype": number_format}
    model, tokenizer = lape.load(name, **how)
    return lape.identify(lape.record(model, tokenizer, texts, tokens=tokens))


if __name__ == "__main__":
    main()
