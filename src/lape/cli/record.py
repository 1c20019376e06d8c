"""`lape record`: run texts through a model and count."""

from __future__ import annotations

import dataclasses
import os
import time
from contextlib import nullcontext
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

from torch import distributed

from lape.cli.common import COMMAND, err, out, progress
from lape.cli.flags import FLAGS, Out, Several, Switch
from lape.cli.inputs import LOADING, Loading, load_proven, texts_of, tuned_of
from lape.progress import span
from lape.recording import observers
from lape.recording.engine import RecordOptions
from lape.recording.engines import ray
from lape.recording.engines.ray import ClusterOptions
from lape.recording.record import record as run
from lape.recording.run import already
from lape.signs import many
from lape.store import files, shards
from lape.store.lock import Lock

if TYPE_CHECKING:
    from lape.values.stats import ActivationStats

_RECORD, _CLUSTER = RecordOptions(), ClusterOptions()


def record(
    model: str,
    *,
    text: Several,
    to: Out,
    tuned: Several | None = None,
    overwrite: Switch = False,
    options: Annotated[RecordOptions, FLAGS] = _RECORD,
    loading: Loading = LOADING,
    cluster: Annotated[ClusterOptions, FLAGS] = _CLUSTER,
) -> None:
    """Record how often and how strongly every neuron fires in each language.

    Parameters
    ----------
    model
        A Hugging Face id, a local folder or GGUF file, or sample.
    text
        TAG=PATH, once or more: a .txt, .jsonl(.gz/.zst) or .parquet file, a folder, a glob, or hf:NAME[:CONFIG[:SPLIT]].
    to
        The run's folder. A run that was killed goes on when the same command is given again.
    tuned
        TAG=PATH, once for each language: this model tuned on it. How far each neuron's weights moved is recorded too, which the
        method variation reads. Where it was tuned in float32, load this model so too: --dtype float32.
    overwrite
        Replace an existing folder.
    """
    first = not loading.tensor_parallel or os.environ.get("RANK", "0") == "0"
    if not first:  # which speaks for all
        out.quiet = err.quiet = True

    files.refuse_existing(to, overwrite)
    texts = texts_of(text)
    checkpoints = tuned_of(tuned or ())
    with Lock(to) if first else nullcontext():  # another process that records there is named before a model is loaded
        done = already(to)
    if done:
        err.print(
            f"Found a run that was stopped, with {', '.join(done)} recorded: the parts that are whole and belong to this run are kept.",
            soft_wrap=True,
        )
    started = time.perf_counter()
    with progress() as report:
        about = {"command": [*COMMAND], "loading": dataclasses.asdict(loading)}  # for verbs that go on from the run
        how: dict[str, Any] = {"out": to, "overwrite": overwrite, "about": about, "progress": report}
        if cluster.engine == "ray":
            observers.refuse("ray", options, tuned=bool(checkpoints))
            stats = ray.record(model, texts, options, loading=loading, cluster=cluster, **how)
        else:
            loaded, tokenizer = load_proven(model, loading, report)
            stats = run(loaded, tokenizer, texts, **vars(options), tuned=checkpoints, **how)
    if loading.tensor_parallel:
        distributed.destroy_process_group()
    _say(stats, to, time.perf_counter() - started)


def _say(stats: ActivationStats, to: Path, seconds: float) -> None:
    """What was recorded, and what comes next."""
    tokens = {language: int(stats[language].tokens.sum()) for language in stats.languages}
    for language, count in tokens.items():
        out.print(f"{language}: {many(count, 'token')}")
    if len(set(tokens.values())) > 1:
        out.print("The languages have different numbers of tokens; each probability is a share of its own language's.")
    if "until" in stats.manifest:
        out.print(until_note(stats.manifest["until"]), soft_wrap=True)
    out.print(
        f"Recorded {stats.space} in {many(len(tokens), 'language')}, which took {span(seconds)}: {to}\nNext: {_next(stats, to)}",
        soft_wrap=True,
    )


def _next(stats: ActivationStats, to: Path) -> str:
    """What to type then."""
    lacking = shards.missing(stats.manifest.get("corpus", {}))
    if not lacking:
        return f"lape identify {quote(str(to))}"
    return f"record what is missing ({'; '.join(lacking)}), then lape merge {quote(str(to))} OTHERS ... --out RUN"


def until_note(until: dict[str, Any]) -> str:
    """Where recording stopped, and why."""
    last = until["curve"][-1]
    if last["language"] is None:
        return (
            "No language has 20 neurons, so the stability of the sets could not be measured and all text was recorded."
        )
    found = (
        f"sets found in halves of the text agree at {last['median']:.2f} (5th percentile {last['p5']:.2f}, {last['halvings']} halvings) in "
        f"{last['language']}, where they agree least. This is stability, not validity."
    )
    if until["reached"]:
        return f"Stopped at {last['tokens']:,} tokens per language: {found}"
    return f"The text ended at {last['tokens']:,} tokens per language, short of {until['mark']:.2f}: {found} Give more text."
