"""Run a study: its experiments in order, each kept when it is finished, so that a killed study goes on where it was."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from lape.data.texts import listed
from lape.errors import OptionError, warn
from lape.experiments import experiments
from lape.experiments.claim import Claim
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import Cost, Experiment, taken
from lape.figures.write import FigureOptions, available, draw_tables, write_index
from lape.model.identity import check_made_with, describe
from lape.store import files
from lape.store.cells import Cells
from lape.store.draft import Draft
from lape.store.files import PARTS
from lape.study.claims import NOT_ASKED, Judged, judge
from lape.study.write import claims_page
from lape.values.same import lasting

PLAN = {
    **dict.fromkeys(("part", "about"), pl.String),
    **dict.fromkeys(("passes", "loss_tokens", "body_tokens", "new_tokens"), pl.Int64),
    "not_run": pl.String,
}
"""Columns of a plan: what each part runs, field by field of `Cost`; `not_run` says why a part is left out."""


@dataclass(frozen=True)
class Studied:
    """What came out of a study."""

    tables: Tables
    judged: list[Judged]
    not_run: dict[str, str]
    """Experiment -> why it was not run."""


def chosen_parts(names: Sequence[str] | None, quick: bool) -> list[Experiment[Any]]:
    """The experiments asked for, in the order in which they are run; by default all of a study, or of a quick one."""
    known = experiments()
    wanted = names or ()
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise OptionError(f"There is no part {unknown[0]!r}. Expected some of: {', '.join(known)}.")
    studied = ("always",) if quick else ("always", "full")
    return [one for one in known.values() if (one.name in wanted if wanted else one.study in studied)]


def run(
    context: Context,
    claims: Sequence[Claim],
    parts: Sequence[Experiment[Any]],
    *,
    announce: Callable[[pl.DataFrame], None] = lambda _plan: None,
) -> Studied:
    """Run experiments and judge claims. `announce` is given the plan before anything long begins.

    Everything is kept in `context.folder`; a folder of another study is refused.
    """
    if context.model is not None:
        check_made_with(context.model, context.tokenizer, bos=context.stats.bos, statistics=context.stats)
    files.same_run(context.folder, lasting(described(context)))
    why = {part.name: missing for part in parts if (missing := part.missing(context, context.options))}
    left = [part for part in parts if part.name not in why and not _finished(context, part)]
    announce(plan(context, [part for part in parts if part in left or part.name in why]))
    tables: dict[str, pl.DataFrame] = {}
    for part in parts:
        if part.name not in why:
            tables |= _part(context, part)
    asked = {part.name for part in parts}
    studied = [one for one in experiments().values() if one.study != "asked" or one.name in asked]
    why |= {one.name: NOT_ASKED for one in studied if one.name not in asked}
    reasons = {table: why[one.name] for one in studied if one.name in why for table in one.tables} | context.left_out
    why |= {f"the selection method {method}": reason for method, reason in context.left_out.items()}
    judged = [judge(claim, tables, reasons, context.over) for claim in claims]
    return Studied(tables, judged, why)


def plan(context: Context, parts: Sequence[Experiment[Any]]) -> pl.DataFrame:
    """List what each part runs, as `PLAN`; nothing is run."""
    rows = []
    for part in parts:
        missing = part.missing(context, context.options)
        cost = Cost() if missing else part.cost(context, taken(part.options, context.options))
        rows.append({"part": part.name, "about": part.about, **dataclasses.asdict(cost), "not_run": missing})
    return pl.DataFrame(rows, schema=PLAN)


def described(context: Context) -> dict[str, Any]:
    """What finished experiments depend on."""
    read = {
        f"{one.name}.{name}": path
        for one in experiments().values()
        if one.reads is not None
        for name, path in one.reads(taken(one.options, context.options)).items()
    }
    return {
        "options": {name: _plain(value) for name, value in dataclasses.asdict(context.options).items()},
        **(describe(context.model, context.tokenizer) if context.model is not None else {}),
        "statistics": context.stats.manifest,
        "neurons": context.chosen.digest if context.chosen is not None else None,
        "parallel": {language: _hash(lines) for language, lines in context.lines.items()},
        **({"documents": _hash([str(one) for one in context.documents])} if context.documents is not None else {}),
        "texts": listed(context.texts),
        "files": {name: _content(path) for name, path in read.items()},
    }


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _hash(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


def _content(path: Path) -> str | None:
    """What names a file's content, wherever it lies; None where it cannot be read, which its experiment will say."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _finished(context: Context, part: Experiment[Any]) -> bool:
    return Cells(context.folder / PARTS).has(part.name, "json")


