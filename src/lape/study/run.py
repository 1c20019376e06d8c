"""Run a study: its parts in order, each kept when it is finished, so that a killed study goes on where it was."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from lape.errors import OptionError
from lape.extras import need
from lape.model.load import check_made_with, describe
from lape.store import files
from lape.store.cells import Cells
from lape.study.behaviour import forcing_file
from lape.study.claims import Claim, Judged, judge
from lape.study.derived import derived
from lape.study.part import Part
from lape.study.parts import PARTS
from lape.study.plan import plan
from lape.study.study import Study, Tables
from lape.study.write import claims_page, latex, methods


@dataclasses.dataclass(frozen=True)
class Studied:
    """What came out."""

    tables: Tables
    judged: list[Judged]
    not_run: dict[str, str]
    """Part -> why it was not run."""


def chosen_parts(names: Sequence[str] | None, quick: bool) -> list[Part]:
    """The parts asked for, in the order in which they are run."""
    known = [part.name for part in PARTS]
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise OptionError(f"There is no part {unknown[0]!r}. Expected some of: {', '.join(known)}.")
    return [part for part in PARTS if (part.name in names if names else part.quick or not quick)]


def run(
    study: Study,
    claims: Sequence[Claim],
    parts: Sequence[Part],
    *,
    announce: Callable[[pl.DataFrame], None] = lambda _plan: None,
) -> Studied:
    """Run parts and judge claims. `announce` is given the plan before anything long begins.

    Everything is kept in `study.folder`; a folder of another study is refused.
    """
    need("study", "A study", "scipy", "statsmodels")
    check_made_with(study.model, statistics=study.stats)
    files.same_run(study.folder, described(study))
    why = {part.name: missing for part in parts if (missing := part.missing(study))}
    left = [part for part in parts if part.name not in why and not _finished(study, part)]
    announce(plan(study, [part for part in parts if part in left or part.name in why]))
    tables: Tables = {}
    for part in parts:
        if part.name not in why:
            tables |= _part(study, part)
    tables |= derived(tables, study)
    asked = {part.name for part in parts}
    why |= {part.name: "not asked for" for part in PARTS if part.name not in asked}
    reasons = {table: why[part.name] for part in PARTS if part.name in why for table in part.tables}
    if "frontier" in asked:
        reasons |= study.left_out
        why |= {f"the way of choosing {method}": reason for method, reason in study.left_out.items()}
    return Studied(tables, [judge(claim, tables, reasons, study.over) for claim in claims], why)


def described(study: Study) -> dict[str, Any]:
    """What finished parts depend on."""
    return {
        "options": dataclasses.asdict(study.options),
        **describe(study.model, study.tokenizer),
        "statistics": study.stats.manifest,
        "parallel": {language: _hash(lines) for language, lines in study.lines.items()},
        "texts": {language: str(source) for language, source in study.texts.items()},
        "answering": {language: _content(Path(path)) for language, path in study.answering.items()},
        "forcing": None if study.forcing is None else _content(forcing_file(study.forcing)),
    }


def _hash(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


def _content(path: Path) -> str | None:
    """What names a file's content, wherever it lies; None where it cannot be read, which its part will say."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _finished(study: Study, part: Part) -> bool:
    return Cells(study.folder / "parts").has(part.name, "json")


def _part(study: Study, part: Part) -> Tables:
    """A part's tables, from the folder where it is finished."""
    cells = Cells(study.folder / "parts")
    if _finished(study, part):
        kept = cells.record(part.name, dict)
        study.note(part.name, *kept["notes"])
        return {name: cells.table(name, pl.DataFrame) for name in kept["tables"]}
    study.progress(part.about, 0, None)
    tables = part.run(study)
    for name, table in tables.items():
        cells.keep(name, table)
    cells.record(part.name, lambda: {"tables": list(tables), "notes": study.notes.get(part.name, [])})
    return tables


def save(study: Study, studied: Studied, claims_file: Path, record: dict[str, Any], figures: Any, target: Path) -> None:
    """Write tables, LaTeX, figures, claims and methods, and put the folder in place.

    `figures`: tables, folder, what run.json says -> files, or None where figures cannot be drawn.
    """
    folder = study.folder
    for name, table in studied.tables.items():
        files.write(folder / "tables" / f"{name}.parquet", table.write_parquet)
        text = latex(name, table)
        files.write(folder / "tables" / f"{name}.tex", lambda path, t=text: path.write_text(t, encoding="utf-8"))  # type: ignore[misc]
    whole = record | _record(study, studied)
    if figures is not None:
        figures(studied.tables, folder / "figures", whole)
    shutil.copyfile(claims_file, folder / "claims.toml")
    page = claims_page(studied.judged, studied.not_run, study.notes)
    files.write(folder / "claims.md", lambda path: path.write_text(page, encoding="utf-8"))
    paragraph = methods(whole)
    files.write(folder / "methods.md", lambda path: path.write_text(paragraph, encoding="utf-8"))
    files.write_json(folder / "run.json", whole)
    for name in ("cells", "parts"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / files.STATE).unlink(missing_ok=True)
    files.finish(folder, target)


def _record(study: Study, studied: Studied) -> dict[str, Any]:
    numbers, texts = study.evaluation
    chosen = {language: list(texts[language].texts) for language in study.languages}
    tokens = [len(corpus.tokens) for corpus in study.work.corpora.values()]
    return {
        **described(study),
        "space": str(study.stats.space),
        "rate": study.neurons.options["rate"],
        "threshold": study.neurons.options["threshold"],
        "recorded_tokens": {language: int(study.stats[language].tokens.sum()) for language in study.languages},
        "evaluated": {
            "lines": len(numbers),
            "numbers": numbers,
            "tokens": round(sum(tokens) / len(tokens)),
            "hash": _hash([line for lines in chosen.values() for line in lines]),
        },
        "claims": [
            {"name": one.claim.name, "verdict": one.verdict, "members": one.members.to_dicts(), "why": one.why}
            for one in studied.judged
        ],
        "not_run": studied.not_run,
        "notes": study.notes,
    }
