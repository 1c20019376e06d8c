"""One self-contained HTML file: no network, opens from a folder, light and dark."""

from __future__ import annotations

import shlex
import sys
from importlib.metadata import version
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from lape.extras import need
from lape.reporting import charts, sections
from lape.reporting.browser import browser, control_effects
from lape.reporting.findings import by_layer, findings
from lape.reporting.gathered import Gathered, gather
from lape.reporting.safe import embedded
from lape.store import files

_NAMES = {
    "findings": "Findings",
    "languages": "Languages",
    "layers": "Layers",
    "overlap": "Overlap",
    "loss": "Loss",
    "steering": "Steering",
    "answers": "Answers",
    "sweep": "Set sizes",
    "claims": "Claims",
    "neurons": "Neurons",
    "missing": "Not here",
    "provenance": "Provenance",
}


def report(run: str | Path, *, out: str | Path | None = None, overwrite: bool = False) -> Path:
    """Write a run or a study as one HTML file that holds everything it shows, and give its path (default: report.html in the run).

    Raises FileError for a folder that holds nothing to show or a file that exists, OptionError where the extra `report` is missing.
    """
    need("report", "A report", "jinja2", "altair", "vl_convert")
    target = Path(out) if out is not None else Path(run) / "report.html"
    files.refuse_existing(target, overwrite)
    page = html(gather(Path(run)))
    files.write(target, lambda path: path.write_text(page, encoding="utf-8"))
    return target


def html(run: Gathered) -> str:
    """The whole page."""
    from jinja2 import Environment

    here = resources("lape.reporting")
    source, css, js = ((here / name).read_text(encoding="utf-8") for name in ("page.html.j2", "page.css", "page.js"))
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    shown = _shown(run)
    matrix, overlap, neurons = shown["matrix"], shown["overlap"], shown["browser"]
    data = {
        "overlap": overlap and {name: overlap[name] for name in ("shared", "jaccard")},
        "matrix": matrix and {name: view["values"] for name, view in matrix["views"].items()},
        "browser": neurons and {**neurons, "controls": control_effects(run)},
    }
    there = {"languages": "cards", "loss": "matrix", "answers": "ablated", "neurons": "browser"}
    names = [(id_, name) for id_, name in _NAMES.items() if shown.get(there.get(id_, id_)) or id_ == "findings"]
    return template.render(
        **shown,
        title=str(run.model.get("id") or "Language neurons"),
        sentence=sections.sentence(run),
        sections=names,
        colours=charts.COLOURS,
        css=css,
        js=js,
        data=embedded(data),
        version=version("lape"),
        command=shlex.join(["lape", *sys.argv[1:]])
        if Path(sys.argv[0]).name == "lape"
        else f"lape report {run.folder.name}",
    )


def _shown(run: Gathered) -> dict[str, Any]:
    counts = by_layer(run)
    return {
        "findings": findings(run),
        "cards": sections.cards(run),
        "layers": charts.layers(counts, run.languages) if counts is not None and counts["neurons"].sum() else None,
        "layer_names": [] if counts is None else sorted(counts["layer"].unique()),
        "overlap": sections.overlap(run),
        "matrix": sections.matrix(run),
        "steering": sections.steering(run),
        "ablated": sections.ablated(run),
        "sweep": sections.sweep(run),
        "claims": sections.claims(run),
        "browser": browser(run),
        "missing": sections.missing(run),
        "provenance": sections.provenance(run),
    }
