"""Effect against resource: a language's own effect beside the bits that a parallel sentence takes (descriptive)."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from lape.experiments.context import Context, Tables
from lape.experiments.experiment import MODEL, PARALLEL, Experiment, NoOptions
from lape.experiments.table import Table
from lape.figures.captions import plain
from lape.figures.figure import Figure
from lape.figures.lines import height
from lape.figures.style import SMALL, Axes, Canvas, NothingToDrawError, Paper, blank, series
from lape.measure.correlation import spearman

RESOURCE = {
    "language": pl.String,
    **dict.fromkeys(("bits_per_sentence", "own_per_sentence", "own"), pl.Float64),
    **dict.fromkeys(("neurons", "sentences"), pl.Int64),
}
"""Columns of the table: bits and the own effect (nats) of a parallel sentence, and the own effect in nats per token."""


def _run(context: Context, _options: NoOptions) -> Tables:
    """The evaluated lines are the same in all languages."""
    rows = []
    for language in context.languages:
        before = context.work.unedited(language)
        after = context.work.off(context.neurons[language], language)
        count = len(before.nll)
        own = float(after.nll.sum() - before.nll.sum())
        rows.append(
            {
                "language": language,
                "bits_per_sentence": float(before.nll.sum()) / count / float(np.log(2)),
                "own_per_sentence": own / count,
                "own": own / max(int(before.tokens.sum()), 1),
                "neurons": len(context.neurons[language]),
                "sentences": count,
            }
        )
    table = pl.DataFrame(rows, schema=RESOURCE)
    alike = spearman(table["bits_per_sentence"].to_numpy(), table["own_per_sentence"].to_numpy())
    if alike is not None:
        said = f"rank correlation of bits and own effect, both per sentence: {alike:.2f} over {len(table)} languages"
        context.note("resource", said)
    return {"resource": table}


def _draw(tables: Tables, paper: Paper) -> Canvas:
    """The own effect against the bits of a parallel sentence, a point per language."""
    figure, axes = blank(paper, height(paper))
    table = tables["resource"].drop_nulls(["bits_per_sentence", "own_per_sentence"])
    if not len(table):
        raise NothingToDrawError
    for k, row in enumerate(table.iter_rows(named=True)):
        axes.plot(row["bits_per_sentence"], row["own_per_sentence"], label=paper.name(row["language"]), **series(k))
    axes.margins(0.08)
    axes.set(xlabel="bits per parallel sentence, unedited model", ylabel="own effect (nats per sentence)")
    _annotate(figure, axes, table, paper)
    return figure


def _annotate(figure: Canvas, axes: Axes, table: pl.DataFrame, paper: Paper) -> None:
    """A name at each point, at the first of eight places where it touches no other name or point."""
    figure.draw_without_rendering()
    points = table.select("bits_per_sentence", "own_per_sentence").to_numpy()
    taken = [_around(axes.transData.transform(at), 4) for at in points]
    style = {"textcoords": "offset points", "fontsize": SMALL + 0.5}
    for language, at in zip(table["language"], points, strict=True):
        for *beside, ha, va in _PLACES:
            text = axes.annotate(paper.name(language), at, xytext=beside, ha=ha, va=va, **style)
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in taken) and axes.bbox.padded(2).containsx(box.x1):
                break
            text.remove()
        else:
            box = axes.annotate(paper.name(language), at, xytext=(4, 3), **style).get_window_extent()
        taken.append(box)


_PLACES = (
    (4, 3, "left", "bottom"),
    (4, -3, "left", "top"),
    (-4, 3, "right", "bottom"),
    (-4, -3, "right", "top"),
    (0, 5, "center", "bottom"),
    (0, -5, "center", "top"),
    (6, 0, "left", "center"),
    (-6, 0, "right", "center"),
)


def _around(at: Any, pixels: float) -> Any:
    from matplotlib.transforms import Bbox

    return Bbox.from_extents(at[0] - pixels, at[1] - pixels, at[0] + pixels, at[1] + pixels)


EXPERIMENT = Experiment(
    name="resource",
    title="Effect and resource",
    about="effect against bits per sentence (descriptive)",
    options=NoOptions,
    run=_run,
    tables={
        "resource": Table(
            "Own effect (nats) against the unedited model's loss (bits), both per parallel sentence.", RESOURCE
        )
    },
    needs=(MODEL, PARALLEL),
    figures=(
        Figure(
            "resource",
            "Effect against bits per sentence",
            ("resource",),
            _draw,
            plain(
                "resource",
                "Own effect (nats) against the unedited model's loss (bits), both per parallel sentence; descriptive.",
            ),
        ),
    ),
    study="always",
)
