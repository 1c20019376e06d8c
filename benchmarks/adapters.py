"""An adapter beside the same edit by hooks, and beside what only hooks can do: answers to questions, as a served model gives them.

    python benchmarks/adapters.py MODEL RUN --out FOLDER

For 18 pairs of languages (from en, zh and fr into each other language of the paper) the 40 questions that settings may be chosen by are answered
greedily, and judged as `lape force` judges: under `lape.Add(..., at="gate")` by hooks; under the adapter that `lape.export` writes of it; with the adapter for
16 tokens and without it from there, as two requests to a server (handover); as `lape steer` does by default, on 16 tokens and fading (steer); and unedited.
The strength is one for all languages (`--strength`), or chosen for each on the other half of the questions, as `lape export` chooses it. Prints and writes
the paired differences of each from hooks, with 95 % intervals over questions. Goes on where it was stopped.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import torch

import lape
from lape.data import samples
from lape.edit.edit import by_unit, edited
from lape.edit.steer import SHIPPED, SteerOptions, steered, steering
from lape.measure.answers import Interview, JudgedOptions
from lape.measure.bench import Bench, named_sets
from lape.measure.bootstrap import Resamples
from lape.measure.generation import GenerationOptions, generate
from lape.measure.methods import Setting
from lape.measure.prompts import ask, cut
from lape.ship.changes import LowRank, changes, gates
from lape.ship.constant import constants, read
from lape.ship.fit import served
from lape.ship.lora import updates
from lape.ship.strength import best, on_samples
from lape.store.cells import Cells
from lape.values.stats import ActivationStats

SOURCES = ("en", "zh", "fr")
WAYS = ("hooks", "adapter", "handover", "steer", "unedited")
FIRST = 16
"""Tokens after which a request goes on without the adapter."""


class Target:
    """A language that is to be written, and the ways to it."""

    def __init__(self, bench: Bench, sets: Any, language: str, strength: float, texts: Any) -> None:
        self.bench, self.language, self.strength, self.texts = bench, language, strength, texts
        self.model, self.tokenizer = bench.model, bench.tokenizer
        self.edits = steering(sets, bench.stats, replace(SHIPPED, strength=strength), to=language)
        self.usual = steering(sets, bench.stats, SteerOptions(), to=language)

    @cached_property
    def adapter(self) -> list[LowRank]:
        todo = changes(self.model, by_unit(self.model, self.edits), biases=False)
        with edited(self.model, self.edits):  # as lape.export fits it
            return updates(self.model, todo, constants(self.model, gates(todo), self.texts))

    def answers(self, way: str, prompts: list[str]) -> list[str]:
        options = self.bench.generation
        if way == "hooks":
            with edited(self.model, self.edits):
                return generate(self.model, self.tokenizer, prompts, options)
        if way == "steer":
            with steered(self.model, self.usual, SteerOptions()):
                return generate(self.model, self.tokenizer, prompts, options)
        if way == "unedited":
            return generate(self.model, self.tokenizer, prompts, options)
        first = options if way == "adapter" else replace(options, new_tokens=FIRST)
        with served(self.model, self.adapter):
            begun = generate(self.model, self.tokenizer, prompts, first)
        if way == "adapter":
            return begun
        rest = replace(options, new_tokens=options.new_tokens - FIRST)
        longer = [k for k, text in enumerate(begun) if len(self.tokenizer.tokenize(text)) >= FIRST]  # others have ended
        more = generate(self.model, self.tokenizer, [prompts[k] + begun[k] for k in longer], rest)
        ends = dict(zip(longer, more, strict=True))
        return [text + ends.get(k, "") for k, text in enumerate(begun)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("run")
    parser.add_argument("--strength", type=float, help="by default chosen for each language")
    parser.add_argument("--sets", default="difference:100")
    parser.add_argument("--ways", nargs="+", default=WAYS)
    parser.add_argument("--targets", nargs="+", default=samples.LANGUAGES)
    parser.add_argument("--sources", nargs="+", default=SOURCES)
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
    asked = {"development": questions}
    interview = Interview(bench, asked, native, samples.LANGUAGES, JudgedOptions(), {"development": 8})
    recorded = samples.texts("record", languages=(*samples.LANGUAGES, *samples.FURTHER))
    texts = read(tokenizer, recorded, tokens=given.tokens)
    given.out.mkdir(parents=True, exist_ok=True)
    cells = Cells(given.out)

    def chosen(language: str) -> float:
        """As `lape export` chooses: on development questions in two languages."""

        def make() -> pl.DataFrame:
            found = on_samples(model, tokenizer, stats, sets, to=language, sets=given.sets)
            assert found is not None  # it has questions
            return found

        return best(cells.table(f"strengths-{language}", make))

    for language in given.targets:
        target = Target(bench, sets, language, given.strength or chosen(language), texts)
        for source in (one for one in given.sources if one != language):
            for way in given.ways:

                def make(way: str = way, source: str = source, target: Target = target) -> pl.DataFrame:
                    to = target.language
                    prompts = [ask(tokenizer, one, source=source, target=to) for one in questions[source]]
                    answers = [cut(one, target=to) for one in target.answers(way, prompts)]
                    return interview.judge("development", Setting("neurons", way), (source, to), answers)

                cells.table(f"{source}-{language}.{way}", make)
            print(source, language, f"{target.strength:g}", flush=True)
    show(given.out)


def show(out: Path) -> None:
    """The paired differences from hooks, over questions: of the mean over pairs, for each way that all pairs were answered by."""
    every = pl.concat([pl.read_parquet(path) for path in sorted(out.glob("*-*.*.parquet"))])
    rows = []
    for target in ("all", *every["target"].unique(maintain_order=True)):
        some = every if target == "all" else every.filter(pl.col("target") == target)
        for share in ("in_language", "good"):
            each = some.group_by("question", "setting").agg(pl.col(share).cast(pl.Float64).mean()).sort("question")
            wide = each.pivot("setting", index="question", values=share).drop_nulls()
            drawn = Resamples(len(wide), 2000, 0)
            for way in (one for one in WAYS if some.filter(setting=one).height == some.filter(setting="hooks").height):
                ours, hooks = wide[way].to_numpy(), wide["hooks"].to_numpy()
                row = {
                    "target": target,
                    "share": share,
                    "way": way,
                    "pairs": some.select("source", "target").n_unique(),
                    "value": ours.mean(),
                }
                rows.append(row | drawn.plain("less_hooks", drawn.weights @ (ours - hooks) / len(wide)))
    table = pl.DataFrame(rows)
    table.write_parquet(out / "differences.parquet")
    with pl.Config(tbl_rows=-1, float_precision=3):
        print(table)


if __name__ == "__main__":
    main()
