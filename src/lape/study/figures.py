"""Figures of a study, as PDF and SVG: colours that colour-blind readers tell apart, and marks that do without colour."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from lape.analyse.frontier import MEAN
from lape.errors import OptionError
from lape.study.claims import interval_columns

Figure: TypeAlias = Any
_COLOURS = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
    "#999999",
    "#8C6D1F",
    "#5B3A8C",
)
"""Okabe and Ito's palette, and two more."""
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
_DASHES = (
    "-",
    "--",
    "-.",
    ":",
    (0, (5, 1)),
    (0, (3, 1, 1, 1)),
    (0, (1, 1)),
    (0, (5, 3, 1, 3)),
    (0, (7, 2)),
    (0, (2, 2)),
)
_ROUND = (0, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_STYLE = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "lape",
    "pdf.fonttype": 42,
}


def available() -> bool:
    """Whether matplotlib is there."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def draw(tables: Mapping[str, pl.DataFrame], folder: Path) -> list[Path]:
    """Draw every figure whose tables are there; the same tables give the same bytes. Raises OptionError without matplotlib."""
    if not available():
        raise OptionError('Figures need matplotlib. Type: pip install "lape[report]".')
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with mpl.rc_context(_STYLE):
        for name, (needed, make) in FIGURES.items():
            if needed not in tables or not len(tables[needed]):
                continue
            figure = make(tables)
            for suffix, metadata in (("pdf", {"CreationDate": None}), ("svg", {"Date": None})):
                path = folder / f"{name}.{suffix}"
                figure.savefig(path, metadata=metadata, bbox_inches="tight")
                written.append(path)
            pyplot.close(figure)
    return written


def _style(k: int) -> dict[str, Any]:
    n, again = k % len(_COLOURS), k // len(_COLOURS)  # a colour that comes again has another mark
    mark = _MARKS[(k + again) % len(_MARKS)]
    return {"color": _COLOURS[n], "marker": mark, "linestyle": _DASHES[n], "markersize": 4, "linewidth": 1.2}


def _axes(width: float = 4.5, height: float = 3.2) -> tuple[Figure, Any]:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
    return figure, axes


def _whole(axes: Any) -> None:
    """Ticks at whole layers alone."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _bars(table: pl.DataFrame, value: str) -> Any:
    """Error bars below and above a column, or None where it has no interval."""
    if table[f"{value}_low"].null_count():
        return None
    middle = table[value].to_numpy()
    bars = np.stack([middle - table[f"{value}_low"].to_numpy(), table[f"{value}_high"].to_numpy() - middle])
    return np.maximum(bars, 0.0)


def _frontier(tables: Mapping[str, pl.DataFrame]) -> Figure:
    figure, axes = _axes()
    mean = tables["frontier"].filter(pl.col("language") == MEAN).drop_nulls("own").sort("size")
    for k, method in enumerate(mean["method"].unique(maintain_order=True)):
        one = mean.filter(pl.col("method") == method)
        style = _style(k) | {"capsize": 2, "elinewidth": 0.6}
        axes.errorbar(one["own"], one["others"], _bars(one, "others"), _bars(one, "own"), label=method, **style)
    axes.set_yscale("symlog", linthresh=0.1)  # a way that wrecks every language must not flatten the others
    axes.set_yticks(_ROUND, [f"{tick:g}" for tick in _ROUND])
    others = mean["others"].drop_nulls().to_numpy()
    axes.set_ylim(min(0.0, *others), 1.5 * max(0.1, *others))
    axes.minorticks_off()
    axes.set_xlabel("own: change of the language's own loss (nats a token)")
    axes.set_ylabel("others: mean change of the other languages")
    axes.legend(frameon=False, fontsize=7)
    return figure


def _heat(names: Sequence[str], across: Sequence[str], values: Any, label: str, form: str = "{:.2f}") -> Figure:
    from matplotlib.colors import PowerNorm

    figure, axes = _axes(0.55 * len(across) + 1.8, 0.42 * len(names) + 1.2)
    top = max(float(np.nanmax(values)), 1e-9)
    image = axes.imshow(np.clip(values, 0, None), cmap="cividis", norm=PowerNorm(0.5, 0, top), aspect="auto")
    for i in range(len(names)):
        for j in range(len(across)):
            if np.isfinite(values[i, j]):
                colour = "white" if values[i, j] < 0.25 * top else "black"
                axes.text(j, i, form.format(values[i, j]), ha="center", va="center", color=colour, fontsize=7)
    axes.set_xticks(range(len(across)), across)
    axes.set_yticks(range(len(names)), names)
    figure.colorbar(image, label=label)
    return figure