def _part(context: Context, part: Experiment[Any]) -> Tables:
    """An experiment's tables, from the folder where it is finished."""
    cells = Cells(context.folder / PARTS)
    kept = cells.kept_record(part.name)
    there: dict[str, pl.DataFrame] = {}
    if kept is not None:
        there = {name: table for name in kept["tables"] if (table := cells.kept_table(name)) is not None}
    if kept is not None and len(there) == len(kept["tables"]):
        context.note(part.name, *kept["notes"])
        context.left_out |= kept["left_out"]
        if kept.get("sets", True):
            _ = context.neurons  # they were asked for then: `made_from` says so
        return there
    context.progress(part.about, 0, None)
    before = dict(context.left_out)
    tables = part.checked(part.run(context, taken(part.options, context.options)))
    for name, table in tables.items():
        cells.keep(name, table)
    left_out = {name: why for name, why in context.left_out.items() if name not in before}
    said = {
        "tables": list(tables),
        "notes": context.notes.get(part.name, []),
        "left_out": left_out,
        "sets": "neurons" in context.made_from,
    }
    cells.record(part.name, lambda: said)
    return tables


def run_one(context: Context, part: Experiment[Any], record: dict[str, Any], draft: Draft) -> Tables:
    """Run one experiment and write its tables as a folder of their own; one that was killed goes on where it was."""
    about = described(context)
    files.same_run(context.folder, {"experiment": part.name, **lasting(about)})
    if context.model is not None:
        check_made_with(context.model, context.tokenizer, bos=context.stats.bos, statistics=context.stats)
    tables = _part(context, part)
    told = {"made_from": context.made_from, "notes": context.notes.get(part.name, [])}
    draft.write(tables, run={**about, **record, **told})
    draft.finish()
    return tables


def save(context: Context, studied: Studied, claims: str, record: dict[str, Any], draft: Draft) -> None:
    """Write tables, figures (where matplotlib is there) and claims, and put the folder in place.

    `claims`: the TOML that was judged.
    """
    folder = context.folder
    whole = record | _record(context, studied)
    if available():
        draw(studied.tables, folder / "figures", whole)
    files.write_text(folder / "claims.toml", claims)
    files.write_text(folder / "claims.md", claims_page(studied.judged, studied.not_run, context.notes))
    draft.write({f"tables/{name}": table for name, table in studied.tables.items()}, run=whole)
    draft.finish()


def draw(tables: Tables, folder: Path, record: dict[str, Any]) -> None:
    """Every figure whose tables are there, as PDF and SVG; the same tables give the same bytes."""
    options = FigureOptions(format="pdf,svg")
    figures = {figure.name: (one, figure) for one in experiments().values() for figure in one.figures}
    made = draw_tables(
        [figure for _, figure in figures.values()], tables, folder, options, dict.fromkeys(tables, record)
    )
    for said in made.empty:
        warn(said)
    missing = {
        name: f"lape --again STUDY --parts {one.name} --out NEW"
        for name, (one, figure) in figures.items()
        if not figure.possible(tables)
    }
    write_index(folder, made, missing, options)


def _record(context: Context, studied: Studied) -> dict[str, Any]:
    numbers, texts = context.evaluation
    chosen = {language: list(texts[language].texts) for language in context.languages}
    tokens = [len(corpus.tokens) for corpus in context.work.corpora.values()]
    return {
        **described(context),
        "made_from": context.made_from,
        "space": str(context.stats.space),
        "rate": context.neurons.options["rate"],
        "threshold": context.neurons.options["threshold"],
        "recorded_tokens": {language: int(context.stats[language].tokens.sum()) for language in context.languages},
        "evaluated": {
            "lines": len(numbers),
            "numbers": numbers,
            **({"documents": context.work.units} if context.documents is not None else {}),
            "tokens": round(sum(tokens) / len(tokens)),
            "hash": _hash([line for lines in chosen.values() for line in lines]),
        },
        "claims": [
            {
                "name": one.claim.name,
                "verdict": one.verdict,
                "members": one.members.to_dicts(),
                "why": one.why,
                "unlike": one.unlike,
            }
            for one in studied.judged
        ],
        "not_run": studied.not_run,
        "notes": context.notes,
    }
