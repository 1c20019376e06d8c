"""Published sets of seven models and ours on one axis: `python docs/studies/paper/draw.py` draws depth.png and sharing.png beside this file, for docs/paper.md.

layers.tsv and shared.tsv count what the masks of Tang et al. (github.com/RUCAIBox/Language-Specific-Neurons) hold, by layer and by pair of languages.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from lape.figures.style import COLOURS, GREY, Paper, blank, legend

HERE = Path(__file__).parent
STUDIES = HERE.parent
OURS = {
    "Gemma 3 270M": "gemma-3-270m",
    "SmolLM2 135M": "smollm2-135m",
    "Qwen2.5-Coder 0.5B": "qwen2.5-coder-0.5b",
    "Qwen2.5-Coder 1.5B": "qwen2.5-coder-1.5b",
}
PAIRS = (("zh", "ja"), ("fr", "es"), ("vi", "id"), ("zh", "vi"), ("es", "de"), ("fr", "de"))
"""Pairs whose languages are akin, or share a script or many words."""


def layers() -> pl.DataFrame:
    """`model`, `published`, `language`, `layer`, `neurons` and `depth`, how many layers there are."""
    published = pl.read_csv(HERE / "layers.tsv", separator="\t").select("model", "language", "layer", "neurons")
    parts = [published.with_columns(published=pl.lit(value=True))]
    for name, study in OURS.items():
        if (place := STUDIES / study / "tables/histogram.parquet").exists():
            found = pl.read_parquet(place).select(pl.lit(name).alias("model"), "language", "layer", "neurons")
            parts.append(found.with_columns(published=pl.lit(value=False)))
    return pl.concat(parts).with_columns(depth=pl.col("layer").max().over("model") + 1)


def shared() -> pl.DataFrame:
    """`model`, `published`, `a`, `b` and `jaccard` of their sets."""
    counts = pl.read_csv(HERE / "shared.tsv", separator="\t")
    size = {
        (row["model"], row["language"]): row["neurons"]
        for row in counts.filter(language=pl.col("other")).iter_rows(named=True)
    }
    rows = []
    for model, a, b, both in counts.filter(pl.col("language") != pl.col("other")).iter_rows():
        rows.append((model, True, a, b, both / (size[model, a] + size[model, b] - both)))
    for name, study in OURS.items():
        if (place := STUDIES / study / "tables/overlap.parquet").exists():
            rows += [
                (name, False, a, b, both)
                for a, b, both in pl.read_parquet(place).select("a", "b", "jaccard").iter_rows()
            ]
    return pl.DataFrame(rows, schema=["model", "published", "a", "b", "jaccard"], orient="row")


def places() -> pl.DataFrame:
    """Of each model: assignments in all, and the shares of them in the first layer, the first two, the top quarter, each over that of all layers."""
    rows = []
    for some in layers().partition_by("model", maintain_order=True):
        by_layer = some.group_by("layer").agg(pl.col("neurons").sum()).sort("layer")["neurons"].to_numpy()
        share, depth = by_layer / by_layer.sum(), len(by_layer)
        quarter = max(1, depth // 4)
        row = {
            "model": some["model"][0],
            "neurons": int(by_layer.sum()),
            "layers": depth,
            "english": int(some.filter(language="en")["neurons"].sum()),
        }
        row |= {"first": share[0] * depth, "second": share[1] * depth}
        rows.append(row | {"top": share[-quarter:].sum() * depth / quarter, "fullest": int(by_layer.argmax())})
    return pl.DataFrame(rows)


def draw_depth() -> None:
    """Neurons by depth, over an even spread, a row for each model."""
    found = layers()
    models = found["model"].unique(maintain_order=True).to_list()
    bins = 20
    grid = np.zeros((len(models), bins))
    for k, model in enumerate(models):
        some = found.filter(model=model)
        for layer, neurons, depth in some.select("layer", "neurons", "depth").iter_rows():
            edges = np.clip(np.arange(bins + 1) / bins * depth - layer, 0, 1)
            grid[k] += neurons * np.diff(edges)
        grid[k] *= bins / grid[k].sum()
    figure, axes = blank(Paper(width=6.9), 0.9 + 0.26 * len(models))
    drawn = axes.pcolormesh(
        np.linspace(0, 1, bins + 1), np.arange(len(models) + 1), np.sqrt(grid), cmap="Blues", vmin=0
    )
    for k in range(len(models)):
        for j in range(bins):
            dark = np.sqrt(grid[k, j]) > 0.6 * np.sqrt(grid.max())
            axes.text(
                (j + 0.5) / bins,
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
    figure.savefig(HERE / "depth.png", dpi=170)


def draw_sharing() -> None:
    """How much pairs of languages share, a row for each pair, a mark for each model."""
    found = shared()
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
    figure.savefig(HERE / "sharing.png", dpi=170)


def closer() -> pl.DataFrame:
    """Of each model: the mean Jaccard of akin pairs (`PAIRS` that it has), of all other pairs without English, and of English with any."""
    akin = {frozenset(pair) for pair in PAIRS[:3]}
    rows = []
    for some in shared().partition_by("model", maintain_order=True):
        pairs = {frozenset((a, b)): jaccard for a, b, jaccard in some.select("a", "b", "jaccard").iter_rows()}
        groups = {
            "akin": [value for pair, value in pairs.items() if pair in akin],
            "others": [value for pair, value in pairs.items() if pair not in akin and "en" not in pair],
            "english": [value for pair, value in pairs.items() if "en" in pair],
        }
        rows.append(
            {"model": some["model"][0], **{name: float(np.mean(one)) if one else None for name, one in groups.items()}}
        )
    return pl.DataFrame(rows)


if __name__ == "__main__":
    draw_depth()
    draw_sharing()
    with pl.Config(tbl_rows=40, tbl_cols=20):
        print(places(), closer(), sep="\n")