def _grid(table: pl.DataFrame, row: str, column: str, value: str) -> tuple[list[str], list[str], Any]:
    names = table[row].unique(maintain_order=True).to_list()
    across = table[column].unique(maintain_order=True).to_list()
    grid = np.full((len(names), len(across)), np.nan)
    for a, b, x in table.select(row, column, value).iter_rows():
        grid[names.index(a), across.index(b)] = np.nan if x is None else x
    return names, across, grid


def _perplexity(tables: Mapping[str, pl.DataFrame]) -> Figure:
    figure = _heat(*_grid(tables["perplexity"], "off", "language", "delta_token"), "change of loss (nats a token)")
    figure.axes[0].set(xlabel="language evaluated", ylabel="neurons off")
    return figure


def _layers(tables: Mapping[str, pl.DataFrame]) -> Figure:
    figure, axes = _axes()
    table = tables["histogram"].sort("layer")
    for k, language in enumerate(table["language"].unique(maintain_order=True)):
        one = table.filter(pl.col("language") == language)
        axes.plot(one["layer"], one["neurons"], label=language, **_style(k))
    axes.set(xlabel="layer", ylabel="neurons")
    _whole(axes)
    axes.legend(frameon=False, fontsize=7, ncols=2)
    return figure


def _sweep(tables: Mapping[str, pl.DataFrame]) -> Figure:
    figure, axes = _axes()
    mean = tables["sweep"].filter(pl.col("language") == MEAN).sort("rate")
    for k, value in enumerate(("own", "others")):
        bars = _bars(mean, value)
        axes.errorbar(100 * mean["rate"], mean[value], bars, label=value, capsize=2, **_style(k))
    axes.set(xscale="log", xlabel="neurons kept (% of all)", ylabel="change of loss (nats a token)")
    axes.legend(frameon=False)
    return figure


def _by_layer(value: str, label: str, chance: str | None = None) -> Callable[[Mapping[str, pl.DataFrame]], Figure]:
    def make(tables: Mapping[str, pl.DataFrame]) -> Figure:
        figure, axes = _axes()
        table = tables["dominance"].sort("layer")
        for k, language in enumerate(table["language"].unique(maintain_order=True)):
            one = table.filter(pl.col("language") == language)
            axes.plot(one["layer"], one[value], label=language, **_style(k))
        if chance is not None:
            axes.axhline(table[chance][0], color="#777777", linewidth=0.8, linestyle=":")
        axes.set(xlabel="layer", ylabel=label)
        _whole(axes)
        axes.legend(frameon=False, fontsize=7, ncols=2, title="target")
        return figure

    return make


def _amount(tables: Mapping[str, pl.DataFrame]) -> Figure:
    figure, axes = _axes()
    table = tables["amount"].drop_nulls("median").sort("tokens")
    for k, language in enumerate(table["language"].unique(maintain_order=True)):
        one = table.filter(pl.col("language") == language)
        axes.plot(one["tokens"], one["median"], label=language, **_style(k))
    axes.set(
        xscale="log", xlabel="tokens a language in each half", ylabel="Jaccard of the two halves' sets", ylim=(0, 1)
    )
    axes.legend(frameon=False, fontsize=7, ncols=2)
    return figure


def _overlap(tables: Mapping[str, pl.DataFrame]) -> Figure:
    table = tables["overlap"]
    both = pl.concat(
        [table, table.select(pl.col("b").alias("a"), pl.col("a").alias("b"), pl.exclude("a", "b"))], how="diagonal"
    )
    order = {name: k for k, name in enumerate(dict.fromkeys([*table["a"], *table["b"]]))}
    both = both.sort(pl.col("a").replace_strict(order), pl.col("b").replace_strict(order))
    names = list(order)
    grid = np.full((len(names), len(names)), np.nan)
    for a, b, x in both.select("a", "b", "jaccard").iter_rows():
        grid[order[a], order[b]] = np.nan if x is None else x
    return _heat(names, names, grid, "Jaccard of the sets")


