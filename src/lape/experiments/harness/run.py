"""One thought: tasks of lm-eval (EleutherAI's evaluation harness) under edits of a language's neurons. Needs the extra `eval`."""

from __future__ import annotations

import copy
import difflib
import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from torch import nn

from lape.data.languages import tag
from lape.edit.steer import SteerOptions
from lape.errors import LapeError, OptionError
from lape.extras import need
from lape.measure.bootstrap import Floats, Resamples
from lape.measure.conditions import NONE, Condition, conditions
from lape.measure.intervals import Interval
from lape.measure.result import Result
from lape.model.body import evaluating, unwrapped
from lape.model.identity import check_made_with, describe
from lape.options import NotNegative, Options, Positive, separated
from lape.progress import Progress, each, shown
from lape.store import files
from lape.store.cells import Cells
from lape.values.neurons import LanguageNeurons
from lape.values.same import lasting
from lape.values.stats import ActivationStats

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_KEYS = {
    **dict.fromkeys(("task", "metric", "condition", "language"), pl.String),
    "draw": pl.Int64,
}
_OF = ("task", "metric", "language")
_READ = (".yaml", ".yml", ".py", ".json", ".jsonl", ".txt", ".csv", ".parquet")
"""How files end that are parts of a task."""
TABLE = {
    **_KEYS,
    **dict.fromkeys(("value", "stderr"), pl.Float64),
    "n": pl.Int64,
    **dict.fromkeys(("difference", "low", "high"), pl.Float64),
    **dict.fromkeys(("less_control", "less_control_low", "less_control_high"), pl.Float64),
}
"""One row per task or group, metric, condition, language (whose neurons; "" for none) and draw of control neurons (0 for all
else). `value`: lm-eval's, of its metric (with its filter after a comma, where it has one); `n`: documents; `stderr`: standard
error of a mean over documents; `difference`: value minus that of `none`, with its paired 95 % bootstrap interval over documents.
`less_control`, of `off` and `steered`: value minus the mean of the draws of control neurons, with that interval over documents and draws.
Errors and intervals are null for groups and for metrics that are no mean over documents, intervals also under 20 documents.
"""
DOCUMENTS = {**_KEYS, "document": pl.Int64, "value": pl.Float64}
"""One row per document that a task gives one number for."""


@dataclass(frozen=True)
class HarnessOptions(Options):
    """How tasks of lm-eval are run."""

    languages: tuple[str, ...] | None = None
    """Whose neurons are switched off, with commas between or one by one. Default: those of every language that has some."""
    limit: Positive | None = None
    """At most this many documents of each task. Default: all."""
    shots: NotNegative | None = None
    """Examples shown before each document. Default: as the task says."""
    batch: Positive = 8
    """Requests that run at once."""
    draws: NotNegative = 1
    """Draws of matched control neurons."""
    resamples: Positive = 2000
    """Bootstrap resamples of the documents behind the 95 % intervals."""
    seed: int = 0
    """Seed of the examples, the control draws and the bootstrap."""


