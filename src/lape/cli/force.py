"""`lape force`: which way makes a model answer in another language, and what it costs."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from lape.cli.common import Overwrite, out, plain, progress, provenance, run_of, texts_of, write_table
from lape.cli.flags import FLAGS, SWITCHES
from lape.errors import OptionError, TextError
from lape.experiments.forcing.run import ForcingOptions
from lape.model.load import ModelOptions

_MODEL, _FORCING = ModelOptions(), ForcingOptions()
_Texts = Annotated[list[str] | None, Parameter(negative="", show_default=False)]


def force(
    model: str,
    *,
    run: Path | None = None,
    to: Annotated[Path | None, Parameter(name="--out")] = None,
    questions: _Texts = None,
    development: int = 24,
    text: _Texts = None,
    evaluation: _Texts = None,
    overwrite: Overwrite = False,
    options: Annotated[ForcingOptions, FLAGS] = _FORCING,
    loading: Annotated[ModelOptions, SWITCHES] = _MODEL,
) -> None:
    """Ask questions in every language and force the answers into others, by each family of methods on equal terms.

    Parameters
    ----------
    model
        A Hugging Face id, a local folder or GGUF file, or sample.
    run
        A run's folder, with statistics. Default for sample: the demo's.
    to
        The folder to write. Default: forcing in the run's folder. A run that was killed goes on when the same command is given again.
    questions
        TAG=PATH, once or more: a file of questions, one a line, line i asking the same in every language. Default: the bundled ones.
    development
        How many of them, the first ones, choose the settings; the rest report.
    text
        TAG=PATH: text from which the vocabulary mask takes its words. Default: the bundled text that the demo records.
    evaluation
        TAG=PATH: other text, parallel line by line, that measures costs and the identifiers. Default: the bundled text that the demo evaluates.
    overwrite
        Replace an existing folder.
    """
    from lape.cli.tables import forcing_tables
    from lape.detect.identify import identify
    from lape.experiments.forcing.run import forcing
    from lape.model.load import check_made_with, describe, load
    from lape.store import files
    from lape.values.neurons import LanguageNeurons
    from lape.values.stats import ActivationStats

    folder = run_of(model, run)
    target = to or (folder if folder.is_dir() else folder.parent) / "forcing"
    files.refuse_existing(target, overwrite)
    stats = ActivationStats.load(folder)
    asked = _questions(questions, stats.languages)
    first, rest = _split(asked, development)
    words, judged = _texts(text, "record", asked), _texts(evaluation, "evaluate", asked)
    saved = (folder / "neurons.safetensors").is_file()
    neurons = LanguageNeurons.load(folder) if saved else identify(stats, reliability=False)
    with progress() as report:
        loaded, tokenizer = load(model, loading, progress=report)
        check_made_with(loaded, statistics=stats)
        record = provenance(
            "force",
            options=dataclasses.asdict(options),
            questions=asked,
            development=development,
            texts=plain(words),
            evaluation=plain(judged),
            statistics=stats.manifest.get("corpus", {}),
            **describe(loaded, tokenizer),
        )
        working = files.partial(target)
        found = forcing(
            loaded,
            tokenizer,
            stats,
            first,
            rest,
            options,
            texts=words,
            evaluation=judged,
            neurons=neurons,
            folder=working,
            progress=report,
        )
    _save(working, found, record)
    shutil.rmtree(working / "cells", ignore_errors=True)
    (working / files.STATE).unlink()
    files.finish(working, target)
    out.print(forcing_tables(found))
    for note in found.notes:
        out.print(note, highlight=False)
    out.print(f"Written: {target}", highlight=False, soft_wrap=True)


def _save(folder: Path, found: Any, record: dict[str, Any]) -> None:
    from lape.measure.answer_table import DEFINITIONS
    from lape.store import files

    for name in ("answers", "table", "differences", "costs", "identification"):
        write_table(getattr(found, name), folder / f"{'forcing' if name == 'table' else name}.parquet")
    tables = ("differences", "costs", "identification")
    files.write_json(
        folder / "forcing.json",
        {
            "command": record["command"],
            "versions": record["versions"],
            "model": record["model"],
            "options": record["options"],
            "definitions": DEFINITIONS,
            "notes": list(found.notes),
            "records": _rounded(found.table),
            **{name: _rounded(getattr(found, name)) for name in tables},
        },
    )
    files.write_json(folder / "run.json", record)


def _rounded(frame: Any) -> list[dict[str, Any]]:
    return [
        {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}
        for row in frame.iter_rows(named=True)
    ]


def _questions(flags: Sequence[str] | None, languages: Sequence[str]) -> dict[str, list[str]]:
    from lape.data import samples
    from lape.data.texts import documents
    from lape.measure.questions import checked_questions

    if not flags:
        bundled = samples.questions("all")
        known = {language: asked for language, asked in bundled.items() if language in languages}
        if len(known) < 2:
            raise TextError(
                f"The bundled questions are in {', '.join(bundled)}; the statistics are of {', '.join(languages)}. Give your own: --questions TAG=PATH."
            )
        return known
    asked = texts_of(flags, "--questions").items()
    return checked_questions({k: ["".join(pieces) for pieces in documents(v, rule="line")] for k, v in asked})


def _split(asked: Mapping[str, list[str]], development: int) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    from lape.measure.answer_quality import FEWEST

    count = min(map(len, asked.values()))
    if count < FEWEST + 2:
        raise TextError(
            f"There are only {count} questions. Expected at least {FEWEST + 2}: {FEWEST} that choose the settings, and some to report on."
        )
    if not FEWEST <= development <= count - 2:
        raise OptionError(
            f"development is {development}. Expected {FEWEST} to {count - 2}: there are {count} questions, and some must be left to report on."
        )
    return {k: v[:development] for k, v in asked.items()}, {k: v[development:] for k, v in asked.items()}


def _texts(flags: Sequence[str] | None, part: Any, languages: Mapping[str, Any]) -> dict[str, Any]:
    """Texts by language: those named, or the bundled ones of the languages that are asked in."""
    from lape.data import samples
    from lape.recording.run import checked_texts

    if flags:
        return checked_texts(texts_of(flags))
    return {language: source for language, source in samples.texts(part).items() if language in languages}
