"""The picture in the README, from a run of `lape demo`: where language neurons lie, and what switching them off does.

usage: pip install matplotlib; python examples/picture.py runs/demo docs/demo.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np
import polars as pl

from lape import LanguageNeurons

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main(run: Path, out: Path) -> None:
    neurons = LanguageNeurons.load(run)
    table = pl.read_parquet(run / "perplexity.parquet")
    languages = list(neurons)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.9), width_ratios=(1.25, 1), layout="constrained")

    counts = neurons.by_layer().pivot("layer", index="language", values="neurons").drop("language").to_numpy()
    bottom = np.zeros(counts.shape[1])
    for language, row, colour in zip(languages, counts, plt.colormaps["tab10"].colors, strict=False):
        left.bar(range(len(row)), row, bottom=bottom, label=language, color=colour, width=0.85)
        bottom += row
    left.xaxis.get_major_locator().set_params(integer=True)
    left.set(xlabel="layer", ylabel="language neurons", title="Where they lie")
    left.legend(ncols=2, frameon=False)
    left.spines[["top", "right"]].set_visible(False)

    values = table.pivot("language", index="off", values="delta_token").drop("off").to_numpy()
    image = right.imshow(values, cmap="Greens", vmin=0)
    for (i, j), value in np.ndenumerate(values):
        shade = "white" if value > 0.6 * values.max() else "black"
        right.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=shade)
    right.set(xticks=range(len(languages)), yticks=range(len(languages)), xticklabels=languages, yticklabels=languages)
    right.set(xlabel="language evaluated", ylabel="neurons off", title="Change of loss, nats per token")
    figure.colorbar(image, ax=right, shrink=0.85)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
