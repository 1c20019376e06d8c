"""What a run's folder holds that can be drawn, and where each table came from."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from lape.errors import FileError
from lape.store.run import read_record, read_table

Record = Mapping[str, Any]
"""What a folder's run.json says."""
_BESIDE = {
    "perplexity": ("perplexity.parquet", "perplexity"),
    "forcing": ("forcing.parquet", "forcing"),
    "forcing_differences": ("differences.parquet", "forcing"),
    "costs": ("costs.parquet", "forcing"),
}
"""Table -> its file, and the folder in a run where its verb puts it by default."""


@dataclass
class Held:
    """Tables by name, and of each the run.json of the folder that it lay in."""

    folder: Path
    record: Record
    study: bool = False
    tables: dict[str, pl.DataFrame] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)

    def add(self, name: str, table: pl.DataFrame, record: Record) -> None:
        """Hold one more table."""
        self.tables[name], self.records[name] = table, record


def held(run: Path) -> Held:
    """Everything that a run of demo, record and identify, perplexity, force or study holds. Raises FileError where it cannot be read."""
    if not run.is_dir():
        there = "is a file" if run.is_file() else "is not there"
        raise FileError(f"{run} {there}. Expected the folder of a run, such as lape demo makes.")
    found = Held(run, read_record(run), study=(run / "tables").is_dir())
    if found.study:
        for path in sorted((run / "tables").glob("*.parquet")):
            found.add(path.stem, read_table(path), found.record)
        _costs(found)
    else:
        _neurons(found)
        for name, (file, folder) in _BESIDE.items():
            place = next((one for one in (run, run / folder) if (one / file).is_file()), None)
            if place is not None:
                found.add(name, read_table(place / file), read_record(place))
    if not found.tables:
        raise FileError(_nothing(run))
    return found


def _nothing(run: Path) -> str:
    if (run / "stats.safetensors").is_file():
        return f"{run} holds statistics, but no neurons yet. Type: lape identify {run}"
    return (
        f"{run} holds nothing that can be drawn. Expected the folder of lape demo, identify, perplexity, force or study, "
        "with tables (.parquet) or neurons.safetensors in it."
    )


def _neurons(found: Held) -> None:
    """The neurons of a run as tables, and how reliable they are."""
    from lape.experiments.overlap.run import overlap_chance
    from lape.values.neurons import LanguageNeurons

    if (found.folder / "neurons.safetensors").is_file():
        neurons = LanguageNeurons.load(found.folder)
        record = {"model": neurons.manifest.get("model"), **found.record, "chosen": {neurons.method: neurons.options}}
        found.add("histogram", neurons.by_layer(), record)
        found.add("overlap", overlap_chance(neurons), record)
    path = found.folder / "neurons.reliability.parquet"
    if path.is_file():
        found.add("reliability", read_table(path), found.record)


def _costs(found: Held) -> None:
    """What forcing cost, which a study keeps in the file that was joined, where that lies beside its tables."""
    joined = read_record(found.folder, "forcing.json")
    if joined.get("costs"):
        found.add("costs", pl.DataFrame(joined["costs"], infer_schema_length=None), joined)


def origin(record: Record) -> str:
    """Which model a table is about, with its revision, and the command that made it."""
    model = record.get("model") or record.get("manifest", {}).get("model")
    said = []
    if model:
        revision = f"revision {model['revision']}" if model.get("revision") else "no revision recorded"
        said.append(f"Model: {model['id']}, {revision}, SHA-256 over all parameters {str(model.get('checksum'))[:12]}.")
    if isinstance(record.get("command"), list):
        said.append(f"Made by: lape {shlex.join(map(str, record['command']))}")
    elif record.get("command"):
        said.append(f"Made by: {record['command']}")
    return " ".join(said)


def resamples(record: Record) -> str:
    """How many resamples stand behind a bootstrap, in words, where that is recorded."""
    options = record.get("options") or {}
    count = options.get("resamples") or (options.get("perplexity") or {}).get("resamples")
    return f", {count:,} resamples" if count else ""


def model_word(record: Record) -> str:
    """What names the run's model in a command."""
    command = record.get("command")
    if record.get("verb") == "demo":
        return "sample"
    known = isinstance(command, list) and len(command) > 1 and not str(command[1]).startswith("-")
    return shlex.quote(str(command[1])) if known and record.get("verb") != "identify" else "MODEL"  # type: ignore[index]


def lacking(found: Held, kinds: Mapping[str, Any]) -> dict[str, str]:
    """Figure -> the command that makes what it lacks."""
    model = model_word(found.record)
    without = {
        name: kind
        for name, kind in kinds.items()
        if not all(table in found.tables and len(found.tables[table]) for table in kind.needs)
    }
    if not found.study:
        return {name: kind.command.format(run=found.folder, model=model) for name, kind in without.items()}
    study = f"lape study {model} --text TAG=PATH --parallel TAG=PATH --out STUDY"
    parts = dict.fromkeys(kind.part for kind in without.values() if kind.part != "steering")
    more = {True: "--forcing FOLDER, which lape force makes", False: f"--parts {','.join(parts)}"}
    return {name: f"{study} {more[kind.part == 'steering']}" for name, kind in without.items()}
