"""The pictures of docs/concepts.md and docs/honest.md, from a run of `lape demo`.

usage: pip install matplotlib; python docs/pictures/draw.py runs/demo docs/pictures
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import polars as pl
from PIL import Image

from lape import ActivationStats, LanguageNeurons
from lape.detect.lape import entropy

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#8c8c8c"
"""Of Okabe and Ito's palette, which people who see colours differently can tell apart."""
plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "lape"})


def main(run: Path, folder: Path) -> None:
    save(entropies(ActivationStats.load(run), LanguageNeurons.load(run)), folder / "entropy.png")
    save(controls(pl.read_parquet(run / "perplexity.parquet")), folder / "controls.svg")


def entropies(stats: ActivationStats, neurons: LanguageNeurons) -> Any:
    """How often four neurons fire in each language, and where they lie among all neurons."""
    p = stats.probabilities()
    found, largest = entropy(p), p.max(0).values
    bar = float(neurons.options["bars"]["fr"])
    shown = examples(p, found, neurons, bar)
    figure, axes = plt.subplot_mosaic(
        [["a", "b", "all"], ["c", "d", "all"]], figsize=(10, 4.2), width_ratios=(1, 1, 2.1), layout="constrained"
    )
    for letter, (neuron, what) in zip("abcd", shown, strict=True):
        panel = axes[letter]
        values = p[:, neuron].numpy()
        panel.bar(stats.languages, values, color=[ORANGE if v > bar else GREY for v in values], width=0.7)
        panel.axhline(bar, color="black", linewidth=0.8, linestyle="--")
        panel.set_title(f"{letter}: {what}\nLAPE {float(found[neuron]):.2f} nats", fontsize=9, loc="left")
        panel.set(ylim=(0, 1.05), yticks=(0, 0.5, 1))
    axes["a"].set_ylabel("activation probability")
    axes["c"].set_ylabel("activation probability")
    cloud = axes["all"]
    chosen = np.isin(np.arange(len(found)), neurons.union.flat.numpy())
    for mask, colour, size, label in (
        (~chosen, GREY, 1.5, "other neurons"),
        (chosen, ORANGE, 7, "language neurons"),
    ):
        cloud.scatter(largest[mask], found[mask], s=size, color=colour, linewidths=0, label=label)
    cloud.axvline(bar, color="black", linewidth=0.8, linestyle="--")
    for letter, (neuron, _) in zip("abcd", shown, strict=True):
        place = (float(largest[neuron]), float(found[neuron]))
        cloud.annotate(
            letter,
            place,
            xytext=(-12, 4),
            textcoords="offset points",
            fontweight="bold",
            color=BLUE,
            fontsize=11,
        )
        cloud.plot(*place, "o", color="none", markeredgecolor=BLUE, markersize=7)
    cloud.set(
        xlabel="largest activation probability over languages",
        ylabel="LAPE, nats",
        xlim=(0, 1.02),
        ylim=(0, math.log(len(p)) + 0.05),
    )
    cloud.set_title(f"all {len(found):,} neurons", fontsize=9, loc="left")
    cloud.legend(loc="lower left", bbox_to_anchor=(0, 0.1), frameon=False, markerscale=2)
    return figure


def examples(p: Any, found: Any, neurons: LanguageNeurons, bar: float) -> list[tuple[int, str]]:
    """One neuron of each kind, by rule: of lowest entropy, but for the one that fires everywhere, which has the highest."""
    largest, smallest = p.max(0).values, p.min(0).values

    def lowest(flat: Any) -> int:
        return int(flat[found[flat].argsort(stable=True)[0]])

    rare = ((largest > 0.1) & (largest < bar / 2)).nonzero()[:, 0]
    everywhere = (smallest > bar).nonzero()[:, 0]
    return [
        (lowest(neurons.only("fr").flat), "French"),
        (lowest((neurons["fr"] & neurons["es"]).flat), "French and Spanish"),
        (int(everywhere[found[everywhere].argmax()]), "every language"),
        (lowest(rare), "too rare to be a candidate"),
    ]


def controls(table: pl.DataFrame) -> Any:
    """Each language's own neurons off, beside the largest of the draws of both controls."""
    own = table.filter(pl.col("off") == pl.col("language"))
    at = np.arange(len(own))
    figure, axis = plt.subplots(figsize=(7, 2.9), layout="constrained")
    for number, (column, label, colour) in enumerate(
        (
            ("delta_token", "the language's own neurons", ORANGE),
            ("matched_max", "matched neurons, largest draw", BLUE),
            ("random_max", "random neurons, largest draw", GREY),
        )
    ):
        axis.bar(at + (number - 1) * 0.27, own[column], 0.27, label=label, color=colour)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set(xticks=at, xticklabels=own["language"], xlabel="language", ylabel="change of loss, nats a token")
    figure.legend(frameon=False, loc="outside upper center", ncols=3, fontsize=7.5, columnspacing=1.2, handlelength=1.2)
    return figure


def save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
    if path.suffix == ".png":
        Image.open(path).convert("RGB").quantize(64).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
