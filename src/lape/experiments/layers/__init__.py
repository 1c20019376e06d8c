"""Where the neurons lie: in the first layer, in the bottom two, in the top quarter?"""

from __future__ import annotations

import polars as pl

from lape.experiments.claim import beside
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import Experiment, NoOptions, default_section
from lape.experiments.layers.figures import layers as draw
from lape.experiments.layers.run import LAYERS, layers
from lape.experiments.section import Section
from lape.experiments.table import Table
from lape.figures.captions import Facts, selected, sets
from lape.figures.figure import Figure
from lape.measure.intervals import ENDS, QUANTILES, resampled
from lape.values.neurons import LanguageNeurons

__all__ = ["EXPERIMENT", "layers"]

HISTOGRAM = Table(
    "Neurons of each language in each layer.",
    {"language": pl.String, "layer": pl.Int64, "neurons": pl.Int64},
    command="lape identify {run}",
)
PLACES = Table(
    "The shares of all assignments of a neuron to a language that lie in the first layer, in the bottom two and in the top quarter, and their ratio to "
    "chance, with intervals over the neurons of the sets, not over text.",
    {"place": pl.String, **dict.fromkeys(("share", "chance"), pl.Float64), **resampled("over_chance", plain=True)},
)


def _run(context: Context, _options: NoOptions) -> Tables:
    options = context.options
    table = layers(context.neurons, resamples=options.resamples, seed=options.seed)
    return {"layers": table, "histogram": context.neurons.by_layer(), "layer_claims": _places(table)}


def _places(table: pl.DataFrame) -> pl.DataFrame:
    """The row of all assignments, a row for each place, in shares of what chance would give."""
    whole = table.filter(pl.col("language") == "all")
    parts = []
    for column in ("first_layer", "bottom_two", "top_quarter"):
        chance = pl.col(f"{column}_chance")
        ends = zip(("over_chance", "low", "high"), ENDS, strict=True)
        over = {name: pl.col(f"{column}{end}") / chance for name, end in ends}
        over[QUANTILES] = pl.col(f"{column}_{QUANTILES}") / chance
        parts.append(whole.select(place=pl.lit(column.replace("_", " ")), share=pl.col(column), chance=chance, **over))
    return pl.concat(parts)


def _of_neurons(neurons: LanguageNeurons) -> Tables:
    return {"histogram": neurons.by_layer()}


def _caption(tables: Tables, facts: Facts) -> str:
    count = tables["histogram"]["layer"].n_unique()
    return (
        f"Language neurons in each of {count} layers, all languages on one scale; the number above a bar is the count in the layer with most neurons, "
        f"the one at the side the language's total. n (neurons): {sets(tables)}. Counts, so without intervals.{selected(facts)}"
    )


def _section(tables: Tables) -> Section:
    about = "A neuron of several languages is counted in each of them."
    return default_section(EXPERIMENT, tables, about, _finding(tables.get("histogram")))


def _finding(counts: pl.DataFrame | None) -> tuple[str, ...]:
    if counts is None or not counts["neurons"].sum():
        return ()
    total = [int(one) for one in counts.group_by("layer").agg(pl.col("neurons").sum()).sort("layer")["neurons"]]
    depth, every = len(total), sum(total)
    quarter = max(1, depth // 4)
    return (
        f"{sum(total[-quarter:]) / every:.0%} of the sets' neurons lie in the top {quarter} of {depth} layers, where {quarter / depth:.0%} would lie "
        f"by chance; {sum(total[:2]) / every:.0%} in the bottom two ({2 / depth:.0%}).",
    )


EXPERIMENT = Experiment(
    name="layers",
    title="Layers",
    about="where the neurons lie",
    options=NoOptions,
    run=_run,
    tables={
        "layers": Table(
            "Shares of each language's neurons in parts of the model, with 95 % intervals over the neurons of the set, not over text.",
            LAYERS,
            added=tuple(name for name in LAYERS if name.startswith("first_layer")),
        ),
        "histogram": HISTOGRAM,
        "layer_claims": PLACES,
    },
    figures=(Figure("layers", "Language neurons by layer", ("histogram",), draw, _caption),),
    section=_section,
    claims=beside(__file__),
    study="always",
    of_neurons=_of_neurons,
)
