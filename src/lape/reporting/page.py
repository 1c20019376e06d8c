"""One self-contained HTML file: no network, opens from a folder, light and dark."""

from __future__ import annotations

import base64
import shlex
import sys
import tempfile
from importlib.metadata import version
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from lape.detect.stability import UNION
from lape.errors import FileError, warn
from lape.experiments import experiments
from lape.experiments.claim import read as read_claims
from lape.experiments.section import Grid, Section
from lape.extras import need
from lape.figures.write import FigureOptions, draw_tables
from lape.reporting.browser import browser, control_effects
from lape.reporting.gather import Gathered, gather, nothing
from lape.reporting.safe import answer, embedded, named
from lape.signs import many
from lape.store import files, shards
from lape.store.run import Run

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D1F", "#9B6FD0", "#999999")
"""Okabe and Ito's palette without black, so that it can be told apart on white and on black, and two more."""
_MADE, _BEGINNING = b'<meta name="generator" content="lape">', 1000
"""By what a report is known among its first bytes."""
MOST = 30
"""Rows of a table that are shown."""


def report(run: str | Path, *, out: str | Path | None = None) -> Path:
    """Write a run or a study as one HTML file that holds everything it shows, and give its path (default: report.html in the run).

    `run`: a folder that `lape.record`, `lape identify`, `lape study` or another verb made. The page needs no network, and no other file.

    A report that is there already is replaced. Raises FileError for a folder that holds nothing to show, and for another file in its place,
    OptionError where the extra `report` is missing.

    Example:
        >>> page = lape.report("run")
        >>> page.name
        'report.html'
    """
    need("report", "A report", "jinja2", "matplotlib")
    folder = Run(run).folder  # before anything is said of where the page is written
    target = Path(out) if out is not None else folder / "report.html"
    files.refuse_existing(target, overwrite=True)
    if target.exists() and (target.is_dir() or _MADE not in target.read_bytes()[:_BEGINNING]):
        raise FileError(f"{target} exists already, and is no report of lape. Move it, or choose another file.")
    found = gather(folder)
    if not found.tables and not found.run.stats:
        raise nothing(found, "to report")
    files.write_text(target, html(found))
    return target


def html(run: Gathered) -> str:
    """The whole page."""
    from jinja2 import Environment

    here = resources("lape.reporting")
    source, css, js = ((here / name).read_text(encoding="utf-8") for name in ("page.html.j2", "page.css", "page.js"))
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=named)
    environment.filters["harmless"] = answer
    every = {name: said for name, one in experiments().items() if (said := one.said(run.tables)) is not None}
    shown = {
        "stale": run.stale,
        "findings": [*(finding for section in every.values() for finding in section.findings), *_judged(run)],
        "cards": cards(run),
        "experiments": {name: _blocks(section) for name, section in every.items()},
        "claims": claims(run),
        "browser": browser(run),
        "missing": missing(run),
        "provenance": provenance(run),
    }
    neurons: Any = shown["browser"]
    grids = [block for section in every.values() for block in section.blocks if isinstance(block, Grid)]
    data = {
        "grids": {
            one.name: {k: {"values": v.values, "digits": v.digits} for k, v in one.views.items()} for one in grids
        },
        "browser": neurons and {**neurons, "controls": control_effects(run)},
    }
    return environment.from_string(source).render(
        **shown,
        unsure=run.unsure,
        pictures=pictures(run),
        most=MOST,
        title=str(run.model.get("id") or "Language neurons"),
        sentence=sentence(run),
        sections=_contents(shown),
        colours=COLOURS,
        layer_names=sorted(run.tables["histogram"]["layer"].unique()) if "histogram" in run.tables else [],
        css=css,
        js=js,
        data=embedded(data),
        version=version("lape"),
        command=_command(run),
    )


def _blocks(section: Section) -> dict[str, Any]:
    blocks = [{"kind": type(block).__name__, "of": block} for block in section.blocks]
    return {"title": section.title, "about": section.about, "blocks": blocks}


def _contents(shown: dict[str, Any]) -> list[tuple[str, str]]:
    """What the page holds, as its own links."""
    names = [("findings", "Findings"), *([("cards", "Languages")] if shown["cards"] else [])]
    names += [(name, section["title"]) for name, section in shown["experiments"].items()]
    rest = {"claims": "Claims", "browser": "Neurons", "missing": "Not here", "provenance": "Provenance"}
    return [*names, *(("neurons" if key == "browser" else key, title) for key, title in rest.items() if shown[key])]


def _command(run: Gathered) -> str:
    typed = Path(sys.argv[0]).name == "lape"
    return shlex.join(["lape", *sys.argv[1:]]) if typed else f"lape report {run.folder.name}"


def pictures(run: Gathered) -> dict[str, dict[str, str]]:
    """Figure -> the picture that `lape figures` writes, as the address of an image, with its title and caption."""
    every = [figure for experiment in experiments().values() for figure in experiment.figures]
    with tempfile.TemporaryDirectory() as folder:
        made = draw_tables(every, run.tables, Path(folder), FigureOptions(format="svg"), run.facts)
        for said in made.empty:
            warn(said)
        encoded = {name: base64.b64encode((Path(folder) / file).read_bytes()) for name, (file,) in made.files.items()}
    return {
        name: {
            "source": f"data:image/svg+xml;base64,{image.decode()}",
            "title": made.titles[name],
            "caption": made.captions[name],
        }
        for name, image in encoded.items()
    }