def _dots(
    name: str,
    labels: Sequence[str],
    value: str,
    label: str,
    line: float | None = None,
    least: float | None = None,
    **where: Any,
) -> Callable[[Mapping[str, pl.DataFrame]], Figure]:
    """One figure a row with its interval, named by some columns; a dotted line for what it is compared with.

    Nothing below `least` is shown.
    """

    def make(tables: Mapping[str, pl.DataFrame]) -> Figure:
        table = tables[name].filter(**where).drop_nulls(value)
        low, high = interval_columns(table, value)
        figure, axes = _axes(height=0.8 + 0.2 * max(len(table), 1))
        names = [" ".join(str(row[column]) for column in labels) for row in table.iter_rows(named=True)]
        for k, (middle, below, above) in enumerate(table.select(value, low, high).iter_rows()):
            if below is not None:
                axes.plot([below, above], [k, k], color="#777777", linewidth=1.5)
            axes.plot(middle, k, "o", color="#0072B2", markersize=4)
        if line is not None:
            axes.axvline(line, color="#777777", linewidth=0.8, linestyle=":")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
        axes.set_xlabel(label)
        if least is not None:
            axes.set_xlim(left=max(least, axes.get_xlim()[0]))
        return figure

    return make


def _generation(tables: Mapping[str, pl.DataFrame]) -> Figure:
    table = tables["generation"].filter(~pl.col("control"))
    figure = _heat(*_grid(table, "off", "language", "good"), "share of good answers (a proxy)")
    figure.axes[0].set(xlabel="language asked in", ylabel="neurons off")
    return figure


def _resource(tables: Mapping[str, pl.DataFrame]) -> Figure:
    figure, axes = _axes()
    for k, row in enumerate(tables["resource"].iter_rows(named=True)):
        at = row["bits_per_sentence"], row["own_per_sentence"]
        axes.plot(*at, **_style(k))
        axes.annotate(row["language"], at, xytext=(4, 3), textcoords="offset points", fontsize=7)
    axes.set(xlabel="bits a parallel sentence, nothing off", ylabel="own effect (nats a sentence)")
    return figure


FIGURES: dict[str, tuple[str, Callable[[Mapping[str, pl.DataFrame]], Figure]]] = {
    "frontier": ("frontier", _frontier),
    "perplexity": ("perplexity", _perplexity),
    "layers": ("histogram", _layers),
    "sweep": ("sweep", _sweep),
    "retrieval": ("dominance", _by_layer("p_at_1", "P@1 of the translation", "p_at_1_chance")),
    "dominance": ("dominance", _by_layer("difference", "dominance, matched − mismatched")),
    "amount": ("amount", _amount),
    "overlap": ("overlap", _overlap),
    "generation": ("generation", _generation),
    "drops": (
        "drops",
        _dots("drops", ["language"], "value", "good answers lost, over those lost to matched neurons", 0.0),
    ),
    "resource": ("resource", _resource),
    "domain": ("domain", _dots("domain", ["language"], "difference", "Jaccard within a domain − across domains", 0.0)),
    "null": ("null", _dots("null", ["language"], "share_below", "chosen neurons below the null's 1st percentile", 0.9)),
    "patching": (
        "patching",
        _dots("patching", ["language"], "patched_own", "own effect, patched to the others' mean (nats a token)", 0.0),
    ),
    "necessity": (
        "correlations",
        _dots("correlations", ["predictor", "size"], "rho", "rank correlation with the damage", 0.0, among="sample"),
    ),
    "predictions": (
        "predictions",
        _dots(
            "predictions",
            ["estimate", "passes", "size"],
            "r2",
            "variance of the damage explained in unseen text",
            0.0,
            least=-1.0,
            text="unseen",
        ),
    ),
    "scripts": (
        "scripts",
        _dots("scripts", ["language", "kind"], "kept", "share of the native damage that is kept", 0.5),
    ),
    "steering": (
        "forcing_differences",
        _dots(
            "forcing_differences",
            ["family"],
            "difference",
            "good answers, neurons − family (over the ceiling)",
            0.0,
            measure="good_over_ceiling",
        ),
    ),
}
"""Name -> the table it needs, and how it is drawn."""
