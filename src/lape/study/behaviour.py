"""What the model writes, as parts of a study: language forcing that was measured before, and questions about passages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from lape.data import samples
from lape.errors import FileError, MismatchError
from lape.experiments.answering.run import answering
from lape.experiments.forcing.table import RECORDS
from lape.experiments.generation.run import silenced
from lape.experiments.generation.table import drops, shares
from lape.extras import lacking
from lape.study.part import Cost
from lape.study.study import Study, Tables

NO_FORCING = (
    "steering takes long and is measured by itself: lape force MODEL --run RUN --out FOLDER, then --forcing FOLDER"
)
NO_QUESTIONS = "no questions about passages were given (--answering TAG=FILE, in SQuAD's format, such as XQuAD's)"
_DIFFERENCES = {"family": pl.String, "measure": pl.String, **dict.fromkeys(("difference", "low", "high"), pl.Float64)}


def generation_missing(study: Study) -> str | None:
    """Bundled questions in the languages, and a language identifier, are needed."""
    if not _asked(study):
        return f"the bundled questions are in {', '.join(samples.questions('reporting'))}, none of which was recorded"
    if study.options.questions < 2:
        return "questions is under 2"
    return lacking("lid", "identifying languages", "lingua")


def _asked(study: Study) -> dict[str, list[str]]:
    """The reported questions in the languages studied."""
    found = samples.questions("reporting")
    return {language: found[language][: study.options.questions] for language in study.languages if language in found}


def generation_part(study: Study) -> Tables:
    """Questions answered with each language's neurons off; good answers are a proxy for a judge's marks."""
    options = study.options
    answers = silenced(
        study.model,
        study.tokenizer,
        study.stats,
        _asked(study),
        study.neurons,
        draws=1,
        candidates=options.candidates,
        seed=options.seed,
        grader_url=options.grader_url,
        grader_model=options.grader_model,
        folder=study.cells("generation"),
        progress=study.progress,
    )
    return {
        "generation": shares(answers, options.resamples, options.seed),
        "drops": drops(answers, options.resamples, options.seed),
        "answers": answers,
    }


def generation_cost(study: Study) -> Cost:
    """Every language under every language's set, its control and none; scoring topics is about as much again."""
    languages, options = len(_asked(study)), study.options
    cells = languages * (languages + 2)
    return Cost(
        passes=cells,
        body_tokens=cells * options.questions * 20,
        loss_tokens=cells * options.questions * options.candidates * 40 // 2,
        new_tokens=32 * (cells + 2 * languages) * -(-options.questions // 40),
    )


def forcing_missing(study: Study) -> str | None:
    """What `lape force` measured is joined, not measured again."""
    return NO_FORCING if study.forcing is None else None


def forcing_part(study: Study) -> Tables:
    """The reported shares of answers in the wanted language and good, and neurons minus each other family, from `lape force`."""
    assert study.forcing is not None  # `forcing_missing` has said so
    found = read_forcing(study.forcing, study.stats.manifest.get("model", {}))
    table = pl.DataFrame(found["records"], schema=RECORDS).filter(pl.col("split") == "report")
    study.note("steering", f"measured by: lape {' '.join(found.get('command', []))}")
    return {"forcing": table, "forcing_differences": pl.DataFrame(found["differences"], schema=_DIFFERENCES)}


def forcing_file(path: Path) -> Path:
    """The `forcing.json` at a path, or in the folder there."""
    return path / "forcing.json" if path.is_dir() else path


def read_forcing(path: Path, model: dict[str, Any]) -> dict[str, Any]:
    """The `forcing.json` at a path, or in the folder there. Raises FileError where it is none, MismatchError of another model."""
    try:
        found = json.loads(forcing_file(path).read_text(encoding="utf-8"))
        records, differences = found["records"], found["differences"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(
            f"{path} holds no measured steering ({type(error).__name__}). Expected the folder that lape force made, with forcing.json in it."
        ) from error
    known = found.get("model", {}).get("checksum") if isinstance(found.get("model"), dict) else None
    if known is not None and known != model.get("checksum"):
        raise MismatchError(
            f"{path} was measured on a model with the checksum {known[:12]}, the statistics are of {str(model.get('checksum'))[:12]}. "
            "Give steering of the same model."
        )
    return {**found, "records": records, "differences": differences}


def answering_missing(study: Study) -> str | None:
    """Only with a user's files."""
    return None if study.answering else NO_QUESTIONS


def answering_part(study: Study) -> Tables:
    """Questions about passages, unedited, with the language's neurons off, steered, and with matched neurons off."""
    options = study.options
    found = answering(
        study.model,
        study.tokenizer,
        study.answering,
        study.neurons,
        study.stats,
        questions=options.questions,
        resamples=options.resamples,
        seed=options.seed,
        progress=study.progress,
    )
    study.note("answering", *found.notes)
    return {"answering": found.table}


def answering_cost(study: Study) -> Cost:
    """Four conditions a language, each answer of at most 32 tokens; reading the passages comes on top."""
    prompts = study.options.questions * len(study.answering) * 4
    return Cost(body_tokens=prompts * 400, new_tokens=32 * max(1, prompts // 8))