def sentence(run: Gathered) -> str:
    """What was run, in one sentence."""
    model, languages = run.model, run.languages
    what = {"study": "A study of", "confusion": "Answers of"}.get(str(run.record.get("verb")), "Language neurons of")
    parts = [f"{what} {model.get('id', 'a model')}"]
    if model.get("dtype"):
        parts.append(f"in {model['dtype']}")
    parts.append(f"in {many(len(languages), 'language')} ({', '.join(languages)})")
    tokens = recorded_tokens(run)
    if tokens:
        low, high = min(tokens.values()), max(tokens.values())
        parts.append(
            f"recorded on {low:,} to {high:,} tokens of each" if low < high else f"recorded on {low:,} tokens of each"
        )
    if run.neurons is not None:
        parts.append(f"chosen by the method {run.neurons.method}: {len(run.neurons.union):,} of {run.neurons.space}")
    elif run.record.get("space"):
        parts.append(f"of {run.record['space']}")
    return ", ".join(parts) + "."


def recorded_tokens(run: Gathered) -> dict[str, int]:
    """Language -> counted tokens."""
    if run.stats is not None:
        return {language: int(run.stats[language].tokens.sum()) for language in run.stats.languages}
    found: dict[str, int] = run.record.get("recorded_tokens", {})
    return found


def cards(run: Gathered) -> list[dict[str, Any]]:
    """One a language: its neurons, layers, reliability, own damage and controls."""
    tokens, counts = recorded_tokens(run), run.tables.get("histogram")
    reliability = {row["language"]: row for row in _rows(run, "reliability") if row["language"] != UNION}
    own = {row["off"]: row for row in _rows(run, "perplexity") if row["off"] == row["language"]}
    result = []
    for language in run.languages:
        mine = None if counts is None else counts.filter(language=language).sort("layer")["neurons"].to_list()
        result.append(
            {
                "language": language,
                "tokens": tokens.get(language),
                "layers": mine,
                "neurons": sum(mine) if mine is not None else None,
                "alone": len(run.neurons.only(language)) if run.neurons is not None else None,
                "reliability": reliability.get(language),
                "own": own.get(language),
            }
        )
    return result


def _rows(run: Gathered, table: str) -> list[dict[str, Any]]:
    return run.tables[table].to_dicts() if table in run.tables else []


def claims(run: Gathered) -> list[dict[str, Any]]:
    """A study's claims and their verdicts."""
    judged = _verdicts(run)
    if not judged or not (run.folder / "claims.toml").is_file():
        return []
    says = {claim.name: claim.says for claim in read_claims(run.folder / "claims.toml")}
    return [{**one, "says": says.get(one["name"], one["name"])} for one in judged]


def _verdicts(run: Gathered) -> list[dict[str, Any]]:
    """Of a study whose tables are shown."""
    return (run.record.get("claims") or []) if run.record.get("verb") == "study" and not run.why else []


def _judged(run: Gathered) -> list[str]:
    judged = _verdicts(run)
    if not judged:
        return []
    held = sum(one["verdict"].startswith("holds") for one in judged)
    return [f"Of {len(judged)} claims, {held} hold here."]


def missing(run: Gathered) -> list[dict[str, str]]:
    """What could be here and is not, and the command that makes it; experiments that a study runs only when asked are left out of it."""
    lacking = []
    if run.neurons is None and run.strange is None and "histogram" not in run.tables:
        lacking.append({"what": "Language neurons", "command": run.identify})
    for experiment in experiments().values():
        wholly = not any(name in run.tables or name in run.why for name in experiment.tables)
        if wholly and not (run.run.is_study and experiment.study == "asked"):
            lacking.append(
                {"what": experiment.title, "command": run.command(experiment, next(iter(experiment.tables)))}
            )
    if not run.run.is_study:
        study = f"lape study {shlex.quote(str(run.folder))} --parallel TAG=PATH --out STUDY"
        lacking.append({"what": "Everything, with claims judged", "command": study})
    return [one for one in lacking if one["command"]]


def provenance(run: Gathered) -> list[tuple[str, str]]:
    """Model, text, versions, and the command to repeat it."""
    model, record = run.model, run.record
    holder = run.stats or run.neurons
    manifest = record if holder is None else holder.manifest
    corpus = manifest.get("corpus") or record.get("statistics", {}).get("corpus", {})
    versions = record.get("versions") or manifest.get("versions") or {}
    rows = [
        ("model", str(model.get("id", ""))),
        ("revision", str(model.get("revision") or "not named")),
        ("checksum of its parameters", str(model.get("checksum", ""))),
        ("its configuration", _config(model.get("config"))),
        ("number format", str(model.get("dtype", ""))),
        ("hash of its tokenizer", str((manifest.get("tokenizer") or record.get("tokenizer") or {}).get("hash", ""))),
        *((f"text of {language}", _text(one)) for language, one in shards.each_text(corpus)),
        ("versions", ", ".join(f"{name} {one}" for name, one in versions.items())),
        ("command", shlex.join(["lape", *record["command"]]) if record.get("command") else ""),
    ]
    return [(name, value) for name, value in rows if value]


def _config(config: Any) -> str:
    """What of a configuration computes, name by name; a hash of it in older files."""
    return ", ".join(f"{k} {v}" for k, v in config.items()) if isinstance(config, dict) else str(config or "")


def _text(one: dict[str, Any]) -> str:
    count = one.get("documents", 0)
    return f"{many(count, 'document')}, SHA-256 {one.get('hash', '')}"
