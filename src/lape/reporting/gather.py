"""What a folder holds that can be shown: the tables of every experiment, neurons and statistics; and what makes what it lacks."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from lape.errors import FileError
from lape.experiments import experiments
from lape.experiments.experiment import PARALLEL, Experiment
from lape.figures.captions import Facts
from lape.store.run import Run, read_table
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

MADE_BY = "lape record, demo, identify, perplexity, force, examples or study"


@dataclass
class Gathered:
    """A run or a study, read."""

    run: Run
    neurons: LanguageNeurons | None
    tables: dict[str, pl.DataFrame] = field(default_factory=dict)
    facts: dict[str, Facts] = field(default_factory=dict)
    """Table -> the run.json of the folder that it lay in."""

    @cached_property
    def stats(self) -> ActivationStats | None:
        """Its statistics, read when they are first asked for."""
        return ActivationStats.load(self.run.stats) if self.run.stats else None

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.run.folder

    @property
    def record(self) -> dict[str, Any]:
        """What run.json says, or that of its perplexity; empty where there is neither."""
        return self.run.record or dict(self.facts.get("perplexity", {}))

    @property
    def languages(self) -> list[str]:
        """In the order in which they were given."""
        if self.neurons is not None:
            return list(self.neurons)
        if self.stats is not None:
            return self.stats.languages
        for name, column in (("histogram", "language"), ("perplexity", "off")):
            if name in self.tables:
                return list(self.tables[name][column].unique(maintain_order=True))
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
    def model_word(self) -> str:
        """What names the model in a command: as it was named when the run was made, else by its id."""
        record = self.record
        if record.get("verb") == "demo":
            return "sample"
        command = record.get("command")
        first = command[1] if isinstance(command, list) and len(command) > 1 else "-"
        named = first if record.get("verb") != "identify" and not str(first).startswith("-") else self.model.get("id")
        return shlex.quote(str(named)) if named else "MODEL"

    def command(self, experiment: Experiment[Any], table: str = "") -> str:
        """What makes an experiment's tables, or one of them, which the folder lacks."""
        folder = shlex.quote(str(self.folder))
        if not self.run.is_study:
            return experiment.typed(folder, self.model_word, table)
        own = [need.flag for need in experiment.needs if need.flag.startswith("--") and need is not PARALLEL]
        study = (
            f"lape study {self.model_word} --text TAG=PATH --parallel TAG=PATH --out STUDY --parts {experiment.name}"
        )
        return " ".join([study, *own])


def gather(folder: str | Path) -> Gathered:
    """Read a folder that a verb of lape made. Raises FileError for one that is none, and for damaged files."""
    run = Run(folder)
    neurons = LanguageNeurons.load(run.neurons) if run.neurons else None
    found = Gathered(run, neurons)
    for experiment in experiments().values():
        for name, table in experiment.tables.items():
            own = "" if table.file else experiment.name
            place = run.place(name, table.file or f"{own}/{name}.parquet", own)
            if place is not None:
                found.tables[name] = table.check(name, read_table(place), str(place))
                found.facts[name] = run.record_of(place)
        if neurons is not None and experiment.of_neurons is not None:
            made = {name: one for name, one in experiment.of_neurons(neurons).items() if name not in found.tables}
            said = {"model": neurons.manifest.get("model"), **run.record, "chosen": {neurons.method: neurons.options}}
            found.tables.update(made)
            found.facts.update(dict.fromkeys(made, said))
    return found


def nothing(found: Gathered, what: str) -> FileError:
    """Why a folder without any table cannot be shown."""
    if found.run.stats:
        return FileError(f"{found.folder} holds statistics, but no neurons yet. Type: lape identify {found.folder}")
    return FileError(
        f"{found.folder} holds nothing {what}. Expected the folder of {MADE_BY}, with tables (.parquet) or neurons.safetensors in it."
    )
