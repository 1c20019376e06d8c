"""Pictures of how much text sets need, and of how far they come out again."""

from __future__ import annotations

from lape.detect.stability import UNION
from lape.figures.dots import interval, rows
from lape.figures.lines import height, languages
from lape.figures.style import BLUE, GREY, ORANGE, SMALL, Canvas, Paper, Tables, blank, legend


def reliability(tables: Tables, paper: Paper) -> Canvas:
    """The median Jaccard of the sets of two halves of the text, down to its 5th percentile, beside chance."""
    table = tables["reliability"]
    figure, axes = blank(paper, 0.85 + 0.17 * len(table))
    chance = {"color": ORANGE, "markersize": 7, "markeredgewidth": 1.4}
    for k, row in enumerate(table.iter_rows(named=True)):
        if row["median"] is None:
            few = f"{row['neurons']} neurons: too few to say" if row["halvings"] else "the text cannot be halved"
            axes.text(0.02, k, few, va="center", color=GREY, fontsize=SMALL)
            continue
        interval(axes, k, row["p5"], row["median"])
        axes.plot(row["median"], k, "o", color=BLUE, markersize=3.5, zorder=3)
        axes.plot(row["chance"], k, "|", **chance, zorder=3)
    dot = {"markerfacecolor": BLUE, "markeredgecolor": BLUE, "markersize": 3.5}
    axes.plot([], [], "-o", color=GREY, **dot, label="median, to the 5th percentile")
    axes.plot([], [], "|", **chance, label="chance")
    rows(axes, ["all" if row == UNION else paper.name(row) for row in table["language"]])
    axes.set(xlabel="Jaccard of the sets of two halves of the text", xlim=(-0.02, 1.02))
    legend(figure, axes)
    return figure


def amount(tables: Tables, paper: Paper) -> Canvas:
    """How alike the sets of two halves are, over the tokens in each."""
    figure, axes = blank(paper, height(paper) + 0.4)
    table = tables["amount"].drop_nulls("median").sort("tokens")
    languages(axes, table, "tokens", "median", paper)
    axes.set(xscale="log", xlabel="tokens per language in each half", ylabel="Jaccard of the halves' sets")
    axes.set_ylim(top=1.0)
    sizes = table["tokens"].unique().sort().to_list()
    kept = sizes[:: -(-len(sizes) // 5)] if sizes else []
    axes.set_xticks(kept, [f"{size:,}" for size in kept])
    axes.minorticks_off()
    legend(figure, axes)
    return figure
