"""`lape eval`: tasks of lm-eval on the model as it is, with a language's neurons off, and with control neurons off."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from lape.cli.common import Overwrite, out, progress, provenance, run_of, write_table
from lape.cli.flags import FLAGS, SWITCHES
from lape.edit.steer import SteerOptions
from lape.experiments.harness.run import HarnessOptions
from lape.model.load import ModelOptions

_MODEL, _HARNESS = ModelOptions(), HarnessOptions()
_ONE_EACH = Parameter(consume_multiple=False)
"""--languages is given once for each."""


def evaluate(
    model: str,
    *,
    tasks: Annotated[list[str], Parameter(negative="", show_default=False)],
    run: Path | None = None,
    sets: str = "lape",
    include_path: Path | None = None,
    steer: Annotated[bool, Parameter(negative="")] = False,
    strength: float = 1.0,
    to: Annotated[Path | None, Parameter(name="--out")] = None,
    overwrite: Overwrite = False,
    options: Annotated[HarnessOptions, FLAGS, _ONE_EACH] = _HARNESS,
    loading: Annotated[ModelOptions, SWITCHES] = _MODEL,
) -> None:
    """Run tasks of lm-eval on the model as it is, with each language's neurons off, and with matched control neurons off.

    Needs the extra eval. lm-eval fetches the data of its tasks when they are first used.

    Parameters
    ----------
    model
        A Hugging Face id, a local folder or GGUF file, or sample.
    tasks
        Names or patterns with commas between, such as belebele_*,xnli_fr.
    run
        A run's folder, with statistics. Default for sample: the demo's.
    sets
        Which neurons: lape (those of the run), or difference:N (the N largest differences of mean activation).
    include_path
        A folder of your own task files (.yaml); such files can run code.
    steer
        Run them also with the mean activation in the language added to its neurons.
    strength
        What is added is multiplied by it.
    to
        The folder to write. Default: eval in the run's folder.
    overwrite
        Replace an existing folder.
    """
    from lape.cli.tables import task_table
    from lape.experiments.harness.run import find_tasks, harness
    from lape.measure.bench import named_sets
    from lape.model.load import describe, load
    from lape.store import files
    from lape.values.stats import ActivationStats

    folder = run_of(model, run)
    target = to or (folder if folder.is_dir() else folder.parent) / "eval"
    files.refuse_existing(target, overwrite)
    known = find_tasks(tasks, include_path)  # refuses before the model is loaded
    stats = ActivationStats.load(folder)
    neurons = named_sets(stats, sets, folder)
    how = SteerOptions(strength=strength) if steer else None
    with progress() as report:
        loaded, tokenizer = load(model, loading, progress=report)
        found = harness(loaded, tokenizer, known, neurons, stats, options, steer=how, progress=report)
    record = provenance(
        "eval",
        options=dataclasses.asdict(options),
        steer=how and dataclasses.asdict(how),
        tasks=known.names,
        sets=sets,
        statistics=stats.manifest.get("corpus", {}),
        **describe(loaded, tokenizer),
    )
    _save(target, found, record)
    out.print(task_table(found.table))
    for note in found.notes:
        out.print(note, highlight=False)
    out.print(f"Written: {target}", highlight=False, soft_wrap=True)


def _save(target: Path, found: Any, record: dict[str, Any]) -> None:
    """Write the tables as a folder, whole or not at all."""
    from importlib.metadata import version

    from lape.store import files

    working = files.partial(target)
    files.fresh(working)
    try:
        write_table(found.table, working / "tasks.parquet")
        write_table(found.documents, working / "documents.parquet")
        files.write_json(
            working / "run.json",
            record
            | {"versions": {**record["versions"], "lm-eval": version("lm-eval")}, "notes": found.notes}
            | {"records": found.table.to_dicts()},
        )
        files.finish(working, target)
    finally:
        shutil.rmtree(working, ignore_errors=True)
