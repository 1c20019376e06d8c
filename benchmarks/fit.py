"""How near adapters are to their edits, and whether constants are better fitted while the edit acts.

    python benchmarks/fit.py MODEL RUN --to fr --other TAG=PATH ... --out TABLE.parquet

`lape.Add(..., at="gate")`, `lape.Set` to the mean and `lape.Off`, 100 neurons by `difference`, each as the adapter that `lape.export` writes: constants are
fitted to the bundled texts, in the paper's seven languages or all twelve, with the model as it is (`plain`) or under the edit (`under`). Prints and
writes `lape.ship.fit.fit` on rows of text of each other language and on their beginnings put as questions.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

import polars as pl
import torch

import lape
from lape.data import samples
from lape.data.corpus import bos_id
from lape.edit.edit import Add, Edit, Off, Set, by_unit
from lape.measure.bench import named_sets
from lape.ship.changes import canonical, changes, gates, low_rank
from lape.ship.constant import constants, read
from lape.ship.fit import Reference, fit
from lape.values.stats import ActivationStats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("run")
    parser.add_argument("--to", required=True)
    parser.add_argument("--other", nargs="+", required=True)
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--tokens", type=int, default=3000)
    parser.add_argument("--rows", type=int, default=5)
    parser.add_argument("--length", type=int, default=200, help="tokens of a row")
    parser.add_argument("--edits", nargs="+", choices=("add", "set", "off"), default=("add", "set"))
    parser.add_argument("--ways", nargs="+", choices=("plain", "under"), default=("plain", "under"))
    parser.add_argument("--languages", type=int, choices=(7, 12), default=12)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model, tokenizer = lape.load(given.model, dtype=given.dtype)
    stats = ActivationStats.load(given.run)
    neurons, value = named_sets(stats, "difference:100")[given.to], stats.mean(given.to)
    languages = (*samples.LANGUAGES, *samples.FURTHER)[: given.languages]
    texts = read(tokenizer, samples.texts("record", languages=languages), tokens=given.tokens)
    begin = [] if (bos := bos_id(tokenizer, "auto")) is None else [bos]
    rows = {}
    for tag, _, path in (one.partition("=") for one in given.other):
        text = Path(path).read_text(encoding="utf-8")[: 10 * given.length * given.rows]
        ids = tokenizer(text, add_special_tokens=False).input_ids
        rows[tag] = [
            torch.tensor([[*begin, *ids[at : at + given.length]]])
            for at in range(0, given.rows * given.length, given.length)
        ]
    edits: dict[str, Edit] = {
        "add": Add(neurons, value, given.strength, at="gate"),
        "set": Set(neurons, value * given.strength),
        "off": Off(neurons),
    }
    tables = []
    for kind in given.edits:
        edit = edits[kind]
        parts = by_unit(model, [edit])
        todo = changes(model, parts, biases=False)
        reference = Reference(*canonical(parts, todo))
        for way in given.ways:
            with reference.on(model) if way == "under" else nullcontext():
                fitted = constants(model, gates(todo), texts)
            table = fit(model, tokenizer, reference, low_rank(model, todo, fitted), rows)
            tables.append(table.select(pl.lit(kind).alias("edit_by"), pl.lit(way).alias("fitted"), pl.all()))
    every = pl.concat(tables)
    every.write_parquet(given.out)
    with pl.Config(tbl_rows=-1, float_precision=4):
        index = ["edit_by", "language", "read_as", "position"]
        print(every.pivot("fitted", index=index, values=["kl", "kl_median"], maintain_order=True))


if __name__ == "__main__":
    main()
