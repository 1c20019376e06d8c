"""An adapter beside the same edit by hooks: answers to questions, as a served model gives them.

    python benchmarks/adapters.py MODEL RUN --strength 1.0 --out FOLDER

For 18 pairs of languages (from en, zh and fr into each other language of the paper) the 40 questions that settings may be chosen by are answered
greedily under `lape.Add(..., at="gate")` and under the adapter that `lape.export` writes of it, and judged as `lape force` judges. Prints and writes the
paired differences, adapter less hooks, with 95 % intervals over questions. Goes on where it was stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import polars as pl
import torch

import lape
from lape.data import samples
from lape.data.language_id import identifier
from lape.edit.edit import Edit, edited
from lape.edit.steer import SHIPPED, steering
from lape.measure.answer_table import Judge
from lape.measure.bench import Bench, named_sets
from lape.measure.bootstrap import Resamples
from lape.measure.generation import GenerationOptions, generate
from lape.measure.methods import CEILING, Setting
from lape.measure.prompts import ask, cut
from lape.model.find import find
from lape.ship.changes import Change, changes, gates
from lape.ship.constant import Constant, constants, read
from lape.ship.fit import served
from lape.ship.lora import updates
from lape.store.cells import Cells
from lape.values.stats import ActivationStats

SOURCES = ("en", "zh", "fr")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("run")
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--sets", default="difference:100")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=3000)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    model, tokenizer = lape.load(given.model, dtype=given.dtype)
    stats = ActivationStats.load(given.run)
    bench = Bench(model, tokenizer, stats, None, GenerationOptions(new_tokens=given.new_tokens))
    sets = named_sets(stats, given.sets)
    questions, native = samples.questions("choosing"), samples.questions("development")
    judge = Judge(
        bench,
        identifier("lingua", samples.LANGUAGES),
        identifier("langid", samples.LANGUAGES),
        {"development": 8, "report": 8},
    )
    texts = read(
        tokenizer, samples.texts("record", languages=(*samples.LANGUAGES, *samples.FURTHER)), tokens=given.tokens
    )
    given.out.mkdir(parents=True, exist_ok=True)
    cells = Cells(given.out)
    found = find(model)
    for target in samples.LANGUAGES:
        edits = steering(sets, stats, replace(SHIPPED, strength=given.strength), to=target)
        todo = changes(model, found, edits, biases=False)
        fitted = cache(partial(constants, model, gates(todo), texts))
        for source in (one for one in SOURCES if one != target):
            for way in ("hooks", "adapter"):

                def make(
                    way: str = way,
                    source: str = source,
                    target: str = target,
                    edits: Sequence[Edit] = edits,
                    todo: Sequence[Change] = todo,
                    fitted: Callable[[], Mapping[str, Constant]] = fitted,
                ) -> pl.DataFrame:
                    if not judge.knows(target):
                        judge.learn(target, bench.answers(CEILING, native, target, target))
                    prompts = [ask(tokenizer, one, source=source, target=target) for one in questions[source]]
                    with edited(model, edits) if way == "hooks" else served(model, updates(model, todo, fitted())):
                        found = generate(model, tokenizer, prompts, bench.generation)
                    answers = [cut(one, target=target) for one in found]
                    setting = Setting("neurons", way)
                    return judge.verdicts("development", setting, (source, target), answers, questions[target])

                cells.table(f"{source}-{target}.{way}", make)
            print(source, target, flush=True)
    show(given.out)


def show(out: Path) -> None:
    """The paired differences, over questions: of the mean over pairs."""
    every = pl.concat([pl.read_parquet(path) for path in sorted(out.glob("*-*.*.parquet"))])
    rows = []
    for target in ("all", *every["target"].unique(maintain_order=True)):
        some = every if target == "all" else every.filter(pl.col("target") == target)
        for share in ("in_language", "good"):
            wide = (
                some.group_by("question", "setting")
                .agg(pl.col(share).cast(pl.Float64).mean())
                .pivot("setting", index="question", values=share)
            )
            drawn = Resamples(len(wide), 2000, 0)
            ours, theirs = (wide[way].to_numpy() for way in ("adapter", "hooks"))
            row = {"target": target, "share": share, "hooks": theirs.mean(), "adapter": ours.mean()}
            rows.append(row | drawn.plain("difference", drawn.weights @ (ours - theirs) / len(wide)))
    table = pl.DataFrame(rows)
    table.write_parquet(out / "differences.parquet")
    with pl.Config(tbl_rows=-1, float_precision=3):
        print(table)


if __name__ == "__main__":
    main()
