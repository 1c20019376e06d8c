"""`lape eval`: tasks of lm-eval on the model as it is, with a language's neurons off, and with control neurons off."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import polars as pl
from cyclopts import Parameter
from rich.console import Group

from lape.cli.common import beside, out, progress, provenance, written
from lape.cli.flags import FLAGS, Out, Several, Switch
from lape.cli.inputs import LOADING, Loading, load_proven, run_of
from lape.cli.tables import between, number, titled
from lape.edit.steer import PUBLISHED
from lape.experiments.harness.run import HarnessOptions, find_tasks, harness
from lape.measure.bench import named_sets
from lape.measure.result import Result
from lape.model.identity import describe
from lape.store.draft import Draft
from lape.values.stats import ActivationStats

_HARNESS = HarnessOptions()
_ONE_EACH = Parameter(consume_multiple=False)
"""--languages is given once for each."""


def evaluate(
    model: str,
    *,
    tasks: Several,
    run: Path | None = None,
    sets: str = "lape",
    include_path: Path | None = None,
    steer: Switch = False,
    strength: float = 1.0,
    to: Out | None = None,
    overwrite: Switch = False,
    options: Annotated[HarnessOptions, FLAGS, _ONE_EACH] = _HARNESS,
    loading: Loading = LOADING,
) -> None:
    """Run tasks of lm-eval on the model as it is, with each language's neurons off, and with matched control neurons off.

    Needs the extra eval. lm-eval fetches the data of its tasks when they are first used.

    Parameters
    ----------
    model
        A Hugging Face id, a local folder or GGUF file, or sample; or a run's folder alone, which knows its model.
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
    folder = run_of(model, run)
    draft = Draft(to or beside(folder, "eval"), overwrite)
    known = find_tasks(tasks, include_path)  # refuses before the model is loaded
    stats = ActivationStats.load(folder)
    neurons = named_sets(stats, sets, folder)
    how = replace(PUBLISHED, strength=strength) if steer else None
    with draft.cells() as cells, progress() as report:
        loaded, tokenizer = load_proven(model, loading, report)
        described = describe(loaded, tokenizer)
        kept: dict[str, Any] = {"folder": cells, "described": described}
        found = harness(loaded, tokenizer, neurons, stats, known, options, **kept, steer=how, progress=report)
        read = {"tasks": known.names, "statistics": stats.manifest.get("corpus", {})}
        # the run's neurons, or such as the statistics alone give
        used = (neurons, stats) if sets == "lape" else (stats,)
        record = provenance("eval", *used, options=options, steer=how, sets=sets, **read, **described)
        draft.write(found, run=record | _said(found, record))
        draft.finish()
    out.print(task_table(found["tasks"]))
    written(draft.target, found.notes)


def _said(found: Result, record: dict[str, Any]) -> dict[str, Any]:
    """What came out, for who reads run.json alone."""
    versions = {**record["versions"], "lm-eval": version("lm-eval")}
    return {"versions": versions, "notes": found.notes, "records": found["tasks"].to_dicts()}


def task_table(table: pl.DataFrame) -> Group:
    """Tasks under each condition, beside their difference to the unedited model."""
    rows = []
    for row in table.sort("task", "metric", maintain_order=True).iter_rows(named=True):
        of = [row[name] for name in ("task", "metric", "condition", "language")]
        shown = [number(row[name], 3) for name in ("value", "difference")]
        rows.append([*of, *shown, between(row["low"], row["high"], ".3f")])
        if row["less_control"] is not None:
            *about, condition, language = of
            beside = between(row["less_control_low"], row["less_control_high"], ".3f")
            rows.append([*about, f"{condition} − control", language, "", number(row["less_control"], 3), beside])
    caption = (
        "off: the language's neurons are off; control: as many others of the same layers that write as much are; off − control: from the mean of the "
        "control's draws. change: difference from the unedited model, or from the control, with its paired 95 % interval over documents (and draws) where "
        "there are at least 20 and the metric is their mean."
    )
    return titled("Tasks", ["task", "metric", "", "of", "value", "change", "95 % interval"], rows, caption, keys=4)
