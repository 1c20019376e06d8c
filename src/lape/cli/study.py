"""`lape study`: every experiment of the paper, the methods it is compared with, and its critics, as one run."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import polars as pl

from lape.cli.common import err, out, progress, provenance, written
from lape.cli.flags import SWITCHES, Out, Several, Switch
from lape.cli.inputs import LOADING, Loading, load_proven, parallel_of, texts_of
from lape.cli.tables import titled
from lape.data.parallel import spread, warn_of_few
from lape.data.texts import listed
from lape.errors import OptionError
from lape.experiments.claim import Claim, parsed, read
from lape.experiments.context import Context
from lape.extras import INSTALL
from lape.figures.write import available
from lape.options import separated
from lape.recording.record import record
from lape.signs import many
from lape.store import files
from lape.store.draft import Draft
from lape.store.run import read_record
from lape.study.claims import NOT_ASKED, standing
from lape.study.options import study_options
from lape.study.presets import Preset
from lape.study.run import Studied, chosen_parts, plan, save
from lape.study.run import run as run_study
from lape.values.stats import ActivationStats

_STUDY = study_options()()
_TASTE = 2048
"""Tokens of each language that are recorded where only the plan is wanted: enough to know which parts can be run."""


def study(
    model: str,
    *,
    parallel: Several,
    to: Out,
    text: Several | None = None,
    run: Path | None = None,
    parts: str | None = None,
    preset: Preset | None = None,
    claims: Path | None = None,
    overwrite: Switch = False,
    plan_only: Switch = False,
    options: Annotated[Any, SWITCHES] = _STUDY,  # of `study_options`: see below
    loading: Loading = LOADING,
) -> None:
    """Run the whole study, or parts of it: tables, figures, and a verdict on each claim from its interval.

    Passes and tokens are said first. A study that was killed goes on when the same command is given again.

    Parameters
    ----------
    model
        A Hugging Face id, a local folder or GGUF file, or sample.
    parallel
        TAG=PATH, once per language: other text, line i the same sentence in every language; effects are measured on it. Lines of one record are one document,
        and resampled together.
    to
        The folder to write.
    text
        TAG=PATH, once or more: the text that is recorded, as for lape record; beside --run, the text that was recorded.
    run
        A run that lape record made. What was not recorded in it (attributions, for instance) is left out.
    parts
        Only these parts, such as layers,perplexity. Default: all.
    preset
        Options under a name, but for those that are given: tang2024, the experiments and settings of Tang et al. 2024.
    claims
        A TOML file of claims to judge. Default: the paper's, its critics' and ours.
    overwrite
        Replace an existing folder.
    plan_only
        Say what would be run, in passes and tokens, and stop.
    """
    if text is None and run is None:
        raise OptionError(
            "There is neither text to record nor a run. Give --text TAG=PATH, once or more, or --run RUN."
        )
    draft = Draft(to, overwrite)
    wanted = chosen_parts(separated(parts), options.quick)
    toml, judged = _claims(claims)
    with ExitStack() as held:
        read = parallel_of(parallel)
        lines = read.lines
        texts = texts_of(text) if text else {}
        report = held.enter_context(progress())
        loaded, tokenizer = load_proven(model, loading, report)
        warn_of_few(spread(lines, options.tokens, tokenizer, read.documents)[1], options.tokens, tokenizer)
        stats = _statistics(loaded, tokenizer, texts, run, draft.folder, plan_only, options, report)
        context = Context(
            loaded, tokenizer, stats, lines, options, draft.folder, texts, progress=report, documents=read.documents
        )
        if plan_only:
            out.print(plan_table(plan(context, wanted)))
            return
        found = run_study(
            context,
            judged,
            wanted,
            announce=lambda table: err.print(plan_table(table)),
        )
        if not available():
            err.print(f"Figures are left out: they need matplotlib. {INSTALL.format('report')}")
        told = {"preset": preset} if preset else {}  # what is in it was read by `lape.cli.taken.from_preset`
        save(context, found, toml, provenance("study", statistics_from=str(run or to), **told), draft)
    out.print(claims_table(found))
    written(to)


study.__annotations__["options"] = Annotated[study_options(), SWITCHES]


def _claims(path: Path | None) -> tuple[str, tuple[Claim, ...]]:
    """The claims to judge, as text and read."""
    if path is None:
        toml = standing()
        return toml, parsed(toml, "the standing claims")
    judged = read(path)
    return path.read_text(encoding="utf-8"), judged


def _statistics(
    model: Any,
    tokenizer: Any,
    texts: Any,
    run: Path | None,
    working: Path,
    plan_only: bool,
    options: Any,
    report: Any,
) -> ActivationStats:
    """Those of a run, or recorded now, in the study's own folder; for a plan, a taste of them will do and is not kept."""
    if run is not None:
        return ActivationStats.load(run)
    place, tokens, attribution = working / "recorded", options.record_tokens, options.attribution
    if place.exists():
        said = read_record(place)
        asked = {"tokens": tokens, "batch_tokens": options.batch_tokens}
        asked["attribution"] = None if options.quick else attribution
        known = said.get("options") or {}
        if (
            plan_only
            or files.state_of(working)
            or (said.get("texts"), {k: known.get(k) for k in asked}) == (listed(texts), asked)
        ):
            return ActivationStats.load(place)
        shutil.rmtree(place)  # nothing says what it belongs to, and it is another's
    amount = f"at most {tokens:,} tokens of each" if tokens else "all of each"
    err.print(f"First, the text of {many(len(texts), 'language')} is recorded, {amount}.")
    if plan_only:
        tokens, attribution = min(tokens or _TASTE, _TASTE), min(attribution, _TASTE // 16)
    more = {} if options.quick else {"attribution": attribution}
    how = {"tokens": tokens, "batch_tokens": options.batch_tokens, **more}
    return record(model, tokenizer, texts, out=None if plan_only else place, progress=report, **how)


def plan_table(plan: pl.DataFrame) -> Any:
    """What is going to be run."""
    running = plan.filter(pl.col("not_run").is_null())
    tokens = pl.sum_horizontal("loss_tokens", "body_tokens", "new_tokens")
    rows = [
        [part, *(f"{count:,}" if count else "" for count in counts), about]
        for part, *counts, about in running.select("part", "passes", tokens, "about").rows()
    ]
    caption = (
        f"At most {running['passes'].sum():,} passes over {running.select(tokens.sum()).item():,} tokens; "
        "passes: sets of neurons off × languages."
    )
    left = plan.filter(pl.col("not_run").is_not_null())
    caption += "".join(f"\nNot run: {part}: {why}." for part, why in left.select("part", "not_run").rows())
    return titled("Parts of the study", ["part", "passes", "tokens", ""], rows, caption)


def claims_table(found: Studied) -> Any:
    """Each claim and its verdict; those of parts that nobody asked for are counted."""
    asked = [one for one in found.judged if one.why != NOT_ASKED]
    rows = [[one.claim.name, one.verdict] for one in asked]
    left = len(found.judged) - len(asked)
    caption = f"Not run, as their parts were not asked for: {left} more." if left else ""
    return titled("Claims", ["claim", "verdict"], rows, caption)
