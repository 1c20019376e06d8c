"""The ids of XQuAD's questions whose answer, a number or a name, is written as it would be in English: `plain.tsv`.

    python docs/studies/xquad-qwen2.5-coder-0.5b/plain.py zh=data/xquad/zh.json vi=data/xquad/vi.json

An answer in English can be right to these, so what is lost on them is not that the model answers in English. The questions and answers themselves
are not kept here.
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

from lape.experiments.answering.squad import read_squad


def plain(answer: str) -> bool:
    """Whether an answer has no letter but those of English."""
    return all(sign.isascii() for sign in answer if sign.isalpha())


def main(given: list[str]) -> None:
    rows = []
    for one in given:
        language, _, path = one.partition("=")
        rows += [(language, asked.id) for asked in read_squad(path) if all(map(plain, asked.answers))]
    found = pl.DataFrame(rows, schema=["language", "id"], orient="row").sort("language", "id")
    found.write_csv(Path(__file__).with_name("plain.tsv"), separator="\t")


if __name__ == "__main__":
    main(sys.argv[1:])
