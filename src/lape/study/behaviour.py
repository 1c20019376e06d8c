"""What the model writes, as parts of a study: language forcing that was measured before, and questions about passages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from lape.analyse.forced import RECORDS
from lape.errors import FileError, MismatchError
from lape.evaluate.answering import answering
from lape.study.part import Cost
from lape.study.study import Study, Tables

NO_FORCING = (
    "steering takes long and is measured by itself: lape force MODEL --run RUN --out FOLDER, then --forcing FOLDER"
)
NO_QUESTIONS = "no questions about passages were given (--answering TAG=FILE, in SQuAD's format, such as XQuAD's)"
_DIFFERENCES = {"family": pl.String, "measure": pl.String, **dict.fromkeys(("difference", "low", "high"), pl.Float64)}


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


def read_forcing(path: Path, model: dict[str, Any]) -> dict[str, Any]:
    """The `forcing.json` at a path, or in the folder there. Raises FileError where it is none, MismatchError of another model."""
    file = path / "forcing.json" if path.is_dir() else path
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
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
