"""`lape identify`: choose language neurons from recorded statistics."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from cyclopts import Parameter

from lape.cli.common import beside, out, progress, written
from lape.cli.flags import FLAGS, Out, Switch, any_of, given_flags
from lape.cli.show import neurons_table
from lape.detect import DETECTORS
from lape.detect.halves import halvable
from lape.detect.identify import Purpose, chosen_for, method_named
from lape.detect.identify import identify as find
from lape.detect.stability import reliability as table_of
from lape.detect.stability import split_halves, stability_of
from lape.errors import FileError, warn
from lape.options import by_name, flags
from lape.store import files
from lape.store.lock import Lock
from lape.store.run import NEURONS, STATS, save_table
from lape.values.stats import ActivationStats

if TYPE_CHECKING:
    DetectorFlags: TypeAlias = Any
else:
    DetectorFlags = any_of("DetectorFlags", {name: detector.options for name, detector in DETECTORS.items()})
_NONE = DetectorFlags()
_METHODS = f"How to choose: {', '.join(list(DETECTORS)[:-1])} or {list(DETECTORS)[-1]}; docs/choosing.md compares them."


def identify(
    stats: Path,
    *,
    method: Annotated[str, Parameter(help=_METHODS)] = "lape",
    purpose: Annotated[Purpose | None, Parameter(name="--for")] = None,
    to: Out | None = None,
    reliability: bool = True,
    overwrite: Switch = False,
    options: Annotated[DetectorFlags, FLAGS] = _NONE,
) -> None:
    """Find each language's neurons, and measure how stable the sets are.

    Parameters
    ----------
    stats
        A run's folder, or a file of statistics.
    purpose
        Take the method that did best at it, by docs/choosing.md: to switch a language off and leave the others (off), or to make the model write it (steer).
    to
        Where to write: .safetensors, or .pth for the published format. Default: neurons.safetensors in the run's folder, or
        NAME.neurons.safetensors beside a file NAME.safetensors.
    reliability
        Measure split-half stability: how alike the sets of two halves of the text are (neurons are chosen 70 more times).
    overwrite
        Replace an existing file.
    """
    chosen = given_flags(options)
    if purpose is not None:
        best = chosen_for(purpose, method)
        method, chosen = best.method, {**best.options, **chosen}
        typed = " ".join(["lape identify --method", method, *flags(DETECTORS[method].options, best.options)])
        out.print(f"For {purpose}: {typed} ({best.won}: docs/choosing.md)", soft_wrap=True)
    function = method_named(method)
    by_name(DETECTORS[method].options, chosen)  # refuses before the statistics are read
    target = to or _beside(stats)
    files.refuse_existing(target, overwrite)
    recorded = ActivationStats.load(stats)
    recorded.check_whole()
    neurons = find(recorded, method, reliability=False, **chosen)
    table: Any = None
    if reliability and halvable(recorded, function, chosen):
        neurons, table = with_reliability(recorded, neurons, method, chosen)
    measured = target.with_name(f"{target.stem}.reliability.parquet")
    save = None if table is None else partial(save_table, table=table)
    with Lock(target), files.staged(measured, save):  # both are written before either takes an older one's place
        neurons.save(target, overwrite=overwrite)
    out.print(neurons_table(neurons, table))
    for line in _left_behind(target):
        out.print(line, soft_wrap=True)
    written(target, neurons.notes)
    if target.name == NEURONS and neurons.union:
        run = quote(str(target.parent))
        out.print(
            f"Next: lape perplexity {run}, or lape steer {run} 'How are you?' --to {[*neurons][-1]}", soft_wrap=True
        )


def _beside(stats: Path) -> Path:
    """The neurons of a run's folder; those of another file of statistics are called after it."""
    if stats.is_dir() or stats.name == STATS:
        return beside(stats, NEURONS)
    return stats.with_name(f"{stats.stem}.{NEURONS}")


def _left_behind(target: Path) -> list[str]:
    """What the folder holds that was measured with neurons that are there no more."""
    if target.name != NEURONS:
        return []
    from lape.reporting.gather import gather

    try:
        stale = gather(target.parent).stale
    except FileError as error:  # of some other file: these neurons are written
        warn(str(error))
        return []
    told = "No longer shown by lape report and figures: {what}, {why}.{typed}"
    return [
        told.format(what=one.what, why=one.why, typed=f" Type: {one.command}" if one.command else "") for one in stale
    ]


def with_reliability(stats: Any, neurons: Any, method: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """The neurons with their stability, and the table of reliability, from one round of halvings."""
    with progress() as report:
        found = split_halves(stats, partial(method_named(method), **options), progress=report)
    return neurons.with_stability(stability_of(neurons, found)), table_of(neurons, found)
