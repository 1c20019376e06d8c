"""How sets move with the languages that are compared: a language left out, or, read the other way, added."""

from __future__ import annotations

import polars as pl

from lape.detect.detector import Method
from lape.detect.identify import method_named
from lape.detect.stability import chance_jaccard
from lape.errors import OptionError
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import Experiment, NoOptions
from lape.experiments.table import Table
from lape.values.neurons import jaccard
from lape.values.stats import ActivationStats

DROPPED = {
    "dropped": pl.String,
    "language": pl.String,
    **dict.fromkeys(("before", "after"), pl.Int64),
    **dict.fromkeys(("jaccard", "chance"), pl.Float64),
}
"""Columns of `dropped`."""


def dropped(stats: ActivationStats, find: Method) -> pl.DataFrame:
    """How much sets move when a language is left out of the study (or, read the other way, added to it).

    One row per language left out and language that stays: `before`, `after` (neurons), `jaccard` of the two sets, and `chance`, the
    Jaccard of random sets with as many neurons in each layer; both 0 to 1. `find`: a method with its options, such as
    `functools.partial(lape, rate=0.02)`. Ours. Raises OptionError for fewer than three languages.

    Example:
        >>> from lape.detect.lape import lape
        >>> from lape.experiments.languages import dropped
        >>> table = dropped(stats, lape)
        >>> table.filter(dropped="en")["language"].to_list()
        ['fr', 'id', 'zh']
    """
    if len(stats.languages) < 3:
        raise OptionError(
            f"{len(stats.languages)} languages were recorded. Leaving one out needs three or more: record more."
        )
    whole = find(stats)
    rows = []
    for gone in stats.languages:
        rest = {language: one for language, one in stats.by_language.items() if language != gone}
        found = find(ActivationStats(stats.space, rest, stats.manifest))
        for language in rest:
            before, after = whole[language], found[language]
            rows.append(
                {
                    "dropped": gone,
                    "language": language,
                    "before": len(before),
                    "after": len(after),
                    "jaccard": jaccard(before, after),
                    "chance": chance_jaccard(before, after),
                }
            )
    return pl.DataFrame(rows, schema=DROPPED)


def _run(context: Context, _options: NoOptions) -> Tables:
    return {"dropped": dropped(context.stats, method_named("lape"))}


EXPERIMENT = Experiment(
    name="languages",
    title="Languages compared",
    about="how sets move with the languages compared",
    options=NoOptions,
    run=_run,
    tables={"dropped": Table("Each language's set before and after another language is left out.", DROPPED)},
    study="always",
)
