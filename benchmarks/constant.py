"""How near a linear direction of a gate's input comes to a constant: what it is fitted to, and on which text it holds.

    python benchmarks/constant.py MODEL --text TAG=PATH ... --other TAG=PATH ... --out TABLE.parquet

Directions are fitted to `--text` (blocks of eight lines, cut into rows) by least squares, at several amounts of text, ridges and ways of treating
first positions; v · x is then measured on `--other`: text of a language that was fitted, of one that was not, long rows (`--long TAG=PATH`), and text
put as a question. Writes a row per layer, direction, text and position: mean of v · x, root mean square of v · x − 1, 99th percentile of |v · x − 1|.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

import lape
from lape.data.corpus import TextOptions, prepare
from lape.data.texts import Documents
from lape.data.windows import at_once, batch, rows
from lape.measure.prompts import ask, prompt_ids
from lape.model.body import hidden_states, run_batch
from lape.model.find import find
from lape.model.hooks import hooked
from lape.model.scope import Put

PARTS = (("0", 0, 1), ("1–3", 1, 4), ("4–511", 4, 512), ("512 and on", 512, 1 << 30))
RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
RIDGE, ENOUGH = 1e-4, 5
See = Callable[[int, Tensor, Tensor], None]
"""(layer, inputs (n, hidden), positions (n,))."""


@dataclass(frozen=True)
class Way:
    """How a direction is fitted."""

    tokens: int
    """Of text, for each dimension."""
    ridge: float = RIDGE
    """Of the mean square of an input."""
    first: float | None = 0.0
    """What it is to be at first positions; None where they are left out."""
    weight: float = 10.0
    """Of a first position."""
    early: float = 1.0
    """Of positions 1 to 3."""
    form: str = "float32"
    """float32, bfloat16 (rounded), or mean (the mean input, scaled: no least squares)."""


def ways(tokens: int, last: bool) -> list[Way]:
    """What is tried with so much text."""
    some = [Way(tokens, ridge) for ridge in RIDGES]
    if tokens == ENOUGH or last:
        some += [Way(tokens, first=None)]
        some += [Way(tokens, first=first, weight=weight) for first in (0.0, 1.0) for weight in (1.0, 10.0, 100.0)]
        some += [Way(tokens, early=10.0), Way(tokens, form="bfloat16"), Way(tokens, form="mean")]
    return list(dict.fromkeys(some))


class Sums:
    """Moments of the inputs of one layer at positions 0, 1–3 and later."""

    def __init__(self, hidden: int) -> None:
        self.square = torch.zeros(3, hidden, hidden, dtype=torch.float64)
        self.total = torch.zeros(3, hidden, dtype=torch.float64)

    def add(self, x: Tensor, at: Tensor) -> None:
        """Inputs (n, hidden) float32, positions (n,)."""
        for part, which in enumerate((at == 0, (at > 0) & (at < 4), at >= 4)):
            some = x[which]
            self.square[part] += (some.T @ some).double()
            self.total[part] += some.double().sum(0)

    def solved(self, way: Way) -> Tensor:
        """(hidden,) float64."""
        if way.form == "mean":
            mean = self.total[1:].sum(0)
            later: Tensor = self.square[1:].sum(0)
            return mean * (mean @ mean) / (mean @ later @ mean)
        square = way.early * self.square[1] + self.square[2]
        total = way.early * self.total[1] + self.total[2]
        ridge = way.ridge * square.diagonal().mean()
        if way.first is not None:
            square = square + way.weight * self.square[0]
            total = total + way.weight * way.first * self.total[0]
        v: Tensor = torch.linalg.solve(square + ridge * torch.eye(len(total)).double(), total)
        return v.bfloat16().double() if way.form == "bfloat16" else v


def documents(path: str) -> Documents:
    """Blocks of eight lines."""
    lines = Path(path).read_text(encoding="utf-8").split("\n")
    return Documents(["\n".join(lines[at : at + 8]) for at in range(0, len(lines), 8)])


def looking(model: Any, names: Sequence[str], at: Tensor, counted: Tensor, see: See) -> list[Put]:
    """Hooks that give what goes into each module, where it is counted."""

    def hook(k: int) -> Callable[..., None]:
        def look(_module: Any, args: tuple[Any, ...]) -> None:
            see(k, args[0].reshape(*counted.shape, -1)[counted].float(), at[counted])

        return look

    return [Put(model.get_submodule(name).register_forward_pre_hook, hook(k)) for k, name in enumerate(names)]


def run(model: Any, names: Sequence[str], corpus: Any, some: list[Any], see: See, row_tokens: int) -> Iterator[int]:
    """Rows of text through the model, a batch at a time; gives how many inputs were seen."""
    size = at_once(TextOptions(row_tokens=row_tokens))
    for start in range(0, len(some), size):
        one = batch(corpus, some[start : start + size])
        at = torch.arange(one.source.shape[1]).expand_as(one.source)
        counted = (one.source >= 0) | (at == 0)
        with hooked(model, looking(model, names, at, counted, see)):
            run_batch(model, one)
        yield int(counted.sum())


def fitted(model: Any, tokenizer: Any, names: Sequence[str], given: Any) -> list[dict[Way, Tensor]]:
    """Of each layer, way -> (hidden,) direction: languages take turns, row by row, and there are solutions at each amount of text."""
    hidden = model.get_submodule(names[0]).weight.shape[1]
    last, sums = max(given.per_dimension), [Sums(hidden) for _ in names]
    options = TextOptions(tokens=-(-last * hidden // len(given.text)), row_tokens=given.row_tokens, one_per_row=True)
    every = []
    for tag, path in given.text:
        corpus = prepare(tag, documents(path), tokenizer, options)
        cut = rows(corpus, given.row_tokens, apart=False)
        mixed = [cut[k] for k in torch.randperm(len(cut), generator=torch.Generator().manual_seed(0)).tolist()]
        every.append((corpus, [mixed[k : k + 2] for k in range(0, len(mixed), 2)]))
    turns = [
        (corpus, cut[k]) for k in range(max(len(cut) for _, cut in every)) for corpus, cut in every if k < len(cut)
    ]
    found: list[dict[Way, Tensor]] = [{} for _ in names]
    seen, amounts = 0, sorted(given.per_dimension)
    for number, (corpus, some) in enumerate(turns):
        seen += sum(run(model, names, corpus, some, lambda k, x, at: sums[k].add(x, at), given.row_tokens))
        while amounts and (seen >= amounts[0] * hidden or number == len(turns) - 1):
            now = amounts.pop(0)
            for one, into in zip(sums, found, strict=True):
                into |= {way: one.solved(way) for way in ways(now, now == last)}
            print(f"{seen} tokens: fitted", f"{time.process_time():.0f} s", flush=True)
    return found


def measured(model: Any, tokenizer: Any, names: Sequence[str], found: list[dict[Way, Tensor]], given: Any) -> Any:
    """v · x by text and position: `TABLE` rows."""
    directions = [torch.stack(list(one.values()), 1).float() for one in found]
    known = {tag for tag, _ in given.text}
    got: dict[tuple[int, str], list[Tensor]] = {}

    def see(k: int, x: Tensor, at: Tensor) -> None:
        product = x @ directions[k]
        for name, start, stop in PARTS:
            where = (at >= start) & (at < stop)
            if bool(where.any()):
                got[k, name].append(product[where])

    def put(tag: str, read_as: str) -> Iterator[dict[str, Any]]:
        for (k, position), parts in got.items():
            product = torch.cat(parts).double()
            off = (product - 1).abs()
            columns = [product.mean(0), off.square().mean(0).sqrt(), off.quantile(0.99, dim=0)]
            for way, *values in zip(found[k], *(column.tolist() for column in columns), strict=True):
                yield {
                    "layer": k,
                    **dict(zip((f"fit_{field.name}" for field in fields(Way)), astuple(way), strict=True)),
                    "text": tag,
                    "fitted": tag in known,
                    "read_as": read_as,
                    "position": position,
                    "positions": len(product),
                    **dict(zip(("mean", "rms", "p99"), values, strict=True)),
                }

    for read_as, sources, row_tokens in (
        ("text", given.other, given.row_tokens),
        ("long", given.long, given.long_tokens),
    ):
        for tag, path in sources:
            got = defaultdict(list)
            source = documents(path) if read_as == "text" else path
            amount = max(given.tokens, row_tokens)
            corpus = prepare(tag, source, tokenizer, TextOptions(tokens=amount, row_tokens=row_tokens, document="file"))
            for _ in run(model, names, corpus, rows(corpus, row_tokens, apart=False), see, row_tokens):
                pass
            yield from put(tag, read_as)
    for tag, path in given.other:
        if tag in known:
            got = defaultdict(list)
            for line in Path(path).read_text(encoding="utf-8").split("\n")[-12:-2]:
                ids = torch.tensor([prompt_ids(tokenizer, ask(tokenizer, line, source=tag, target=tag))])
                where = torch.arange(ids.shape[1])[None]
                with hooked(model, looking(model, names, where, where >= 0, see)):
                    hidden_states(model, ids)
            yield from put(tag, "prompt")
            print(tag, f"{time.process_time():.0f} s", flush=True)


def main() -> None:
    def named(one: str) -> tuple[str, str]:
        tag, _, path = one.partition("=")
        return tag, path

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--text", nargs="+", type=named, required=True)
    parser.add_argument("--other", nargs="+", type=named, required=True)
    parser.add_argument("--long", nargs="*", type=named, default=[])
    parser.add_argument("--per-dimension", nargs="+", type=int, default=[1, 2, 5, 10, 30])
    parser.add_argument("--tokens", type=int, default=800, help="of each other text")
    parser.add_argument("--row-tokens", type=int, default=256)
    parser.add_argument("--long-tokens", type=int, default=2048)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model, tokenizer = lape.load(given.model, dtype=given.dtype)
    names = list(dict.fromkeys(site.gate.module for site in find(model).sites if site.gate))
    with torch.inference_mode():
        found = fitted(model, tokenizer, names, given)
        table = pl.DataFrame(list(measured(model, tokenizer, names, found, given)))
    table.write_parquet(given.out)
    show(table)


def show(table: pl.DataFrame) -> None:
    """Root mean square of v · x − 1 over layers: its mean, and that of the worst layer."""
    way = [name for name in table.columns if name.startswith("fit_")]
    kind = (
        pl.when(pl.col("read_as") != "text")
        .then("read_as")
        .when("fitted")
        .then(pl.lit("fitted"))
        .otherwise(pl.lit("not fitted"))
    )
    some = (
        table.with_columns((kind + " " + pl.col("position")).alias("where"))
        .group_by(*way, "where", "layer")
        .agg(pl.col("rms").pow(2).mean().sqrt(), pl.col("mean").mean())
    )
    with pl.Config(tbl_rows=-1, tbl_cols=-1, float_precision=3, tbl_width_chars=250):
        for position, columns in some.partition_by("where", as_dict=True).items():
            print(*position)
            print(
                columns.group_by(way)
                .agg(
                    pl.col("rms").mean().alias("rms"),
                    pl.col("rms").max().alias("worst"),
                    pl.col("mean").min().alias("least"),
                    pl.col("mean").max().alias("most"),
                )
                .sort(way)
            )


if __name__ == "__main__":
    main()
