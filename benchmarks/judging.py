"""How long answers take to be judged: `lape confusion --answers` beside the Language Confusion Benchmark's own rule alone, on the same answers.

    python benchmarks/judging.py [--answers 66000]

66,000 answers are as many as the benchmark's ten published outputs hold. They are made of the bundled texts: of 60 to 500 letters, one in three in another
language than the one that is wanted, in as many languages and sources as the benchmark has. Prints the seconds of both and their ratio.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import polars as pl

from lape.data import samples
from lape.experiments.confusion.run import scored
from lape.measure.language_confusion import language_confusion

LANGUAGES = ("fr", "es", "vi", "id", "ja", "zh", "ko", "ar", "ru", "de")
SOURCES = ("okapi", "aya", "dolly", "native")


def answers(count: int) -> pl.DataFrame:
    texts = {k: source.texts for k, source in samples.texts("record", languages=("en", *LANGUAGES)).items()}
    draw = np.random.default_rng(0)
    rows = []
    for k in range(count):
        language = LANGUAGES[k % len(LANGUAGES)]
        written = "en" if draw.random() < 1 / 3 else language
        text = texts[written][draw.integers(len(texts[written]))]
        start, length = draw.integers(40), draw.integers(60, 500)
        rows.append((f"model {k % 10}", SOURCES[k // 10 % len(SOURCES)], language, text[start : start + length]))
    return pl.DataFrame(rows, schema=["condition", "source", "language", "answer"], orient="row")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=66_000)
    given = answers(parser.parse_args().answers)
    began = time.perf_counter()
    language_confusion(given.select("source", "language", pl.col("answer").alias("completion")))
    alone = time.perf_counter() - began
    began = time.perf_counter()
    found = scored(given)
    ours = time.perf_counter() - began
    share = found["confused_answers"]["kind"].is_not_null().mean()
    print(
        f"{len(given):,} answers, a share of {share:.2f} failing: the rule alone {alone:.1f} s, all that is judged {ours:.1f} s, {ours / alone:.1f} times"
    )


if __name__ == "__main__":
    main()
