"""What a folder holds that a report can show, and the commands that make what it lacks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from lape.errors import FileError
from lape.store.run import read_record, read_table
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

_TABLES = {
    "perplexity": ("perplexity.parquet", "perplexity/perplexity.parquet", "tables/perplexity.parquet"),
    "reliability": ("neurons.reliability.parquet", "tables/reliability.parquet"),
    "forcing": ("forcing.parquet", "forcing/forcing.parquet", "tables/forcing.parquet"),
    "forced answers": ("answers.parquet", "forcing/answers.parquet"),
    "forcing costs": ("costs.parquet", "forcing/costs.parquet"),
    "ablated answers": ("tables/answers.parquet",),
    "generation": ("tables/generation.parquet",),
    "sweep": ("tables/sweep.parquet",),
    "histogram": ("tables/histogram.parquet",),
    "overlap": ("tables/overlap.parquet",),
    "layers": ("tables/layers.parquet",),
    "contexts": ("examples/contexts.parquet",),
    "words": ("examples/words.parquet",),
    "effects": ("examples/effects.parquet",),
}
"""Name -> where it may lie in a run's, a table's or a study's folder."""
_ANSWERS = {"family", "answer"}
"""Columns of forced answers; a study's own `answers` are of neurons off."""


@dataclass(frozen=True)
class Gathered:
    """A run or a study, read."""

    folder: Path
    record: dict[str, Any]
    """What run.json says; empty where there is none."""
    tables: dict[str, pl.DataFrame]
    neurons: LanguageNeurons | None
    stats: ActivationStats | None

    @property
    def languages(self) -> list[str]:
        """In the order in which they were given."""
        if self.neurons is not None:
            return list(self.neurons)
        if self.stats is not None:
            return self.stats.languages
        for name in ("histogram", "perplexity"):
            if name in self.tables:
                return list(self.tables[name]["language" if name == "histogram" else "off"].unique(maintain_order=True))
        return []

    @property
    def model(self) -> dict[str, Any]:
        """What is known of the model: id, checksum, dtype, revision."""
        for manifest in (self.record, *(x.manifest for x in (self.neurons, self.stats) if x is not None)):
            if manifest.get("model"):
                found: dict[str, Any] = manifest["model"]
                return found
        return {}

    @property
    def forced(self) -> dict[str, dict[str, Any]]:
        """Family -> what was reported of forcing a language by it, averaged over all pairs; empty where nothing was."""
        table = self.tables.get("forcing")
        if table is None:
            return {}
        whole = table.filter(
            (pl.col("source") == "all") & (pl.col("target") == "all") & pl.col("chosen") & (pl.col("split") == "report")
        )
        return {row["family"]: row for row in whole.iter_rows(named=True)}


def gather(run: Path) -> Gathered:
    """Read a folder that a verb of lape made. Raises FileError for one that holds nothing to show."""
    if not run.is_dir():
        raise FileError(
            f"There is no folder {run}. Expected a run's (lape record, lape demo) or a study's (lape study)."
        )
    tables = {name: found for name, places in _TABLES.items() if (found := _table(run, places)) is not None}
    if "forced answers" in tables and not set(tables["forced answers"].columns) >= _ANSWERS:
        del tables["forced answers"]
    neurons = LanguageNeurons.load(run) if (run / "neurons.safetensors").is_file() else None
    stats = next((ActivationStats.load(place) for place in (run, run / "recorded") if _has_stats(place)), None)
    if not tables and neurons is None and stats is None:
        raise FileError(
            f"{run} holds nothing to report. Expected the folder of lape record, lape demo, lape perplexity, lape force or lape study."
        )
    return Gathered(run, read_record(run) or read_record(run / "perplexity"), tables, neurons, stats)


def _table(run: Path, places: tuple[str, ...]) -> pl.DataFrame | None:
    place = next((run / one for one in places if (run / one).is_file()), None)
    return None if place is None else read_table(place)


def _has_stats(place: Path) -> bool:
    return (place / "stats.safetensors").is_file()
