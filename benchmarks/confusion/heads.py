"""Which attention head makes right answers likelier than wrong ones, by language, from the pilot's answers: NAME-heads.

    python benchmarks/confusion/heads.py MODEL ANSWERS TABLES --name qwen2.5-coder-0.5b

ANSWERS: the pilot's folder, for the prompts; TABLES: the folder of `read.py`'s tables, for the verdicts. Of the cross-lingual questions that fail in the
language or script without the line, and do not fail with it: the two answers, after the prompt without the line. All heads, the strongest first.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import polars as pl

import lape
from lape.experiments.confusion.search import TURNED
from lape.measure.answer_loss import ids_of
from lape.measure.heads import RANKED, rank_heads
from lape.measure.prompts import conversation
from lape.store.run import read_table, write_table

HEADS = {"language": pl.String, "answers": pl.Int64, **RANKED}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("answers", type=Path)
    parser.add_argument("tables", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--dtype", default="bfloat16")
    given = parser.parse_args()
    model, tokenizer = lape.load(given.model, dtype=given.dtype)
    judged = read_table(given.tables / f"{given.name}-answers.parquet").filter(task="crosslingual")
    found = []
    for (language,), some in judged.group_by("language", maintain_order=True):
        path = given.answers / f"{language}.none.jsonl"
        asked = {
            row["question"]: row["prompt"] for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())
        }
        wrong = some.filter(pl.col("kind").is_in(TURNED), condition="none")
        both = wrong.join(some.filter(pl.col("kind").is_null(), condition="line"), on="question")
        pairs: list[list[tuple[list[int], list[int]]]] = [[], []]
        for row in both.iter_rows(named=True):
            prompt = conversation(tokenizer, [{"role": "user", "content": asked[row["question"]]}])
            for one, answer in zip(pairs, (row["answer_right"], row["answer"]), strict=True):
                one.append(ids_of(tokenizer, prompt, answer))
        ranked = rank_heads(model, *pairs)
        print(language, len(both), ranked.head(3).rows(), flush=True)
        found.append(ranked.with_columns(language=pl.lit(language), answers=pl.lit(len(both), pl.Int64)).select(*HEADS))
    write_table(given.tables / f"{given.name}-heads.parquet", pl.concat(found))


if __name__ == "__main__":
    main()
