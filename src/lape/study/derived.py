"""Small tables that claims are judged by, made from the parts' tables."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lape.study.study import Study, Tables


def derived(tables: Mapping[str, pl.DataFrame], study: Study) -> Tables:
    """`main` and `layer_claims`, as far as the tables they come from are there."""
    result: Tables = {}
    if "published" in tables and study.options.main in study.languages:
        result["main"] = tables["published"].filter(pl.col("language") == study.options.main)
    if "layers" in tables:
        result["layer_claims"] = _places(tables["layers"])
    return result


def _places(layers: pl.DataFrame) -> pl.DataFrame:
    """The shares of all assignments in the bottom two layers and the top quarter, over what chance would give."""
    whole = layers.filter(pl.col("language") == "all")
    parts = []
    for place, column in (("bottom two", "bottom_two"), ("top quarter", "top_quarter")):
        chance = pl.col(f"{column}_chance")
        parts.append(
            whole.select(
                pl.lit(place).alias("place"),
                pl.col(column).alias("share"),
                chance.alias("chance"),
                (pl.col(column) / chance).alias("over_chance"),
                (pl.col(f"{column}_low") / chance).alias("low"),
                (pl.col(f"{column}_high") / chance).alias("high"),
            )
        )
    return pl.concat(parts)
