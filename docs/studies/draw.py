"""Pictures across studies: `python docs/studies/draw.py` draws paper/depth.png and paper/sharing.png (published sets of seven models and ours, for
docs/paper.md) and docs/causes.png (what sets are needed for and what they restore, for README.md).
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import polars as pl
from reread import AKIN, MAIN, paper_layers, paper_shared, table

from lape.experiments.sufficiency.figures import causes
from lape.figures.style import COLOURS, GREY, STYLE, Paper, blank, legend

DOCS = Path(__file__).parents[1]
PAPER = Path(__file__).parent / "paper"
PAIRS = (*AKIN, ("zh", "vi"), ("fr", "vi"), ("es", "de"), ("fr", "de"))
BINS = 20


def draw_depth() -> None:
    """Neurons by depth, over an even spread, a row for each model."""
    found = paper_layers()
    models = found["model"].unique(maintain_order=True).to_list()
    grid = np.zeros((len(models), BINS))
    for k, model in enumerate(models):
        some = found.filter(model=model)
        for layer, neurons, depth in some.select("layer", "neurons", "depth").iter_rows():
            edges = np.clip(np.arange(BINS + 1) / BINS * depth - layer, 0, 1)
            grid[k] += neurons * np.diff(edges)
        grid[k] *= BINS / grid[k].sum()
    figure, axes = blank(Paper(width=6.9), 0.9 + 0.26 * len(models))
    drawn = axes.pcolormesh(
        np.linspace(0, 1, BINS + 1), np.arange(len(models) + 1), np.sqrt(grid), cmap="Blues", vmin=0
    )
    for k in range(len(models)):
        for j in range(BINS):
            dark = np.sqrt(grid[k, j]) > 0.6 * np.sqrt(grid.max())
            axes.text(
                (j + 0.5) / BINS,
                k + 0.5,
                f"{grid[k, j]:.1f}",
                ha="center",
                va="center",
                fontsize=5.5,
                color="white" if dark else "black",
            )
    axes.set_yticks(np.arange(len(models)) + 0.5, models)
    published = found.filter(pl.col("published"))["model"].n_unique()
    axes.axhline(published, color=GREY, linewidth=1)
    axes.invert_yaxis()
    axes.set(xlabel="depth (0: first layer, 1: last)")
    figure.colorbar(
        drawn,
        ax=axes,
        ticks=np.sqrt([0, 1, 2, 4, 8]),
        format=lambda x, _: f"{x * x:.0f}",
        label="× an even spread",
        pad=0.01,
    )
    figure.savefig(PAPER / "depth.png", dpi=170)


def draw_sharing() -> None:
    """How much pairs of languages share, a row for each pair, a mark for each model."""
    found = paper_shared()
    models = found["model"].unique(maintain_order=True).to_list()
    rows = [*PAIRS, ("en", "any other")]
    figure, axes = blank(Paper(width=6.9), 0.9 + 0.3 * len(rows))
    for k, model in enumerate(models):
        some = found.filter(model=model)
        known = {frozenset((a, b)): jaccard for a, b, jaccard in some.select("a", "b", "jaccard").iter_rows()}
        english = [value for pair, value in known.items() if "en" in pair]
        values = [known.get(frozenset(pair)) for pair in PAIRS] + [float(np.mean(english)) if english else None]
        at = [(value, y + (k - len(models) / 2) * 0.06) for y, value in enumerate(values) if value is not None]
        style = {
            "color": COLOURS[k % len(COLOURS)],
            "marker": "o" if some["published"][0] else "D",
            "linestyle": "none",
            "markersize": 4,
        }
        axes.plot([x for x, _ in at], [y for _, y in at], label=model, **style)
    axes.set_yticks(range(len(rows)), [f"{a} – {b}" for a, b in rows])
    axes.invert_yaxis()
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.5)
    axes.set(xlabel="Jaccard of the two languages' sets (circles: published, diamonds: ours)", xlim=(0, None))
    legend(figure, axes)
    figure.savefig(PAPER / "sharing.png", dpi=170)


def draw_causes(study: str = MAIN) -> None:
    """Own more than others beside controls, what a set restores alone, and dose by dose."""
    tables = {name: table(study, name) for name in ("controlled", "keeping", "doses")}
    causes(tables, Paper(width=6.9)).savefig(DOCS / "causes.png", dpi=170)


if __name__ == "__main__":
    with mpl.rc_context(STYLE):
        draw_depth()
        draw_sharing()
        draw_causes()