def harness(
    model: PreTrainedModel | nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    neurons: LanguageNeurons,
    stats: ActivationStats,
    tasks: Sequence[str] | Tasks,
    options: HarnessOptions,
    *,
    include: Path | None = None,
    steer: SteerOptions | None = None,
    folder: Path | None = None,
    described: Mapping[str, Any] | None = None,
    progress: Progress = shown,
) -> Result:
    """Run tasks of lm-eval on the model unedited, with each language's neurons off, and with matched control neurons off.

    `tasks`: names, groups or patterns such as belebele_*, or what `find_tasks` found; lm-eval fetches their data. `include`: a
    folder of the user's own task files, which can run code. `steer`: also with the language's neurons set or added to. `stats`: by which control
    neurons are matched. `folder`: where finished conditions are kept and found again; `described`: what
    `lape.model.identity.describe` says of the model, if that is known. Further: see `HarnessOptions`.

    Gives the tables `tasks` (`TABLE`: lm-eval's own metrics, with paired 95 % intervals over documents) and `documents` (`DOCUMENTS`); notes say what was
    left out. Raises OptionError without lm-eval, and for tasks that it does not know or cannot load, FileError for a folder with another run's conditions.

    Example:
        >>> from lape.experiments.harness.run import HarnessOptions, harness
        >>> result = harness(model, tokenizer, neurons, stats, ["belebele_fra_Latn"], HarnessOptions(limit=20))
        >>> off = result["tasks"].filter(condition="off")
    """
    _check_steer(steer)
    known = tasks if isinstance(tasks, Tasks) else find_tasks(tasks, include)
    check_made_with(model, tokenizer, neurons=neurons, statistics=stats)
    runs: list[tuple[str, Condition]] = [("", NONE)]
    notes: list[str] = []
    for language in [tag(one) for several in options.languages or neurons for one in separated(several)]:
        found, why = conditions(model, neurons, stats, language, steer=steer, draws=options.draws, seed=options.seed)
        runs += [(language, condition) for condition in found]
        notes += why
    if folder is not None:
        about = described or describe(model, tokenizer)
        files.same_run(folder, lasting({**about, **_depends_on(neurons, stats, known, steer, options)}))
    values, documents = _all(model, tokenizer, known, runs, Cells(folder), options, progress)
    return Result({"tasks": table_of(values, documents, options), "documents": documents}, tuple(notes))


def _depends_on(
    neurons: LanguageNeurons, stats: ActivationStats, tasks: Tasks, steer: SteerOptions | None, options: HarnessOptions
) -> dict[str, Any]:
    """What a finished condition was measured with, beside the model."""
    more = ("resamples", "languages", "draws")  # of them others may be asked for
    return {
        "options": {name: value for name, value in asdict(options).items() if name not in more},
        "tasks": tasks.names,
        "files": tasks.content,
        "steer": None if steer is None else asdict(steer),
        "neurons": neurons.digest,
        "statistics": stats.manifest,
    }


def _check_steer(steer: SteerOptions | None) -> None:
    if steer is not None and (steer.tokens, steer.first, steer.fade) != ("both", None, 1.0):
        raise OptionError(
            "Tasks score text that is given, so there are no first generated tokens. Steer with tokens both, without first and fade."
        )


@dataclass(frozen=True)
class Tasks:
    """Tasks that lm-eval knows."""

    manager: Any
    """lm-eval's TaskManager."""
    names: tuple[str, ...]
    content: str = ""
    """SHA-256 over the user's own task files, and what lies beside them."""


def find_tasks(patterns: Sequence[str], include: Path | None = None) -> Tasks:
    """The tasks that names or patterns (several with commas between) stand for. `include`: a folder of more task files.

    Raises OptionError without lm-eval, for a folder that is not there, and for a name that lm-eval does not know. lm-eval reads
    all its task files for this, half a minute; not so where the folder alone holds every task that is named in full.
    """
    need("eval", "Running tasks", "lm_eval")
    wanted = [one for pattern in patterns for one in separated(pattern)]
    if not wanted:
        raise OptionError("No task was named. Give some, such as tasks=['belebele_*', 'xnli_*'].")
    if include is not None and not include.is_dir():
        raise OptionError(f"There is no folder {include}. Expected one with task files (.yaml) of lm-eval.")
    from lm_eval.tasks import TaskManager

    folder = None if include is None else str(include)
    if folder is not None:
        alone = TaskManager(include_path=folder, include_defaults=False)
        if set(wanted) <= set(alone.all_subtasks):
            return Tasks(alone, tuple(dict.fromkeys(wanted)), _content(include))
    manager = TaskManager(include_path=folder)
    return Tasks(manager, _matching(wanted, manager), _content(include))


