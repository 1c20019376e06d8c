"""What a folder holds that can be shown: the tables of every experiment, neurons and statistics; and what makes what it lacks."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from lape.detect import DETECTORS
from lape.detect.halves import halvable
from lape.errors import FileError, LapeError
from lape.experiments import experiments
from lape.experiments.experiment import PARALLEL, Experiment
from lape.experiments.table import Table
from lape.figures.captions import Facts
from lape.options import flags
from lape.store import shards
from lape.store.run import Run, read_record, read_table
from lape.values.made import NEURONS, called, differs
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

STRANGE = "found in other statistics than those here"
MADE_BY = "lape record, demo, identify, perplexity, force, examples or study"


@dataclass(frozen=True)
class Stale:
    """A result that was not made from what the folder holds now, so that it is not shown."""

    what: str
    """A heading."""
    why: str
    command: str
    """What makes it anew; empty where nothing is known to."""


@dataclass
class Gathered:
    """A run or a study, read."""

    run: Run
    neurons: LanguageNeurons | None
    stats: ActivationStats | None
    tables: dict[str, pl.DataFrame] = field(default_factory=dict)
    facts: dict[str, Facts] = field(default_factory=dict)
    """Table -> the run.json of the folder that it lay in, those that are not shown too."""
    strange: LanguageNeurons | None = None
    """Neurons that were found in other statistics than the folder's, so that they are not shown."""
    why: dict[str, str] = field(default_factory=dict)
    """Table -> with what it was measured instead of what is there now, so that it is not shown."""
    unsure: list[str] = field(default_factory=list)
    """Tables of which nothing says what they were measured with."""
    earlier: list[str] = field(default_factory=list)
    """Tables of a study by a version of lape that measured something else under these names."""

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
        for name, column in (("histogram", "language"), ("perplexity", "off"), ("confused_answers", "language")):
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

    @cached_property
    def identify(self) -> str:
        """The command that finds its neurons again: by their method and options. Empty where that would not give what is lacking."""
        folder, neurons = str(self.folder), self.neurons or self.strange
        if self.stats is not None and shards.missing(self.stats.manifest.get("corpus") or {}):
            return f"lape merge {shlex.quote(folder)} SHARD ... --out RUN"
        if neurons is None:
            return shlex.join(["lape", "identify", folder])
        if neurons.method not in DETECTORS:
            return ""
        kind = DETECTORS[neurons.method].options
        chosen = {one.name: neurons.options[one.name] for one in fields(kind) if one.name in neurons.options}
        again = "reliability" in self.tables or self.strange is not None  # else it is asked for want of reliability
        if self.stats is None or not (again or self._halvable(neurons.method, chosen)):
            return ""
        method = [] if neurons.method == "lape" else ["--method", neurons.method]
        return shlex.join(["lape", "identify", folder, *method, *flags(kind, chosen), "--overwrite"])

    def _halvable(self, method: str, options: dict[str, Any]) -> bool:
        try:
            return self.stats is not None and halvable(self.stats, DETECTORS[method].find, options)
        except LapeError:
            raise
        except (TypeError, ValueError):  # options of a kind that lape does not write
            return False

    def command(self, experiment: Experiment[Any], table: str = "") -> str:
        """The command that makes an experiment's tables, or one of them, which the folder lacks; empty where none is known."""
        if self.run.is_study:
            own = [need.flag for need in experiment.needs if need.flag.startswith("--") and need is not PARALLEL]
            return " ".join(
                ["lape --again", shlex.quote(str(self.folder)), "--parts", experiment.name, *own, "--out NEW"]
            )
        typed = experiment.typed(str(self.folder), table)
        if typed.startswith("lape identify"):
            return self.identify
        return self._again(Path(experiment.tables[table].file).parent.name or experiment.name, typed)

    def _again(self, name: str, otherwise: str) -> str:
        """The command that replaces what lies in a folder of the run; `otherwise`, where that does not say how it was made."""
        made = read_record(self.folder / name).get("command")
        return shlex.join(["lape", "--again", str(self.folder / name), "--overwrite"]) if made else otherwise

    @property
    def stale(self) -> list[Stale]:
        """What lies here and is not shown, since it was not made from what is there now: each experiment once."""
        found = []
        if self.strange is not None:
            said = f"{STRANGE} ({called(self.strange.made_from)})"
            found.append(Stale("Language neurons", said, self.identify))
        if self.run.is_study and self.why:  # its tables were made together
            return [*found, Stale("The study", f"made with {next(iter(self.why.values()))}", self._again("", ""))]
        if self.earlier:
            said = "made by an earlier version of lape, which measured something else under these names"
            found.append(Stale(f"A part of the study ({', '.join(self.earlier)})", said, self._again("", "")))
        for experiment in experiments().values():
            for table in [name for name in experiment.tables if name in self.why][:1]:
                why = f"measured with {self.why[table]}"
                found.append(Stale(experiment.title, why, self.command(experiment, table)))
        return found


def gather(folder: str | Path) -> Gathered:
    """Read a folder that a verb of lape made. Of what was made from other neurons or statistics than it holds, no more than that is noted.

    Raises FileError for a folder that is none, and for damaged files.
    """
    run = Run(folder)
    neurons = LanguageNeurons.load(run.neurons) if run.neurons else None
    stats = ActivationStats.load(run.stats) if run.stats else None
    found = Gathered(run, neurons, stats)
    if neurons is not None and stats is not None and differs({**neurons.made_from, NEURONS: None}, stats.made_from):
        found.neurons, found.strange, neurons = None, neurons, None
    for experiment in experiments().values():
        for name, table in experiment.tables.items():
            own = "" if table.file else experiment.name
            place = run.place(name, table.file or f"{own}/{name}.parquet", own)
            if place is not None:
                found.facts[name] = run.record_of(place)
                if _belongs(found, name, table, place):
                    frame = table.of_earlier(read_table(place))
                    if run.is_study and set(frame.columns) != set(table.schema):
                        found.earlier.append(name)
                        continue
                    found.tables[name] = table.check(name, frame, str(place))
        if neurons is not None and experiment.of_neurons is not None:
            made = {name: one for name, one in experiment.of_neurons(neurons).items() if name not in found.tables}
            said = {"model": neurons.manifest.get("model"), **run.record, "chosen": {neurons.method: neurons.options}}
            found.tables.update(made)
            found.facts.update(dict.fromkeys(made, said))
            for name in made:
                found.why.pop(name, None)
    return found


def _belongs(found: Gathered, name: str, table: Table, place: Path) -> bool:
    """Whether a table was made from what the folder holds now, as far as that is known; where it was not, why is noted."""
    present = {
        key: value for one in (found.neurons, found.stats) if one is not None for key, value in one.made_from.items()
    }
    written_with_them = table.command and place.parent == found.folder
    if not present or written_with_them:
        return found.strange is None or not written_with_them
    made_from = found.facts[name].get("made_from")
    why = differs(made_from, present)
    if why is not None:
        found.why[name] = why
    elif not made_from:
        found.unsure.append(name)
    return why is None


def nothing(found: Gathered, what: str) -> FileError:
    """Why a folder without any table cannot be shown."""
    if found.run.stats:
        return FileError(f"{found.folder} holds statistics, but no neurons found in them. Type: {found.identify}")
    return FileError(
        f"{found.folder} holds nothing {what}. Expected the folder of {MADE_BY}, with tables (.parquet) or neurons.safetensors in it."
    )
