"""What the captions of the loss matrix and of own effects say."""

from __future__ import annotations

import polars as pl

from lape.figures.captions import Facts, span, units
from lape.figures.style import Tables


def matrix_caption(tables: Tables, facts: Facts) -> str:
    """Of the matrix."""
    table = tables["perplexity"]
    bold = "" if table["low"].null_count() == len(table) else " Bold: the 95 % interval does not contain 0."
    drawn = any(table[f"{kind}_mean"].count() for kind in ("random", "matched"))
    beside = (
        " Right: means over draws of control neurons on the row's own language, as many per layer (random) and as many per layer that write "
        "as much (matched)."
        if drawn
        else " No control was drawn."
    )
    return (
        "Change of loss in nats per token with a language's neurons switched off (row), on text of each language (column); colours start at 0 and "
        f"follow the square root.{bold}{beside} n: {span(table['tokens'])} tokens per language. {units(table, facts)}"
    )


def own_caption(tables: Tables, facts: Facts) -> str:
    """Of own effects beside controls."""
    table = tables["perplexity"].filter(pl.col("off") == pl.col("language"))
    beside = table.filter(pl.col("random_mean").is_not_null() | pl.col("matched_mean").is_not_null())
    without = [row for row in table["off"] if row not in set(beside["off"])]
    none = (
        f" No control for {', '.join(without)}: none was drawn, or too few other neurons are left." if without else ""
    )
    interval = "the line its 95 % interval" if not table["low"].null_count() else "no interval"
    return (
        f"Change of a language's own loss, in nats per token, with its own neurons off (dot; {interval}) and with control neurons off (mark: mean of the "
        "draws, line: up to the largest draw): as many per layer (random), as many per layer that write as much (matched)."
        f"{none} In brackets: neurons off. n: {span(table['tokens'])} tokens per language. {units(table, facts)}"
    )