def _content(include: Path | None) -> str:
    if include is None:
        return ""
    whole = hashlib.sha256()
    for path in sorted(one for one in include.rglob("*") if one.is_file() and one.suffix in _READ):
        whole.update(f"{path.relative_to(include)}\n".encode())
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def _matching(wanted: Sequence[str], manager: Any) -> tuple[str, ...]:
    """The names that patterns stand for; one with * or ? stands for tasks alone, not for groups, so that none comes twice."""
    found: dict[str, None] = {}
    for pattern in wanted:
        whole = any(sign in pattern for sign in "*?[")
        names = manager.all_subtasks if whole else manager.all_tasks
        matching = [name for name in names if (fnmatchcase(name, pattern) if whole else name == pattern)]
        if not matching:
            near = difflib.get_close_matches(pattern, manager.all_tasks, 3)
            hint = f" Near it: {', '.join(near)}." if near else ""
            raise OptionError(
                f"lm-eval knows no task {pattern!r}.{hint} Name one it knows, or give the folder of your own: include=FOLDER."
            )
        found |= dict.fromkeys(matching)
    return tuple(found)


def _all(
    model: Any,
    tokenizer: Any,
    tasks: Tasks,
    runs: Sequence[tuple[str, Condition]],
    cells: Cells,
    options: HarnessOptions,
    progress: Progress,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The values and the documents of every condition; what is kept of one is not run again."""
    columns = {name: TABLE[name] for name in (*_KEYS, "value", "n")}
    found: list[tuple[pl.DataFrame, pl.DataFrame]] = []
    with evaluating(model):
        from lm_eval.models.huggingface import HFLM

        wrapped = HFLM(pretrained=unwrapped(model), tokenizer=copy.deepcopy(tokenizer), batch_size=options.batch)
        for language, condition in each(runs, "running tasks", progress):
            names = [f"{condition.name}.{language}.{condition.draw}.{kind}" for kind in ("values", "documents")]
            values, documents = map(cells.kept_table, names)
            if values is None or documents is None:
                with condition.on(model):
                    results = _results(wrapped, tasks, options)
                key = {"condition": condition.name, "language": language, "draw": condition.draw}
                values = pl.DataFrame([key | row for row in _values(results)], schema=columns)
                documents = pl.DataFrame([key | row for row in _documents(results)], schema=DOCUMENTS)
                for name, table in zip(names, (values, documents), strict=True):
                    cells.keep(name, table)
            found.append((values, documents))
    return pl.concat(values for values, _ in found), pl.concat(documents for _, documents in found)


def _results(wrapped: Any, tasks: Tasks, options: HarnessOptions) -> dict[str, Any]:
    from datasets.exceptions import DatasetsError
    from lm_eval import evaluator

    seeds = dict.fromkeys(
        ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed"), options.seed
    )
    try:
        with _random_states_kept():
            results: dict[str, Any] = evaluator.simple_evaluate(
                model=wrapped,
                tasks=list(tasks.names),
                task_manager=tasks.manager,
                num_fewshot=options.shots,
                limit=options.limit,
                batch_size=options.batch,
                bootstrap_iters=0,  # it would take seconds a metric; `table_of` gives the errors of means
                log_samples=True,
                **seeds,
            )
    except LapeError:
        raise
    except (
        OSError,
        ValueError,
        KeyError,
        DatasetsError,
    ) as error:  # no network, no such data, code that is not allowed
        raise OptionError(
            f"lm-eval could not run {', '.join(tasks.names)}: {type(error).__name__}: {str(error).strip()[:300]} "
            "Its data sets are fetched when first used: check the network, or give tasks on data of your own by include=FOLDER."
        ) from error
    return results


def _values(results: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for task, metrics in results["results"].items():
        for key, value in metrics.items():
            name, comma, of = key.partition(",")
            if not comma or name.endswith("_stderr") or not _is_number(value):
                continue
            yield {"task": task, "metric": _metric(name, of), "value": float(value), "n": _count(results, task)}


def _count(results: dict[str, Any], task: str) -> int | None:
    """The documents of a task, or of all tasks of a group."""
    sizes = results.get("n-samples", {})
    if task in sizes:
        return int(sizes[task]["effective"])
    parts = [_count(results, part) for part in results.get("group_subtasks", {}).get(task, ())]
    return sum(part for part in parts if part) or None


def _documents(results: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for task, samples in results["samples"].items():
        for sample in samples:
            for name in sample["metrics"]:
                if _is_number(sample[name]):
                    metric = _metric(name, sample["filter"])
                    yield {"task": task, "metric": metric, "document": sample["doc_id"], "value": float(sample[name])}


def _metric(name: str, of: str) -> str:
    return name if of == "none" else f"{name},{of}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number, np.bool_))


def table_of(values: pl.DataFrame, documents: pl.DataFrame, options: HarnessOptions) -> pl.DataFrame:
    """Values beside their difference to the unedited model; columns: `TABLE`."""
    unedited = values.filter(pl.col("condition") == NONE.name)
    base = {(row["task"], row["metric"]): row["value"] for row in unedited.iter_rows(named=True)}
    parts = {key: frame.sort("document") for key, frame in documents.partition_by(*_KEYS, as_dict=True).items()}
    controls: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in values.filter(condition="control").sort("draw").iter_rows(named=True):
        controls.setdefault(tuple(row[name] for name in _OF), []).append(row)
    rows = []
    for row in values.iter_rows(named=True):
        own = _mean_of(parts.get(tuple(row[name] for name in _KEYS)), row["value"])
        stderr = float(own.std(ddof=1) / len(own) ** 0.5) if own is not None and len(own) > 1 else None
        row |= {"stderr": stderr}
        if row["condition"] != NONE.name:
            before = base[row["task"], row["metric"]]
            first = _mean_of(parts.get((row["task"], row["metric"], NONE.name, "", 0)), before)
            _, low, high = _difference(first, own, options)
            row |= {"difference": row["value"] - before, "low": low, "high": high}
        if row["condition"] in ("off", "steered") and (beside := controls.get(tuple(row[name] for name in _OF))):
            by_draw = [_mean_of(parts.get(tuple(one[name] for name in _KEYS)), one["value"]) for one in beside]
            _, low, high = _less(own, by_draw, options, drawn=True)
            less = row["value"] - float(np.mean([one["value"] for one in beside]))
            row |= {"less_control": less, "less_control_low": low, "less_control_high": high}
        rows.append(row)
    return pl.DataFrame(rows, schema=TABLE)


def _mean_of(documents: pl.DataFrame | None, value: float) -> Floats | None:
    """The documents' values where the metric is their mean."""
    if documents is None:
        return None
    found: Floats = documents["value"].to_numpy()
    return found if np.isclose(found.mean(), value, rtol=1e-9, atol=1e-9) else None


def _difference(before: Floats | None, after: Floats | None, options: HarnessOptions) -> Interval:
    return _less(after, [before], options)


def _less(
    value: Floats | None, others: Sequence[Floats | None], options: HarnessOptions, *, drawn: bool = False
) -> Interval:
    """The documents' values less the mean of the others', which are a sample too where they are `drawn`."""
    known = [one for one in others if one is not None and value is not None and len(one) == len(value)]
    if value is None or len(known) < len(others):
        return None, None, None
    resamples, each = Resamples(len(value), options.resamples, options.seed), np.ones(len(value))
    gaps = np.stack([resamples.ratio(value - one, each) for one in known], 1)
    return resamples.interval(gaps.mean(1), draws=[gaps[0]] if drawn else [])


@contextmanager
def _random_states_kept() -> Iterator[None]:
    """While inside, lm-eval may seed what it likes; afterwards random numbers go on as if it had not."""
    plain, of_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(plain)
            np.random.set_state(of_numpy)
