"""`lape study`: every experiment of the paper, the methods it is compared with, and its critics, as one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from lape.cli.common import Overwrite, TextFlags, err, out, progress, provenance, span, texts_of
from lape.cli.flags import SWITCHES
from lape.model.load import ModelOptions
from lape.study.options import StudyOptions

_MODEL, _STUDY = ModelOptions(), StudyOptions()
_TASTE = 2048
"""Tokens of each language that are recorded where only the plan is wanted: enough to know which parts can be run."""
_Flags = Annotated[list[str] | None, Parameter(negative="", show_default=False)]


def study(
    model: str,
    *,
    parallel: Annotated[list[str], Parameter(negative="", show_default=False)],
    to: Annotated[Path, Parameter(name="--out")],
    text: TextFlags | None = None,
    run: Annotated[Path | None, Parameter(name="--run")] = None,
    answering: _Flags = None,
    forcing: Path | None = None,
    parts: Annotated[str | None, Parameter(name="--parts")] = None,
    claims: Path | None = None,
    overwrite: Overwrite = False,
    plan_only: Annotated[bool, Parameter(negative="")] = False,
    options: Annotated[StudyOptions, SWITCHES] = _STUDY,
    loading: Annotated[ModelOptions, SWITCHES] = _MODEL,
) -> None:
    """Run the whole study, or parts of it: tables, figures, and each claim confirmed or refuted with an interval.

    The number of passes and the time are said first. A study that was killed goes on when the same command is given again.

    Parameters
    ----------
    model
        A Hugging Face id, a local folder or GGUF file, or sample.
    parallel
        TAG=PATH, once a language: other text, line i the same sentence in every language; effects are measured on it.
    to
        The folder to write.
    text
        TAG=PATH, once or more: the text that is recorded, as for lape record; beside --run, the text that was recorded.
    run
        A run that lape record made. What was not recorded in it (attributions, for instance) is left out.
    answering
        TAG=FILE, once a language: questions about passages, in SQuAD's format.
    forcing
        The folder of lape force, whose results are joined.
    parts
        Only these parts, such as layers,perplexity. Default: all.
    claims
        A TOML file of claims to judge. Default: the paper's, its critics' and ours.
    overwrite
        Replace an existing folder.
    plan_only
        Say what would be run and for how long, and stop.
    """
    from lape.errors import OptionError
    from lape.model.load import load
    from lape.recording.run import checked_texts
    from lape.store import files
    from lape.study.claims import read
    from lape.study.plan import plan, speed
    from lape.study.run import chosen_parts, save
    from lape.study.run import run as run_study
    from lape.study.study import Study
    from lape.study.texts import parallel_lines

    if text is None and run is None:
        raise OptionError("Expected --text TAG=PATH, once or more, to record, or --run RUN that is recorded already.")
    files.refuse_existing(to, overwrite)
    wanted = chosen_parts([name.strip() for name in parts.split(",")] if parts else None, options.quick)
    file = claims or Path(__file__).parent.parent / "study" / "claims.toml"
    judged = read(file)
    lines = parallel_lines(_single(parallel, "--parallel"))
    questions = _single(answering or [], "--answering")
    texts = checked_texts(texts_of(text)) if text else {}
    working = files.partial(to)
    with progress() as report:
        loaded, tokenizer = load(model, loading, progress=report)
        if run is None and not (working / "recorded").exists():
            measured = speed(loaded, tokenizer, lines, options.batch_tokens)
            err.print(recording_note(len(texts), options.record_tokens, 1 / measured.body), highlight=False)
        stats = _statistics(loaded, tokenizer, texts, run, working, plan_only, options, report)
        made = Study(loaded, tokenizer, stats, lines, options, working, texts, questions, forcing, progress=report)
        if plan_only:
            out.print(plan_table(plan(made, wanted)))
            return
        found = run_study(made, judged, wanted, announce=lambda table: err.print(plan_table(table)))
        save(made, found, file, provenance("study", statistics_from=str(run or to)), _figures(), to)
    out.print(claims_table(found.judged))
    out.print(f"Written: {to}", highlight=False, soft_wrap=True)


def _single(flags: list[str], option: str) -> dict[str, str]:
    """Language -> its one file."""
    from lape.errors import TextError

    found: dict[str, str] = {}
    for tag, source in texts_of(flags, option).items():
        paths = list(source) if isinstance(source, list) else [source]
        if len(paths) != 1:
            raise TextError(f"{option} names {len(paths)} files for {tag}. Expected one file for each language.")
        found[tag] = str(paths[0])
    return found


def _statistics(
    model: Any, tokenizer: Any, texts: Any, run: Path | None, working: Path, plan_only: bool, options: Any, report: Any
) -> Any:
    """Those of a run, or recorded now, in the study's own folder; for a plan, a taste of them will do and is not kept."""
    from lape.recording.record import record
    from lape.values.stats import ActivationStats

    place = working / "recorded"
    if run is not None or place.exists():
        return ActivationStats.load(run or place)
    tokens, attribution = options.record_tokens, options.attribution
    if plan_only:
        tokens, attribution = min(tokens or _TASTE, _TASTE), min(attribution, _TASTE // 16)
    more = {} if options.quick else {"attribution": attribution}
    return record(
        model,
        tokenizer,
        texts,
        out=None if plan_only else place,
        tokens=tokens,
        batch_tokens=options.batch_tokens,
        progress=report,
        **more,
    )


def _figures() -> Any:
    """How figures are drawn, or None where matplotlib is missing."""
    from lape.study.figures import available, draw

    if not available():
        err.print('Figures are left out: they need matplotlib (pip install "lape[report]").', highlight=False)
        return None
    return draw


def recording_note(languages: int, tokens: int | None, speed: float) -> str:
    """How long recording is going to take, as far as that can be known before the text is read."""
    many = f"{tokens:,} tokens of each ({span(tokens * languages / speed)} in all)" if tokens else "all of each"
    return f"First the text of {languages} languages is recorded, {many}, at about {speed:,.0f} tokens a second by a measured probe."


def plan_table(plan: Any) -> Any:
    """What is going to be run, and for how long."""
    from lape.cli.tables import titled

    running = plan.filter(plan["not_run"].is_null())
    rows = [
        [row["part"], f"{row['passes']:,}" if row["passes"] else "", span(row["seconds"]), row["about"]]
        for row in running.iter_rows(named=True)
    ]
    total = running["seconds"].sum()
    caption = f"At most {plan['passes'].sum():,} passes, about {span(total)} by a measured probe; passes: sets of neurons off × languages."
    left = plan.filter(plan["not_run"].is_not_null())
    caption += "".join(f"\nNot run: {row['part']}: {row['not_run']}." for row in left.iter_rows(named=True))
    return titled("Parts of the study", ["part", "passes", "time", ""], rows, caption)


def claims_table(judged: Any) -> Any:
    """Each claim and its verdict."""
    from lape.cli.tables import titled

    return titled("Claims", ["claim", "verdict"], [[one.claim.name, one.verdict] for one in judged])
