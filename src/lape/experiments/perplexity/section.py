"""What a report says of the loss with neurons off: the matrix in every unit and less each control, and each language beside its controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from operator import itemgetter
from typing import Any

import polars as pl

from lape.experiments.context import Tables
from lape.experiments.perplexity.run import SUMMARY
from lape.experiments.section import Block, Grid, Picture, Rows, Section, View, cells, interval, number
from lape.experiments.table import Table

UNITS = {
    "delta_token": ("nats per token", 2),
    "delta_sentence": ("nats per sentence", 1),
    "delta_character": ("nats per character", 3),
    "percent": ("% of perplexity", 0),
}
"""Columns of the loss matrix, what they are in, and digits."""
CONTROLS = {"matched": "less the mean of matched neurons", "random": "less the mean of random neurons"}
OWN = Table(
    "Change of a language's own loss, nats per token, with its own neurons off and with as many others: in each layer the nearest in written energy "
    "(matched), or random.",
    {
        name: SUMMARY[name]
        for name in (
            "language",
            "neurons",
            "delta_token",
            "low",
            "high",
            "matched_mean",
            "matched_max",
            "random_mean",
            "random_max",
            "matched_energy",
            "units",
        )
    },
    labels={
        "delta_token": "own",
        "matched_mean": "matched, mean",
        "matched_max": "matched, largest",
        "matched_energy": "energy, set ÷ matched",
        "random_mean": "random, mean",
        "random_max": "random, largest",
    },
)


def section(tables: Tables) -> Section:
    """The section."""
    about = "The change of each language's loss while the neurons of one language are off."
    title, table = "Change of loss with neurons off", tables.get("perplexity")
    if table is None:
        return Section(title, about)
    own = table.filter(pl.col("off") == pl.col("language"))
    blocks: tuple[Block, ...] = (
        _grid(table),
        Picture("perplexity"),
        Picture("own"),
        Rows("own effect beside controls", OWN, own.select(list(OWN.schema))),
    )
    found = (_damage(table), _unharmed(table))
    return Section(title, about, tuple(one for one in found if one), blocks)


def _grid(table: pl.DataFrame) -> Grid:
    off, evaluated = (table[name].unique(maintain_order=True).to_list() for name in ("off", "language"))
    known = cells(table, "off", "language")

    def by_cell(of: Callable[[Mapping[str, Any]], Any]) -> list[list[Any]]:
        return [[of(known[a, b]) if (a, b) in known else None for b in evaluated] for a in off]

    views = {name: View(title, by_cell(itemgetter(name)), digits) for name, (title, digits) in UNITS.items()}
    for kind, title in CONTROLS.items():
        values = by_cell(partial(_less, f"{kind}_mean"))
        if any(value is not None for line in values for value in line):
            views[kind] = View(f"nats per token, {title}", values)
    few = " (none where there are under 20 units of text)" if min(table["units"].to_list()) < 20 else ""
    caption = (
        "Rows: the language whose neurons are off. Columns: the language of the text. "
        f"Point at a cell for its 95 % interval{few}."
    )
    return Grid("loss", caption, "off ↓ text →", off, evaluated, views, by_cell(_ends))


def _less(control: str, row: Mapping[str, Any]) -> float | None:
    return None if row[control] is None else float(row["delta_token"] - row[control])


def _ends(row: Mapping[str, Any]) -> list[float] | None:
    return None if row["low"] is None else [row["low"], row["high"]]


def _own(table: pl.DataFrame) -> pl.DataFrame:
    return table.filter(pl.col("off") == pl.col("language")).sort("delta_token", descending=True)


def _damage(table: pl.DataFrame) -> str | None:
    own = _own(table)
    if not len(own):
        return None
    most = own.row(0, named=True)
    others = table.filter((pl.col("off") == most["off"]) & (pl.col("language") != most["off"]))["delta_token"]
    beside = "" if not len(others) else f", that of the other languages by {number(float(others.mean()))} on average"  # type: ignore[arg-type]
    beating = own.filter(pl.col("low") > pl.col("matched_max"))
    measured = own.filter(pl.col("low").is_not_null() & pl.col("matched_max").is_not_null())
    all_of = (
        f" In {len(beating)} of {len(measured)} languages the whole interval lies above every draw of matched neurons."
        if len(measured)
        else ""
    )
    return (
        f"Switching off the {most['neurons']} neurons of {most['off']} raises its loss by {number(most['delta_token'])} nats per token "
        f"{interval(most['low'], most['high'])}{_control(most)}{beside}.{all_of}"
    )


def _control(row: Mapping[str, float | None]) -> str:
    mean, largest = row.get("matched_mean"), row.get("matched_max")
    if mean is None or largest is None:
        return " (no control was drawn)"
    return f"; as many neurons of the same layers that write as much by {number(mean)} (at most {number(largest)})"


def _unharmed(table: pl.DataFrame) -> str | None:
    own = _own(table)
    if len(own) < 2:
        return None
    least = own.row(-1, named=True)
    if least["low"] is None or least["low"] > 0.05:
        return None
    return (
        f"The smallest own effect is that of the {least['neurons']} neurons of {least['off']}: {number(least['delta_token'])} nats per token "
        f"{interval(least['low'], least['high'])}."
    )
