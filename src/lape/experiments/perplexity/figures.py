"""Pictures of the loss matrix and of own effects beside their controls."""

from __future__ import annotations

import numpy as np
import polars as pl

from lape.figures.dots import interval, rows
from lape.figures.heat import Form, grid, heat, room_of
from lape.figures.style import BLUE, GREEN, GREY, ORANGE, Canvas, Paper, Tables, blank, legend

_CONTROLS = (("matched", "s", ORANGE), ("random", "^", GREEN))


def own(tables: Tables, paper: Paper) -> Canvas:
    """A language's own neurons off, on its own text: its interval, and the mean and largest draw of both controls."""
    table = tables["perplexity"].filter(pl.col("off") == pl.col("language")).drop_nulls("delta_token")
    figure, axes = blank(paper, 0.95 + 0.26 * len(table))
    few = min(table["units"].to_list(), default=0)
    label = "own" if not table["low"].null_count() else f"own (no interval: {few} units)"
    for k, row in enumerate(table.iter_rows(named=True)):
        interval(axes, k - 0.2, row["low"], row["high"], BLUE)
        axes.plot(row["delta_token"], k - 0.2, "o", color=BLUE, markersize=4, zorder=3, label=label if not k else None)
        for step, (kind, mark, colour) in enumerate(_CONTROLS):
            mean, largest, at = row[f"{kind}_mean"], row[f"{kind}_max"], k + 0.05 + 0.2 * step
            if mean is not None:
                axes.plot([mean, largest], [at, at], color=colour, linewidth=0.8, zorder=2)
                axes.plot(mean, at, mark, color=colour, markersize=3, zorder=3)
    for kind, mark, colour in _CONTROLS:
        if table[f"{kind}_mean"].count():
            label = f"{kind} neurons" if paper.width > 4 else kind
            axes.plot([], [], mark, color=colour, markersize=3, linestyle="-", linewidth=0.8, label=label)
    axes.axvline(0, color=GREY, linewidth=0.6)
    rows(axes, [f"{paper.name(row['off'])} ({row['neurons']})" for row in table.iter_rows(named=True)])
    axes.set(xlabel="change of the language's own loss (nats per token)", ylabel="neurons off (how many)")
    legend(figure, axes)
    return figure


CONTROLS = ("random", "matched")


def perplexity(tables: Tables, paper: Paper) -> Canvas:
    """Neurons off × language evaluated, and beside it the mean of either control on the row's own language."""
    table = tables["perplexity"]
    names, evaluated, values = grid(table, "off", "language", "delta_token")
    low, high = (grid(table, "off", "language", column)[2] for column in ("low", "high"))
    own = table.filter(pl.col("off") == pl.col("language"))
    beside = (
        pl.DataFrame({"off": names})
        .join(own, on="off", how="left", maintain_order="left")
        .select(f"{kind}_mean" for kind in CONTROLS)
        .to_numpy()
    )
    drawn = [k for k in range(len(CONTROLS)) if np.isfinite(beside[:, k]).any()]
    both = np.concatenate([values, beside[:, drawn]], 1)
    roomy = room_of(paper, paper.names(names), both.shape[1]) > 0.62 and bool(np.isfinite(low).any())

    def cell(i: int, j: int, form: Form) -> tuple[str, bool]:
        text = form(both[i, j])
        if j >= len(evaluated) or not np.isfinite(low[i, j]):
            return text, False
        interval = f"\n{form(low[i, j])}…{form(high[i, j])}" if roomy else ""
        return text + interval, not low[i, j] <= 0 <= high[i, j]

    columns = [*paper.names(evaluated), *(CONTROLS[k] for k in drawn)]
    figure = heat(
        paper,
        paper.names(names),
        columns,
        both,
        "change of loss (nats per token)",
        cell=cell,
        apart=len(drawn),
        tall=roomy,
    )
    figure.axes[0].set(
        xlabel="language evaluated" + ("; controls: the row's own" if drawn else ""), ylabel="neurons off"
    )
    return figure
